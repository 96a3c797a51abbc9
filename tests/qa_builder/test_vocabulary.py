"""Meanings of labels, relations of tags, and normalized clips."""

import json
import pickle
import re
from pathlib import Path

import pytest
from helpers import music_tree, refusal

from tinymu_jax.data.annotations.clip import CATEGORIES, AnnotatedClip
from tinymu_jax.qa_builder.tags.table import read_table
from tinymu_jax.qa_builder.tags.vocabulary import (
    LabelMeaning,
    Tag,
    Vocabulary,
    flatten_tags,
    frequent_labels,
    normalize_clip,
    read_vocabulary,
)
from tinymu_jax.qa_builder.tags.words import label_key

HEAD = "category,name,parents,synonyms,group,phrase"
ROWS = """
instrument,plucked,,,yes,
instrument,guitar,plucked,guitars|six strings,,
instrument,electric guitar,guitar,e-guitar|loud e-guitar,,
instrument,acoustic guitar,guitar,,,
instrument,banjo,plucked,,,
instrument,percussion,,,,percussion
instrument,drums,percussion,drum|rock drums,,
instrument,tabla,drums,,,
instrument,bass,,,,
instrument,synth bass,bass|electronics,bass synth,,
instrument,electronics,,,,
genre,rock,,rock music|rock drums,,
genre,hard rock,rock,,,
genre,drum & bass,,drum n bass|drum and bass,,
mood,sad,,ambient|blue,,
genre,ambient,,,,ambient music
production,loud,,loud e-guitar,,a loud sound
production,instrumental,,,,
voice,vocals,,voice|singing|singing alone,,
voice,male voice,vocals,man|men,,
tempo,slow,,slow tempo,,
quality,noisy,,bad sound,,
ignored,cover,,,,
denial,vocals,,instrumental,,
denial,drums|bass,,a cappella,,
only,nothing else,,no other instruments|singing alone,,
""".strip()


def tags(*names):
    """Returns tags written as "category name"."""
    return tuple(Tag(*name.split(" ", 1)) for name in names)


def table(folder, rows=ROWS, head=HEAD, name="tags.csv"):
    path = Path(folder) / name
    path.write_text(f"{head}\n{rows}\n")
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return Vocabulary(**vars(read_table([table(tmp_path_factory.mktemp("words"))])))


@pytest.fixture(scope="module")
def part():
    return read_vocabulary()


GUITAR, ELECTRIC, ACOUSTIC, BANJO, PLUCKED, DRUMS, TABLA, PERCUSSION, BASS = tags(
    "instrument guitar",
    "instrument electric guitar",
    "instrument acoustic guitar",
    "instrument banjo",
    "instrument plucked",
    "instrument drums",
    "instrument tabla",
    "instrument percussion",
    "instrument bass",
)


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("Electric Guitars", ["instrument electric guitar"]),
        ("E-GUITAR", ["instrument electric guitar"]),
        ("electricguitar", ["instrument electric guitar"]),
        ("six string", ["instrument guitar"]),
        ("drum's", ["instrument drums"]),
        ("drum\u2019s", ["instrument drums"]),
        ("tàblà", ["instrument tabla"]),
        ("Drum & Bass", ["genre drum & bass"]),
        ("drum and bass", ["genre drum & bass"]),
        ("drumnbass", ["genre drum & bass"]),
        ("bass_synth", ["instrument synth bass"]),
        ("loud e-guitar", ["instrument electric guitar", "production loud"]),
        ("ambient", ["genre ambient", "mood sad"]),
        ("plucked", ["instrument plucked"]),
    ],
)
def test_labels_are_matched_by_normalized_words(words, label, meant):
    assert words.meaning(label) == LabelMeaning(tags(*meant))


@pytest.mark.parametrize("label", ["kazoo", "", "!?", "no", "no kazoo", "guitar solo", "glass"])
def test_labels_of_other_words_are_unknown(words, label):
    assert words.meaning(label) is None


