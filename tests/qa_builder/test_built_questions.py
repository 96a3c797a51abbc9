"""Rule-based questions: negatives with evidence, distractors, balance."""

from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from helpers import refusal

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.registry import Source
from tinymu_jax.data.question_formats import CAPTIONING, MCQ, QA, YES_NO
from tinymu_jax.qa_builder.build import BuildResult, NormalizedClips, drop_items, normalize_clips
from tinymu_jax.qa_builder.cards import stats_page
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.contamination.deduplicate import DuplicateReport
from tinymu_jax.qa_builder.context import BuildContext
from tinymu_jax.qa_builder.questions.balance import balance, cap_per_clip, stratum_of, stratum_sizes
from tinymu_jax.qa_builder.questions.baselines import choice_baselines, yes_rates
from tinymu_jax.qa_builder.questions.from_rules import captions, open_questions, yes_or_no
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.multiple_choice import choices
from tinymu_jax.qa_builder.questions.negatives import draw_negatives
from tinymu_jax.qa_builder.questions.seeded_choice import hash_int, weighted_choice
from tinymu_jax.qa_builder.questions.templates import read_templates
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics, count_tags, implied_tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag, read_vocabulary

VOCABULARY, CONFIG = read_vocabulary(), BuildConfig()
CONTEXT = BuildContext(VOCABULARY, read_templates(), None, CONFIG)


def clip(name="x", captions=(), exhaustive=(), **tags):
    known = {"tags": tags, "captions": captions, "exhaustive": exhaustive}
    return AnnotatedClip(name, f"{name}.wav", "Made", "none", **known)


def statistics_of(*clips):
    return count_tags(implied_tags(one, VOCABULARY) for one in clips)


def negatives(one, statistics, most=50):
    return draw_negatives(one, most, statistics, VOCABULARY, seed=0)


PIANISTS = [clip(f"p{n}", instrument=("piano",), mood=("calm",)) for n in range(20)]
ROCKERS = [clip(f"r{n}", instrument=("electric guitar",), mood=("aggressive",)) for n in range(20)]
BANDS = [*PIANISTS, *ROCKERS]


# --- what is not there -------------------------------------------------------------------------


def test_a_missing_tag_alone_is_no_negative():
    # One clip has both: from then on nothing is known of who has one of them.
    both = clip("both", instrument=("electric guitar", "piano"))
    result = negatives(PIANISTS[0], statistics_of(*BANDS, both))
    assert Tag("instrument", "electric guitar") not in {one.tag for one in result}


def test_a_tag_that_never_cooccurs_is_a_negative():
    result = negatives(PIANISTS[0], statistics_of(*BANDS))
    assert ("instrument", "electric guitar") in {one.tag for one in result}
    assert {one.evidence for one in result} == {"other branch"}


def test_never_cooccurring_is_no_evidence_for_rare_tags():
    # 20 pianists and 1 rocker among 400 clips: a twentieth of a clip with both is expected.
    others = [clip(f"o{n}", instrument=("flute",)) for n in range(379)]
    result = negatives(PIANISTS[0], statistics_of(*PIANISTS, ROCKERS[0], *others))
    assert Tag("instrument", "electric guitar") not in {one.tag for one in result}


def test_a_tag_of_the_same_family_is_no_negative():
    strummers = [clip(f"a{n}", instrument=("acoustic guitar",)) for n in range(20)]
    result = {one.tag for one in negatives(ROCKERS[0], statistics_of(*BANDS, *strummers))}
    assert Tag("instrument", "acoustic guitar") not in result
    assert Tag("instrument", "piano") in result


def test_a_tag_in_a_caption_is_no_negative():
    reported = replace(PIANISTS[0], captions=("Someone also plays electric guitars.",))
    result = negatives(reported, statistics_of(reported, *BANDS[1:]))
    assert Tag("instrument", "electric guitar") not in {one.tag for one in result}


def test_an_ambiguous_tag_is_no_negative():
    doubtful = replace(PIANISTS[0], ambiguous={"instrument": ("electric guitar",)})
    result = negatives(doubtful, statistics_of(doubtful, *BANDS[1:]))
    assert Tag("instrument", "electric guitar") not in {one.tag for one in result}