@pytest.mark.parametrize(
    ("label", "category", "meant"),
    [
        ("ambient", "genre", ["genre ambient"]),
        ("ambient", "mood", ["mood sad"]),
        ("ambient", "tempo", ["genre ambient", "mood sad"]),
        ("ambient", "mood/theme", ["genre ambient", "mood sad"]),
    ],
)
def test_a_sources_category_decides_between_tags(words, label, category, meant):
    assert words.meaning(label, category).tags == tags(*meant)


@pytest.mark.parametrize(
    ("label", "denied"),
    [
        ("no drums", ["instrument drums"]),
        ("not rock", ["genre rock"]),
        ("without singing", ["voice vocals"]),
        ("No Voices", ["voice vocals"]),
        ("no ambient", ["genre ambient", "mood sad"]),  # one word: each sense is denied
        ("a cappella", ["instrument bass", "instrument drums"]),
    ],
)
def test_labels_may_deny(words, label, denied):
    assert words.meaning(label) == LabelMeaning(denied=tags(*denied))


def test_a_label_may_deny_one_tag_and_mean_another(words):
    result = words.meaning("instrumental")
    assert result == LabelMeaning(tags("production instrumental"), tags("voice vocals"))


def test_denying_a_label_of_several_words_and_tags_denies_none(words):
    assert words.meaning("no loud e-guitar") is None
    assert words.negated_meaning("loud e-guitar") is None


def test_ignored_and_only_labels(words):
    for label in ("noisy", "bad sound", "cover", "not noisy"):
        assert words.meaning(label) == LabelMeaning(ignored=True)
    assert words.meaning("no other instrument") == LabelMeaning(only=True)


def test_tags_are_related_to_ancestors_and_descendants(words):
    assert words.ancestors(ELECTRIC) == {GUITAR, PLUCKED}
    assert words.descendants(PLUCKED) == {GUITAR, ELECTRIC, ACOUSTIC, BANJO}
    assert words.related(ELECTRIC, PLUCKED)
    assert words.related(PLUCKED, ELECTRIC)
    assert words.related(BANJO, BANJO)
    assert not words.related(ELECTRIC, ACOUSTIC)
    assert not words.related(GUITAR, BANJO)


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        (ELECTRIC, ACOUSTIC, True),  # both guitars
        (GUITAR, BANJO, True),  # both plucked
        (ELECTRIC, BANJO, True),  # plucked is above the one and right above the other
        (ELECTRIC, GUITAR, False),  # related
        (ELECTRIC, ELECTRIC, False),
        (ELECTRIC, DRUMS, False),
        (ELECTRIC, Tag("genre", "hard rock"), False),
        (DRUMS, BASS, False),  # nothing above them
    ],
)
def test_near_tags_share_a_parent_or_grandparent(words, a, b, near):
    assert words.near(a, b) is near
    assert words.near(b, a) is near


def test_tags_of_one_label_share_it(words):
    loud, ambient, sad = tags("production loud", "genre ambient", "mood sad")
    assert words.share_label(ELECTRIC, loud)  # "loud e-guitar"
    assert words.share_label(loud, ELECTRIC)
    assert words.share_label(ambient, sad)
    assert not words.share_label(GUITAR, loud)
    assert not words.share_label(ELECTRIC, ELECTRIC)
    assert not words.share_label(BANJO, sad)


def test_a_branch_is_named_by_its_topmost_tag(words):
    assert words.branch(ELECTRIC) == PLUCKED
    assert words.branch(TABLA) == PERCUSSION
    assert words.branch(Tag("instrument", "synth bass")) == BASS  # by its first parent
    assert words.branch(BASS) == BASS


def test_groups_are_tags_that_are_not_asked_about(words):
    assert PLUCKED in words.tags
    assert not words.askable(PLUCKED)
    assert words.askable(GUITAR)
    assert not words.askable(Tag("instrument", "kazoo"))


def test_tags_come_by_category_and_name(words):
    places = [(CATEGORIES.index(tag.category), tag.name) for tag in words.tags]
    assert places == sorted(places)


def test_the_finest_tags_are_no_ancestors(words):
    assert words.finest((GUITAR, DRUMS, ELECTRIC)) == (DRUMS, ELECTRIC)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("A man plays the guitar.", ["instrument guitar", "voice male voice", "voice vocals"]),
        ("Two GUITARS, loud", ["instrument guitar", "production loud"]),
        ("an e-guitar riff", ["instrument electric guitar", "instrument guitar"]),
        ("some tablas", ["instrument tabla", "instrument drums", "instrument percussion"]),
        ("hard-rock", ["genre hard rock", "genre rock"]),
        ("a bass synth", ["instrument synth bass", "instrument bass", "instrument electronics"]),
        ("instrumental", ["production instrumental"]),
        ("a rocky drumstick, embassy", []),
        ("noisy, no other instruments", []),
        ("", []),
    ],
)
def test_texts_name_tags_by_whole_words(words, text, named):
    named = {*tags(*named)}
    named |= {PLUCKED} if GUITAR in named else set()
    assert words.named(text) == named
    assert {tag for tag in words.tags if words.mentions(text, tag)} == named


def clip(inputs=(), denied=(), **fields):
    """Returns a clip with labels that have no category."""
    result = {"tags": {"": tuple(inputs)}, "denied": {"": tuple(denied)}} | fields
    return AnnotatedClip("c", "c.wav", "Made", "CC0", **result)


def test_labels_are_mapped_to_tags(words):
    labels = {"": ("slow tempo", "e-guitar", "tabla"), "genre": ("ambient", "hard rock")}
    result = normalize_clip(clip(tags=labels, captions=("A caption.",), artist="A"), words)
    assert result.clip.tags == {
        "instrument": ("electric guitar", "tabla"),
        "genre": ("ambient", "hard rock"),
        "tempo": ("slow",),
    }
    assert list(result.clip.tags) == ["instrument", "genre", "tempo"]
    assert (result.clip.captions, result.clip.artist) == (("A caption.",), "A")
    assert result[1:] == ((), 0, ())


def test_two_labels_of_one_tag_give_it_once(words):
    assert normalize_clip(clip(["man", "men", "male voice"]), words).clip.tags == {
        "voice": ("male voice",)
    }


def test_denying_a_tag_denies_its_descendants(words):
    result = normalize_clip(clip(["no percussion"], ["guitar"]), words).clip
    assert result.tags == {}
    assert result.denied == {
        "instrument": (
            "acoustic guitar",
            "drums",
            "electric guitar",
            "guitar",
            "percussion",
            "tabla",
        )
    }


def test_denying_a_denial_gives_the_tag(words):
    result = normalize_clip(clip(denied=["instrumental"]), words).clip
    assert result.tags == {"voice": ("vocals",)}
    assert result.denied == {"production": ("instrumental",)}


def test_contradicted_tags_are_dropped(words):
    result = normalize_clip(clip(["no percussion", "tabla", "guitar"]), words)
    assert result.clip.tags == {"instrument": ("guitar",)}
    assert result.clip.denied == {}
    assert result.contradicted == tuple(sorted((TABLA, DRUMS, PERCUSSION)))
    assert set(flatten_tags(result.clip.ambiguous)) == {TABLA, DRUMS, PERCUSSION}


def test_denying_a_part_does_not_contradict_the_whole(words):
    result = normalize_clip(clip(["percussion", "no tabla"]), words)
    assert result.clip.tags == {"instrument": ("percussion",)}
    assert result.clip.denied == {"instrument": ("tabla",)}
    assert result.contradicted == ()