def test_certain_negatives_come_first():
    known = replace(PIANISTS[0], denied={"mood": ("aggressive",)}, exhaustive=("instrument",))
    statistics = statistics_of(known, *BANDS[1:])
    result = {one.tag: one.evidence for one in negatives(known, statistics)}
    assert result[Tag("mood", "aggressive")] == "denied"
    assert result[Tag("instrument", "electric guitar")] == "exhaustive"
    assert Tag("instrument", "piano") not in result
    evidence = [one.evidence for one in negatives(known, statistics, most=2)]
    assert evidence[0] in ("denied", "exhaustive")


def test_production_is_never_inferred_to_be_absent():
    live = [clip(f"l{n}", production=("live performance",)) for n in range(20)]
    result = negatives(PIANISTS[0], statistics_of(*BANDS, *live))
    assert all(one.tag.category != "production" for one in result)


# --- open questions, yes or no -----------------------------------------------------------------


def test_an_open_answer_names_the_most_specific_tags_of_its_category():
    one = clip(instrument=("electric guitar", "guitar", "piano"), tempo=("slow",))
    result = {
        i.category: i
        for i in open_questions(one, CONTEXT)
        if "guitar" in i.answer or i.category == "tempo"
    }
    assert set(result) == {"instrument", "tempo"}
    answer = result["instrument"].answer
    assert "electric guitar" in answer
    assert "piano" in answer
    assert answer.count("guitar") == 1
    assert answer[0].isupper()


def test_a_family_is_asked_for_where_all_tags_belong_to_one():
    one = clip(instrument=("violin", "cello"))
    asked = list(open_questions(one, CONTEXT))
    assert [item.tags for item in asked] == [("cello", "violin"), ("strings",)]
    both = clip(instrument=("violin", "trumpet"))
    assert [item.tags for item in open_questions(both, CONTEXT)] == [("trumpet", "violin")]


def test_every_caption_is_an_answer():
    one = clip(captions=("One.", "Two."))
    asked = list(captions(one, CONTEXT))
    assert [item.answer for item in asked] == ["One.", "Two."]
    assert {item.prompt for item in asked} <= set(CONTEXT.templates.of("caption"))


def test_wordings_differ_between_clips_and_not_between_builds():
    prompts = {next(iter(open_questions(one, CONTEXT))).prompt for one in PIANISTS}
    assert len(prompts) >= 6
    again = [list(open_questions(one, CONTEXT)) for one in PIANISTS]
    assert again == [list(open_questions(one, CONTEXT)) for one in PIANISTS]
    other = CONTEXT._replace(config=replace(CONFIG, seed=1))
    assert again != [list(open_questions(one, other)) for one in PIANISTS]


def test_yes_and_no_answers_are_correct():
    statistics = statistics_of(*BANDS)
    asked = list(yes_or_no(PIANISTS[0], statistics, CONTEXT))
    answers = {item.tags[0]: (item.answer, item.evidence) for item in asked}
    assert answers["piano"] == ("Yes.", "")
    assert answers["electric guitar"] == ("No.", "other branch")
    for item in asked:
        phrase = VOCABULARY.phrase(Tag(item.category, item.tags[0]))
        assert phrase in item.prompt


# --- multiple choice ---------------------------------------------------------------------------

MANY = [
    clip(f"m{number}", genre=(genre,), instrument=(instrument,), mood=(mood,))
    for number, (genre, instrument, mood) in enumerate(
        (genre, instrument, mood)
        for genre in ("jazz", "blues", "techno", "house", "metal", "salsa", "disco")
        for instrument in ("piano", "flute", "banjo", "cello", "viola", "organ")
        for mood in ("happy", "sad", "calm", "dark", "funny")
    )
]


@pytest.fixture(scope="module")
def offered():
    statistics = statistics_of(*MANY)
    return [i for one in MANY for i in choices(one, statistics, CONTEXT)]


def test_options_have_similar_length(offered):
    assert len(offered) > 500
    for item in offered:
        right = item.options[item.kinds.index("right")]
        assert Counter(item.kinds)["right"] == 1
        assert len(set(item.options)) == 4
        for option in item.options:
            assert abs(len(option) - len(right)) <= 0.3 * len(right)
        local = [VOCABULARY.option_text(Tag(c, n)) for c, ns in item.clip.tags.items() for n in ns]
        wrong = [o for o, kind in zip(item.options, item.kinds, strict=True) if kind != "right"]
        off = [o for o, kind in zip(item.options, item.kinds, strict=True) if "off" in kind]
        # What is off the question is true of the clip; nothing else that is wrong is.
        assert set(off) == set(wrong) & set(local)