def test_instrumental_is_ignored_where_somebody_sings(words):
    result = normalize_clip(clip(["instrumental", "man"]), words)
    assert result.clip.tags == {}
    assert result.clip.denied == {}
    assert {tag.name for tag in result.contradicted} == {"vocals", "male voice"}
    result = normalize_clip(clip(["instrumental"]), words)
    assert result.clip.tags == {"production": ("instrumental",)}


def test_unknown_labels_are_listed_and_their_tags_ambiguous(words):
    result = normalize_clip(clip(["kazoo", "kazoo", "crazy tabla", "guitar"], ["theremin"]), words)
    assert result.unknown == ("kazoo", "crazy tabla", "theremin")
    assert result.clip.tags == {"instrument": ("guitar",)}
    assert set(flatten_tags(result.clip.ambiguous)) == {TABLA, DRUMS, PERCUSSION}


def test_rare_labels_are_counted_and_dropped(words):
    result = normalize_clip(clip(["tabla", "guitar", "kazoo"]), words, frozenset({"guitar"}))
    assert result.clip.tags == {"instrument": ("guitar",)}
    assert (result.rare, result.unknown) == (2, ())
    assert set(flatten_tags(result.clip.ambiguous)) == {TABLA, DRUMS, PERCUSSION}


@pytest.mark.parametrize(
    ("labels", "frequent", "exhaustive"),
    [
        (["guitar"], None, ()),
        (["guitar", "no other instruments"], None, ("instrument",)),
        (["guitar", "no other instruments", "odd mood"], None, ("instrument",)),
        (["guitar", "no other instruments", "my guitar"], None, ("instrument",)),  # it is named
        (["guitar", "no other instruments", "my tabla"], None, ()),
        (["guitar", "no other instruments", "tabla"], {"guitar", "no other instruments"}, ()),
        (["guitar", "no other instruments", "tabla"], {"guitar"}, ()),
        (["no other instruments", "no percussion", "tabla"], None, ()),
        (["no other instruments"], None, ()),  # than one that is not known
        (["my kazoo", "no other instruments", "man"], None, ()),
        (["singing alone"], None, ("instrument",)),
    ],
)
def test_only_labels_make_instruments_exhaustive_unless_a_label_is_dropped(
    words, labels, frequent, exhaustive
):
    frequent = None if frequent is None else frozenset(frequent)
    assert normalize_clip(clip(labels), words, frequent).clip.exhaustive == exhaustive


def test_a_category_is_exhaustive_only_where_all_its_labels_are_known(words):
    labels = {"instrument": ("guitar", "pianno"), "genre": ("rock",)}
    result = normalize_clip(clip(tags=labels, exhaustive=("genre", "instrument")), words)
    assert result.clip.exhaustive == ("genre",)


def test_labels_are_counted_in_all_clips_and_each_time():
    clips = [clip(["a", "a", "b"]), clip(["b", "c"], ["a"]), clip(tags={"genre": ("c",)})]
    assert frequent_labels(clips, 2) == {"a", "b", "c"}
    assert frequent_labels(clips, 3) == {"a"}
    assert frequent_labels(clips, 4) == frozenset()


@pytest.mark.parametrize(
    ("tag", "phrase", "option"),
    [
        (ELECTRIC, "an electric guitar", "Electric guitar"),
        (BANJO, "a banjo", "Banjo"),
        (DRUMS, "drums", "Drums"),
        (BASS, "a bass", "Bass"),
        (PERCUSSION, "percussion", "Percussion"),
        (Tag("genre", "ambient"), "ambient music", "Ambient"),
        (Tag("genre", "hard rock"), "hard rock", "Hard rock"),
        (Tag("mood", "sad"), "sad", "Sad"),
        (Tag("tempo", "slow"), "slow", "Slow tempo"),
        (Tag("voice", "male voice"), "a male voice", "Male voice"),
        (Tag("production", "loud"), "a loud sound", "Loud"),
    ],
)
def test_tags_stand_in_sentences_and_as_options(words, tag, phrase, option):
    assert words.phrase(tag) == phrase
    assert words.option_text(tag) == option