def test_near_options_share_an_ancestor_and_far_ones_do_not(offered):
    kinds = Counter()
    by_text = {VOCABULARY.option_text(tag): tag for tag in statistics_of(*MANY).clips}
    for item in offered:
        right = Tag(item.category, item.tags[0])
        for option, kind in zip(item.options, item.kinds, strict=True):
            kinds[kind] += 1
            if kind in ("near", "far"):
                assert VOCABULARY.near(by_text[option], right) == (kind == "near")
                assert not VOCABULARY.related(by_text[option], right)
    assert all(kinds[kind] > 50 for kind in ("near", "far", "off the question"))


def test_the_answer_is_the_letter_with_or_without_text(offered):
    bare = [item for item in offered if len(item.answer) == 1]
    assert 0.1 < len(bare) / len(offered) < 0.25
    for item in offered:
        letter = "ABCD"[item.kinds.index("right")]
        text = item.options["ABCD".index(letter)]
        asked_for_it = any(wording in item.prompt for wording in CONTEXT.templates.of("letter"))
        assert item.answer == (letter if asked_for_it else f"({letter}) {text}")
        assert item.prompt.endswith("The correct answer is:")
        assert all(f"({x}) {o}" in item.prompt for x, o in zip("ABCD", item.options, strict=True))


def test_no_rule_without_audio_beats_chance(offered):
    remaining = balance(offered, replace(CONFIG, mix=(0, 0, 0, 0), max_tag_ratio=9))
    result = choice_baselines(remaining)
    assert len(remaining) > 300
    for name in [*(f"always {letter}" for letter in "ABCD"), "shortest option", "longest option"]:
        assert 0.18 < result[name] < 0.32


def test_baselines_by_hand():
    def item(right, *options):
        kinds = tuple("right" if place == right else "far" for place in range(4))
        return QAItem(clip(), MCQ, "?", "", "genre", ("x",), options, kinds)

    items = [
        item(0, "a", "bb", "cc", "dd"),
        item(1, "aaa", "a", "b", "c"),
        item(1, "b", "a", "c", "d"),
    ]
    result = choice_baselines(items)
    assert result["always A"] == pytest.approx(1 / 3)
    assert result["always B"] == pytest.approx(2 / 3)
    # Shortest: right alone; one of three; one of four.
    assert result["shortest option"] == pytest.approx((1 + 1 / 3 + 1 / 4) / 3)
    assert result["longest option"] == pytest.approx((0 + 0 + 1 / 4) / 3)
    # "a" is right in all three: elsewhere twice, more than any other option.
    assert result["option most often right"] == pytest.approx(1)


def test_a_clip_without_distractors_gives_no_choice():
    lonely = clip("l", instrument=("piano",))
    assert not list(choices(lonely, statistics_of(lonely), CONTEXT))


# --- what stays --------------------------------------------------------------------------------


def made(task, number, tags=("x",), answer="", kinds=(), options=()):
    one = clip(str(number))
    return QAItem(
        one,
        task,
        f"{task} {number}?",
        answer,
        "mood",
        tags,
        options,
        kinds,
        key=hash_int(task, number),
    )


def test_yes_is_as_often_as_no_for_every_tag():
    items = [made(YES_NO, n, (f"tag {n % 3}",), "Yes." if n % 7 else "No.") for n in range(700)]
    remaining = balance(items, replace(CONFIG, mix=(0, 0, 0, 0), max_answer_percent=100))
    overall, _ = yes_rates(remaining)
    assert overall == 0.5
    by_tag = sorted(remaining, key=lambda item: item.tags)
    for _, local in groupby(by_tag, key=lambda item: item.tags):
        answers = Counter(item.answer for item in local)
        assert answers["Yes."] == answers["No."] > 30
    assert len(remaining) == 200
    # A part of them comes in pairs too.
    some = balance(items, replace(CONFIG, mix=(0, 0, 0, 1), size=51, max_answer_percent=100))
    assert Counter(item.answer for item in some) == {"Yes.": 25, "No.": 25}