def test_a_user_adds_tags_labels_and_parents(tmp_path, part):
    rows = 'instrument,kazoo,wind instruments,"kazoos, all"\ninstrument,piano,,joanna\n'
    path = table(tmp_path, rows, "category,name,parents,synonyms")
    result = read_vocabulary(path)
    assert part.meaning("joanna") is None
    assert result.meaning("joanna") == LabelMeaning(tags("instrument piano"))
    assert result.meaning("kazoos, all") == LabelMeaning(tags("instrument kazoo"))
    assert result.branch(Tag("instrument", "kazoo")) == Tag("instrument", "wind instruments")
    assert result.branch(Tag("instrument", "piano")) == part.branch(Tag("instrument", "piano"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("colour,red,,,,", "line 2 has the category 'colour'; use one of instrument, genre"),
        ("mood,,,,,", "line 2 has an empty name"),
        ("mood,sad,dark,,,", "line 2 has the parent 'dark', which is not a tag"),
        ("genre,dark,,,,\nmood,sad,dark,,,", "line 3 has the parent 'dark'"),
        ("mood,sad,,,,\nmood,sad,,blue,,", "line 3 repeats the name 'sad' of line 2"),
        ("mood,sad,sad,,,", "line 2 makes 'sad' its own ancestor"),
        ("mood,a,b,,,\nmood,b,c,,,\nmood,c,a,,,", "line 2 makes 'a' its own ancestor"),
        ("mood,sad,,blue|!,,", "line 2 has the synonym '!', which has no word"),
        ("mood,sad,,,maybe,", "line 2 has 'maybe' as group; write yes, or nothing"),
        ("denial,singing,,no song,,", "line 2 denies 'singing', which is not a tag"),
        ("quality,noisy,low,,,", "line 2 has parents, which the category quality does not allow"),
        ("mood,sad,,", "line 2 has 4 fields where there are 6 columns"),
    ],
)
def test_tables_with_faults_are_refused(tmp_path, rows, said):
    message = refusal(read_table, [table(tmp_path, rows)])
    assert said in message
    assert "tags.csv" in message


def test_a_table_without_a_column_or_a_file_is_refused(tmp_path):
    message = refusal(read_vocabulary, table(tmp_path, "mood,sad,", "category,name,synonyms"))
    assert "has no column parents; name a csv of category, name, parents, synonyms" in message
    assert "cannot be read" in refusal(read_vocabulary, tmp_path / "none.csv")


def test_built_in_tags_have_distinct_phrases_and_options(part):
    asked = [tag for tag in part.tags if part.askable(tag)]
    for category in CATEGORIES:
        phrases = [part.phrase(tag) for tag in asked if tag.category == category]
        assert len(phrases) == len(set(phrases))
    options = [part.option_text(tag).lower() for tag in asked]
    assert len(options) == len(set(options))


def test_built_in_tags_are_found_by_name_and_phrase(part):
    for tag in part.tags:
        assert tag in part.meaning(tag.name, tag.category).tags
        assert part.mentions(f"It is {tag.name}.", tag)
        if tag.category not in ("genre", "function"):
            assert part.mentions(part.phrase(tag), tag)


def test_labels_with_several_tags_of_a_category_have_several_words(part):
    """ "male choir" is a male voice and a choir; single words are listed here."""
    several = {
        key
        for key, meaning in part.meanings.items()
        for category in CATEGORIES
        if sum(tag.category == category for tag in meaning.tags) > 1 and " " not in key
    }
    assert several == {"tenor", "soprano", "monk"}


@pytest.mark.parametrize(
    ("label", "meant", "denied"),
    [
        ("shimmering hi hats", ["instrument hi-hat"], []),
        ("groovy bass line", ["instrument bass"], []),
        ("mellow piano melody", ["instrument piano"], []),
        ("passionate male vocal", ["mood passionate", "voice male voice"], []),
        ("e-guitar", ["instrument electric guitar"], []),
        ("no voices", [], ["voice vocals"]),
        ("steel guitar, slide guitar", ["instrument steel guitar"], []),
        ("drumnbass", ["genre drum and bass"], []),
        ("soul-rnb", ["genre R&B", "genre soul"], []),
        ("reggae - dub", ["genre dub"], []),
        ("children\u2019s song", ["function children", "genre children's music"], []),
        ("instrumental", ["production instrumental arrangement"], ["voice vocals"]),
    ],
)
def test_labels_of_real_sources(part, label, meant, denied):
    assert part.meaning(label) == LabelMeaning(tags(*meant), tags(*denied))


def test_the_built_in_hierarchy(part):
    instrument = dict(
        zip(
            "egpxvt",
            tags(
                *(
                    f"instrument {name}"
                    for name in (
                        "electric guitar",
                        "guitar",
                        "plucked strings",
                        "bass",
                        "violin",
                        "trumpet",
                    )
                )
            ),
            strict=True,
        )
    )
    assert {instrument["g"], instrument["p"]} < part.ancestors(instrument["e"])
    assert Tag("instrument", "percussion") in part.ancestors(DRUMS)
    heavy = part.ancestors(Tag("genre", "heavy metal"))
    assert heavy == {*tags("genre metal", "genre rock")}
    assert not part.related(instrument["v"], instrument["t"])
    assert part.branch(instrument["v"]) != part.branch(instrument["t"])


def test_tags_are_found_in_real_captions(shared_dir, part):
    """Against a search for the name itself, letter by letter."""
    from tinymu_jax.data.annotations.musiccaps import read_musiccaps

    captions = [clip.captions[0] for clip in read_musiccaps(_musiccaps(shared_dir)).clips[::20]]
    result = 0
    for tag in part.tags:
        pattern = re.compile(rf"(?<![\w&'-]){re.escape(tag.name)}(?![\w&'-])", re.IGNORECASE)
        for caption in captions:
            if pattern.search(caption):
                result += 1
                assert part.mentions(caption, tag), (tag, caption)
    assert result > 1000


def _musiccaps(shared_dir):
    return shared_dir / "data" / "musiccaps-public.csv"


def test_every_frequent_aspect_of_musiccaps_is_known(shared_dir, part):
    from tinymu_jax.data.annotations.musiccaps import read_musiccaps

    clips = read_musiccaps(_musiccaps(shared_dir)).clips
    frequent = frequent_labels(clips, 20)
    assert len(frequent) == 470
    assert len(frequent_labels(clips, 1)) == 13_219
    assert [label for label in sorted(frequent) if part.meaning(label) is None] == []
    result = [normalize_clip(clip, part, frequent) for clip in clips]
    assert not any(one.unknown for one in result)
    for one in result:
        inputs = {(kind, name) for kind, names in one.clip.tags.items() for name in names}
        denied = {(kind, name) for kind, names in one.clip.denied.items() for name in names}
        assert not inputs & denied
        assert "instrument" not in one.clip.exhaustive or not any(
            tag.category == "instrument" for tag in flatten_tags(one.clip.ambiguous)
        )


def test_every_tag_of_jamendo_is_known(shared_dir, part):
    from tinymu_jax.data.annotations.jamendo import read_jamendo

    clips = read_jamendo(shared_dir / "data" / "mtg_jamendo_sample.tsv").clips
    labels = {
        (kind, label) for clip in clips for kind, names in clip.tags.items() for label in names
    }
    assert len(labels) == 183
    assert [label for label in sorted(labels) if part.meaning(label[1], label[0]) is None] == []