def test_formats_come_in_the_wanted_mix():
    available = {(CAPTIONING, 0): 100, (QA, 0): 1000, (YES_NO, 0): 1000}
    available |= {(MCQ, part): 250 for part in range(4)}
    result = stratum_sizes(available, replace(CONFIG, mix=(10, 30, 40, 20)))
    assert result == {(CAPTIONING, 0): 100, (QA, 0): 300, (YES_NO, 0): 200} | {
        (MCQ, part): 100 for part in range(4)
    }
    limited = stratum_sizes(available, replace(CONFIG, mix=(10, 30, 40, 20), size=500))
    assert sum(limited.values()) == 500
    # A format that has none leaves the others as they are.
    less = {part: count for part, count in available.items() if part[0] != CAPTIONING}
    assert stratum_sizes(less, replace(CONFIG, mix=(10, 30, 40, 30)))[QA, 0] == 750
    # The scarcest part of multiple choice decides for all.
    scarce = available | {(MCQ, 2): 20}
    result = stratum_sizes(scarce, replace(CONFIG, mix=(0, 0, 1, 0)))
    assert {result[MCQ, part] for part in range(4)} == {20}


def test_answers_are_capped():
    items = [made(QA, n, ("often",) if n < 900 else (f"rare {n}",)) for n in range(1000)]
    remaining = balance(items, replace(CONFIG, mix=(0, 0, 0, 0), max_answer_percent=5))
    assert Counter(item.tags for item in remaining)["often",] == 50
    assert len(remaining) == 150


def test_right_options_are_capped_per_tag():
    kinds, options = ("right", "far", "far", "far"), ("a", "bb", "cc", "dd")
    often = [made(MCQ, n, ("often",), "", kinds, options) for n in range(90)]
    rare = [made(MCQ, 100 + n, (f"rare {n}",), "", kinds, options) for n in range(10)]
    remaining = balance(often + rare, replace(CONFIG, mix=(0, 0, 0, 0), max_tag_ratio=2))
    # The mean of 11 tags is 100 / 11.
    assert Counter(item.tags for item in remaining)["often",] == 19
    assert len(remaining) == 29


def test_questions_are_capped_per_clip():
    items = [made(QA, 1, (f"t{n}",))._replace(key=n) for n in range(9)]
    items += [made(CAPTIONING, 1, ())._replace(key=n) for n in range(9)]
    remaining = cap_per_clip(items, replace(CONFIG, max_open_per_clip=2, max_captions_per_clip=4))
    assert Counter(item.task for item in remaining) == {QA: 2, CAPTIONING: 4}
    assert {item.key for item in remaining if item.task == QA} == {0, 1}


def test_strata_count_shorter_options():
    kinds = ("far", "right", "far", "far")
    item = made(MCQ, 1, kinds=kinds, options=("a", "bbb", "cc", "dddd"))
    assert stratum_of(item) == (MCQ, 2)
    equal = [made(MCQ, n, kinds=kinds, options=("a", "b", "c", "d")) for n in range(400)]
    counts = Counter(stratum_of(item)[1] for item in equal)
    assert all(70 < count < 130 for count in counts.values())


def test_weighted_choice_follows_the_weights():
    drawn = Counter(weighted_choice("abc", (1, 0, 3), "seed", n) for n in range(4000))
    assert set(drawn) == {"a", "c"}
    assert 900 < drawn["a"] < 1100


def test_statistics_are_the_same_in_any_order():
    one, other = statistics_of(*BANDS), statistics_of(*BANDS[::-1])
    assert one == other
    assert list(one.clips) == list(other.clips)
    assert one.clips[Tag("instrument", "guitar")] == 20
    assert isinstance(one, TagStatistics)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tag_ratio", 0), ("min_clips_per_label", 0), ("seed", -1), ("mix", (1, -1, 0, 0))],
)
def test_settings_out_of_range_are_refused(field, value):
    assert field in refusal(replace(CONFIG, **{field: value}).check)


# --- what is called wrong ----------------------------------------------------------------------


def offered_to(one, *clips, right):
    """Returns the options of the question about a tag, with their kinds."""
    asked = choices(one, statistics_of(one, *clips), CONTEXT)
    (item,) = [item for item in asked if item.tags == (right,)]
    return dict(zip(item.options, item.kinds, strict=True))