def test_every_class_of_audioset_below_music_is_known(shared_dir, part):
    classes = json.loads((shared_dir / "data" / "audioset_ontology.json").read_text())
    by_id = {one["id"]: one for one in classes}
    waiting, names, leaves = ["/m/04rlf"], set(), set()
    while waiting:
        one = by_id[waiting.pop()]
        waiting += one["child_ids"]
        names.add(one["name"].lower())
        leaves |= set() if one["child_ids"] else {one["name"].lower()}
    assert [name for name in sorted(names) if part.meaning(name) is None] == []
    # What a segment is labelled with asks something, but for the concepts of music.
    silent = {name for name in leaves if part.meaning(name).ignored}
    assert silent == {"song", "melody", "musical note", "chord", "harmony", "musical ensemble"}


def test_label_keys_are_idempotent(part):
    for label in (
        "Glasses",
        "blues",
        "Hi-Hats",
        "children\u2019s songs",
        "R&B",
        "classes of basses",
    ):
        assert label_key(label_key(label)) == label_key(label)
    assert label_key("Brass, Bass, Blues & Chorus") == "brass bass blues & chorus"
    assert all(label_key(key) == key for key in part.meanings)


def test_a_vocabulary_can_be_pickled(words):
    words.named("a guitar")
    sent = pickle.loads(pickle.dumps(words))
    assert sent.named("a guitar") == words.named("a guitar")
    assert sent.meaning("electricguitar") == words.meaning("electricguitar")
    assert sent.tags == words.tags


MAGNATAGATUNE = """
no voice, singer, duet, plucking, hard rock, world, bongos, harpsichord, female singing,
clasical, sitar, chorus, female opera, male vocal, vocals, clarinet, heavy, silence, beats, men,
woodwind, funky, no strings, chimes, foreign, no piano, horns, classical, female, no voices,
soft rock, eerie, spacey, jazz, guitar, quiet, no beat, banjo, electric, solo, violins, folk,
female voice, wind, happy, ambient, new age, synth, funk, no singing, middle eastern, trumpet,
percussion, drum, airy, voice, repetitive, birds, space, strings, bass, harpsicord, medieval,
male voice, girl, keyboard, acoustic, loud, classic, string, drums, electronic, not classical,
chanting, no violin, not rock, no guitar, organ, no vocal, talking, choral, weird, opera,
soprano, fast, acoustic guitar, electric guitar, male singer, man singing, classical guitar,
country, violin, electro, reggae, tribal, dark, male opera, no vocals, irish, electronica, horn,
operatic, arabic, lol, low, instrumental, trance, chant, strange, drone, synthesizer, heavy
metal, modern, disco, bells, man, deep, fast beat, industrial, hard, harp, no flute, jungle,
pop, lute, female vocal, oboe, mellow, orchestral, viola, light, echo, piano, celtic, male
vocals, orchestra, eastern, old, flutes, punk, spanish, sad, sax, slow, male, blues, vocal,
indian, no singer, scary, india, woman, woman singing, rock, dance, piano solo, guitars, no
drums, jazzy, singing, cello, calm, female vocals, voices, different, techno, clapping, house,
monks, flute, not opera, not english, oriental, beat, upbeat, soft, noise, choir, female singer,
rap, metal, hip hop, quick, water, baroque, women, fiddle, english
"""
FMA = """
Avant-Garde| International| Blues| Jazz| Classical| Novelty| Comedy| Old-Time / Historic|
Country| Pop| Disco| Rock| Easy Listening| Soul-RnB| Electronic| Sound Effects| Folk| Soundtrack|
Funk| Spoken| Hip-Hop| Audio Collage| Punk| Post-Rock| Lo-Fi| Field Recordings| Metal| Noise|
Psych-Folk| Krautrock| Jazz: Vocal| Experimental| Electroacoustic| Ambient Electronic| Radio
Art| Loud-Rock| Latin America| Drone| Free-Folk| Noise-Rock| Psych-Rock| Bluegrass|
Electro-Punk| Radio| Indie-Rock| Industrial| No Wave| Free-Jazz| Experimental Pop| French|
Reggae - Dub| Afrobeat| Nerdcore| Garage| Indian| New Wave| Post-Punk| Sludge| African|
Freak-Folk| Jazz: Out| Progressive| Alternative Hip-Hop| Death-Metal| Middle East|
Singer-Songwriter| Ambient| Hardcore| Power-Pop| Space-Rock| Polka| Balkan| Unclassifiable|
Europe| Americana| Spoken Weird| Interview| Black-Metal| Rockabilly| Easy Listening: Vocal|
Brazilian| Asia-Far East| N. Indian Traditional| South Indian Traditional| Bollywood| Pacific|
Celtic| Be-Bop| Big Band/Swing| British Folk| Techno| House| Glitch| Minimal Electronic|
Breakcore - Hard| Sound Poetry| 20th Century Classical| Poetry| Talk Radio| North African| Sound
Collage| Flamenco| IDM| Chiptune| Musique Concrete| Improv| New Age| Trip-Hop| Dance| Chip
Music| Lounge| Goth| Composed Music| Drum & Bass| Shoegaze| Kid-Friendly| Thrash| Synth Pop|
Banter| Deep Funk| Spoken Word| Chill-out| Bigbeat| Surf| Radio Theater| Grindcore| Rock Opera|
Opera| Chamber Music| Choral Music| Symphony| Minimalism| Musical Theater| Dubstep| Skweee|
Western Swing| Downtempo| Cumbia| Latin| Sound Art| Romany (Gypsy)| Compilation| Rap| Breakbeat|
Gospel| Abstract Hip-Hop| Reggae - Dancehall| Spanish| Country & Western| Contemporary
Classical| Wonky| Jungle| Klezmer| Holiday| Salsa| Nu-Jazz| Hip-Hop Beats| Modern Jazz| Turkish|
Tango| Fado| Christmas| Instrumental
"""