def drawn_for(ones, *clips, right):
    """Returns all distractors of some clips."""
    result = [offered_to(one, *clips, right=right) for one in ones]
    return {text for local in result for text, kind in local.items() if kind != "right"}


OTHERS = [clip(f"o{n}", instrument=("tuba",)) for n in range(400)]


@pytest.mark.parametrize("reported", [False, True])
def test_often_cooccurring_tags_are_no_distractors(reported):
    captions = ("Some music.",) if reported else ()
    pairs = [clip(f"b{n}", genre=("metal", "blues"), instrument=("flute", "piano")) for n in "xyz"]
    pairs += [clip(f"b{n}", genre=("metal", "blues"), instrument=("flute", "piano")) for n in MANY]
    metal = [clip(f"a{n}", captions, genre=("metal",)) for n in range(30)]
    flutes = [clip(f"f{n}", captions, instrument=("flute",)) for n in range(30)]
    assert "Blues" in drawn_for(metal, *MANY, right="metal")
    assert "Piano" in drawn_for(flutes, *MANY, right="flute")
    assert "Blues" not in drawn_for(metal, *MANY, *pairs, *OTHERS, right="metal")
    # Who writes a caption names the instruments: what is not named there is not heard.
    piano = "Piano" in drawn_for(flutes, *MANY, *pairs, *OTHERS, right="flute")
    assert piano == reported


def test_two_cooccurrences_are_not_often():
    pair = [clip(f"b{n}", genre=("metal", "blues")) for n in range(2)]
    metal = [clip(f"a{n}", genre=("metal",)) for n in range(30)]
    rare = [one for one in MANY if not {"metal", "blues"} & set(one.tags["genre"])]
    few = [one for one in MANY if one.tags["genre"] == ("blues",)][:4]
    assert "Blues" in drawn_for(metal, *rare[::5], *few, *pair, *OTHERS, right="metal")


def test_a_near_mood_is_no_distractor():
    moods = ("nostalgic", "suspenseful", "energetic", "mysterious", "adventurous", "aggressive")
    clips = [clip(f"m{n}", mood=(mood,)) for mood in moods for n in range(10)]
    local, right = Tag("mood", "melancholic"), "melancholic"
    result = drawn_for([clip(f"a{n}", mood=(right,)) for n in range(30)], *clips, right=right)
    assert [m for m in moods if VOCABULARY.near(Tag("mood", m), local)] == ["nostalgic"]
    assert result == {mood.capitalize() for mood in moods if mood != "nostalgic"}


def test_a_possible_part_of_a_tag_is_no_distractor_and_no_negative():
    parts = ("snare drum", "acoustic guitar", "bass guitar", "didgeridoo", "double bass", "bongos")
    clips = [clip(f"i{n}", instrument=(part,)) for part in parts for n in range(10)]
    kits = [
        clip(f"k{n}", instrument=("acoustic drums",), exhaustive=("instrument",)) for n in range(30)
    ]
    result = drawn_for(kits, *clips, right="acoustic drums")
    assert "Acoustic guitar" in result
    assert "Snare drum" not in result
    denied = {one.tag.name for one in negatives(kits[0], statistics_of(*kits, *clips))}
    assert denied & set(parts) == set(parts) - {"snare drum"}


def test_singers_are_no_distractors_of_vocal_styles():
    voices = {"vocal harmony": 5, "male voice": 20, "female voice": 20, "rapping": 3}
    voices |= {"whispering": 3, "beatboxing": 3, "throat singing": 3, "scat singing": 3}
    clips = [clip(f"{v}{n}", voice=(v,)) for v, count in voices.items() for n in range(count)]
    harmony = [clip(f"a{n}", voice=("vocal harmony",)) for n in range(12)]
    result = drawn_for(harmony, *clips, right="vocal harmony")
    assert result == {"Beatboxing", "Whispering", "Throat singing", "Scat singing"}
    men = [clip(f"a{n}", ("A man.",), voice=("male voice",)) for n in range(30)]
    assert {"Female voice", "Rapping"} <= drawn_for(men, *clips, right="male voice")