@pytest.mark.parametrize(
    ("text", "separator", "count", "category", "unheard"),
    [
        (MAGNATAGATUNE, ",", 188, "", {"silence", "foreign", "lol", "modern", "different"}),
        (FMA, "|", 163, "genre", {"Unclassifiable", "Compilation"}),
    ],
)
def test_the_tags_of_magnatagatune_and_the_genres_of_fma_are_known(
    part, text, separator, count, category, unheard
):
    labels = [" ".join(label.split()) for label in text.split(separator)]
    assert len(set(labels)) == len(labels) == count
    result = {label: part.meaning(label, category) for label in labels}
    assert [label for label, meaning in result.items() if meaning is None] == []
    silent = {label for label, meaning in result.items() if meaning.ignored}
    assert silent == unheard | ({"english", "not english"} if not category else set())
    for label in labels:
        if label.startswith(("no ", "not ")) and label not in silent:
            assert result[label].denied
            assert not result[label].tags


TAKEN_OTHERWISE = {
    # AudioSet puts these below tags that they are no kind of, or not everywhere.
    ("sampler", "synthesizer"),
    ("mellotron", "synthesizer"),
    ("pizzicato", "violin, fiddle"),
    ("tuning fork", "bell"),
    ("beatboxing", "hip hop music"),
    ("swing music", "country"),
    ("noise music", "electronic music"),
    ("soca music", "music of latin america"),
    ("kuduro", "music of latin america"),
    ("flamenco", "music of latin america"),
    ("drum beat", "beat"),
}


def test_families_are_those_of_audiosets_ontology(shared_dir):
    """What a leaf's parent question asks for is a class above it."""
    vocabulary = read_vocabulary()
    tree = music_tree(shared_dir / "data" / "audioset_ontology.json")
    tops = {name for name, above in tree.items() if not above}
    apart, together = set(), 0
    for name, above in tree.items():
        for parent in set(above) - tops:
            pairs = [
                (a, b)
                for a in vocabulary.meaning(name).tags
                for b in vocabulary.meaning(parent).tags
            ]
            if any(vocabulary.related(a, b) for a, b in pairs):
                together += 1
            elif pairs:
                apart.add((name, parent))
    assert apart == TAKEN_OTHERWISE
    assert together > 100