@pytest.mark.parametrize(
    ("tags", "right", "off"),
    [
        ({"production": ("reverb",), "instrument": ("banjo",), "mood": ("sad",)}, "reverb", False),
        ({"voice": ("rapping",), "mood": ("spiritual",)}, "rapping", False),
        ({"rhythm": ("steady beat",), "tempo": ("fast",)}, "steady beat", False),
        ({"function": ("dancing",), "genre": ("dance",)}, "dancing", False),
        ({"instrument": ("piano",), "genre": ("house",)}, "piano", True),
    ],
)
def test_confusable_categories_are_not_off_the_question(tags, right, off):
    category = next(iter(tags))
    wrong = {
        "production": ("vibrato", "samples", "vocoder"),
        "voice": ("choir", "humming", "yodelling", "whistling", "screaming"),
        "rhythm": ("breakbeat rhythm", "trap beat", "hip hop beat", "free rhythm"),
        "function": ("wedding", "parade", "circus", "theatre", "birthday"),
        "instrument": ("flute", "banjo", "viola", "organ", "harp"),
    }[category]
    clips = [clip(f"w{w}{n}", **{category: (w,)}) for w in wrong for n in range(5)]
    ones = [clip(f"a{n}", **tags) for n in range(20)]
    asked = [
        item
        for one in ones
        for item in choices(one, statistics_of(*ones, *clips), CONTEXT)
        if item.tags == (right,)
    ]
    assert len(asked) == 20
    assert any("off the question" in item.kinds for item in asked) == off


# --- what is asked for as a whole --------------------------------------------------------------


def asked_openly(one):
    return [(i.category, i.tags) for i in open_questions(one, CONTEXT)]


def test_instruments_are_asked_for_only_if_complete():
    known = clip("k", ("A cello and some drums play.",), instrument=("cello", "drums"))
    assert ("instrument", ("cello", "drums")) in asked_openly(known)
    assert asked_openly(replace(known, captions=("A cello, drums and a tuba play.",))) == []
    assert asked_openly(replace(known, ambiguous={"instrument": ("tuba",)})) == []
    # A cello is all that "strings" says.
    assert asked_openly(clip("s", ("Strings.",), instrument=("cello",)))
    # How music feels need not be told in full.
    assert asked_openly(clip("m", ("It is dark.",), mood=("fast",), genre=("jazz",)))


def test_a_family_is_asked_for_only_if_it_covers_everything_mentioned():
    violins = clip("v", ("A violin with a cello.",), instrument=("violin",))
    assert asked_openly(violins) == [("instrument", ("strings",))]
    assert asked_openly(replace(violins, captions=("A violin and a flute.",))) == []


def test_a_family_is_not_a_kind_of_thing():
    # An electric guitar is a guitar; its family is not "a guitar".
    assert asked_openly(clip("g", instrument=("electric guitar",)))[1:] == [
        ("instrument", ("plucked strings",))
    ]
    assert asked_openly(clip("e", instrument=("electric piano",)))[1:] == [
        ("instrument", ("keyboards",))
    ]


# --- what is left out for a leak ---------------------------------------------------------------


def built_of(items):
    counts = Counter(item.task for item in items)
    return BuildResult(
        list(items), NormalizedClips([]), counts, Counter(), DuplicateReport(0, 0, Counter(), ())
    )


def test_dropped_leaks_are_counted():
    pair = [
        made(YES_NO, n, answer=answer)._replace(key=7) for n, answer in ((1, "Yes."), (2, "No."))
    ]
    items = [*pair, made(QA, 3), made(QA, 4)]
    result = drop_items(built_of(items), [0, 3])
    assert result.items == [items[2]]
    assert result.leaked == {YES_NO: 2, QA: 1}
    page = stats_page(result)
    assert "| test-set leaks | 3 |" in page
    assert "| Binary: not selected (caps, balance, mix) | 0 |" in page


def test_a_set_of_leaks_alone_is_refused():
    message = refusal(drop_items, built_of([made(QA, 1), made(QA, 2)]), [0, 1])
    assert message.startswith("all 2 questions leak from a test set")


def test_clips_of_test_sets_alone_are_refused():
    held = replace(clip("h", ("A caption.",)), test_sets=("Song Describer",))
    source = Source("Made", [held])
    message = refusal(normalize_clips, [source], CONTEXT, False)
    assert "belong to test sets (Song Describer)" in message
    assert "--keep-held-out" in message
    assert normalize_clips([source], CONTEXT, True).clips[0].clip == "h"
