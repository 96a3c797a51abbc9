"""Test-set leaks are found by recording, text and artist; similar items are not."""

import csv
import json
import random

import pytest
from helpers import refusal

from tinymu_jax.qa_builder.contamination.check import check_leaks, read_records
from tinymu_jax.qa_builder.contamination.near_duplicates import near_duplicate_finder
from tinymu_jax.qa_builder.contamination.test_sets import TestQuestion, TestSet, read_test_sets


def record(prompt="What is heard?", answer="Music.", file="a.wav", dataset="Mine", **more):
    texts = {"input_text": prompt, "target_text": answer}
    return {"file_name": file, "dataset": dataset, "task": "QA"} | texts | more


def leaks(records, *held_out):
    """Returns the number of leaks by kind, over all test sets."""
    report = check_leaks(records, held_out)
    kinds = ("id", "text", "artist")
    return {kind: sum(one.leaks[kind] for one in report.test_sets) for kind in kinds}


def words(start, stop):
    return " ".join(f"word{number}" for number in range(start, stop))


CAPTION = f"{words(0, 24)}."
CAPS = TestSet("Caps", frozenset({"-0Gj8-vB1q4"}), (CAPTION,))


def test_a_recording_is_found_by_its_file_and_by_its_clip():
    planted = [record(file="Y-0Gj8-vB1q4.wav"), record(clip="-0Gj8-vB1q4"), record()]
    report = check_leaks(planted, [CAPS])
    assert report.indices == (0, 1)
    assert report.test_sets[0].leaks == {"id": 2, "text": 0, "artist": 0}


def test_another_recording_of_the_same_second_is_not_found():
    assert leaks([record(file="-0Gj8-vB1q5_30_40.wav")], CAPS)["id"] == 0


@pytest.mark.parametrize(
    "text",
    [
        CAPTION.upper().replace(" ", ", "),
        # 10 of its 20 runs of five words, and of the caption's 20.
        f"{words(0, 14)} {words(100, 110)}",
        # Its own 5 runs are all in the caption; and 20 of the caption's in a longer text.
        words(8, 17),
        f"{words(100, 150)} {words(0, 24)} {words(150, 200)}",
    ],
)
@pytest.mark.parametrize("key", ["prompt", "answer"])
def test_near_copies_of_a_caption_are_found(text, key):
    assert leaks([record(**{key: text})], CAPS)["text"] == 1


@pytest.mark.parametrize(
    "text",
    [
        # 9 of 20 runs; 4 of 4; the same words in another order.
        f"{words(0, 13)} {words(100, 111)}",
        words(8, 16),
        " ".join(reversed(words(0, 24).split())),
        "",
    ],
)
def test_neighbours_of_a_caption_are_not_found(text):
    assert leaks([record(answer=text or "!")], CAPS)["text"] == 0


def test_a_caption_among_options_is_found():
    prompt = f"Which caption fits? (A) {CAPTION} (B) {words(50, 70)}"
    assert leaks([record(prompt, "(B)")], CAPS)["text"] == 1


def test_a_caption_of_four_words_is_found_as_it_is_and_one_of_three_is_not():
    short = TestSet("Short", texts=("A slow sad waltz.", "A waltz tune."))
    planted = [record(answer=text) for text in ("a slow, sad waltz", "a slow sad march")]
    assert check_leaks([*planted, record(answer="A waltz tune.")], [short]).indices == (0,)


def test_stock_phrases_do_not_count():
    phrase = words(0, 9)
    captions = [f"{phrase} {words(100 * n, 100 * n + 10)}" for n in range(1, 7)]
    planted = [record(answer=f"{phrase} {words(900, 905)}")]
    assert leaks(planted, TestSet("Five", texts=tuple(captions[:5])))["text"] == 1
    assert leaks(planted, TestSet("Six", texts=tuple(captions)))["text"] == 0
    assert leaks([record(answer=captions[0])], TestSet("Six", texts=tuple(captions)))["text"] == 1


def test_near_duplicates_equal_a_brute_force_search():
    rng = random.Random(0)
    phrases = [rng.choices("abcdefgh", k=7) for _ in range(5)]
    texts = [
        [*rng.choice(phrases), *rng.choices("abcdefgh", k=rng.randint(0, 25))] for _ in range(60)
    ]
    others = [[word if rng.random() < 0.9 else "z" for word in text] for text in texts]

    def runs(text):
        return {tuple(text[n : n + 5]) for n in range(len(text) - 4)}

    counts = {}
    for text in {tuple(text) for text in texts}:
        for run in runs(text):
            counts[run] = counts.get(run, 0) + 1
    known = {run for run, count in counts.items() if count > 5}
    find = near_duplicate_finder([" ".join(text) for text in texts])
    found_any = 0
    for other in others:
        expected = set()
        for text in texts:
            mine, reference = runs(other) - known, runs(text) - known
            both = len(mine & reference)
            if (other == text and len(text) >= 4) or (
                both >= 5 and 2 * both >= min(len(mine), len(reference))
            ):
                expected.add(" ".join(text))
        assert set(find(" ".join(other))) == expected
        found_any += bool(expected)
    assert known
    assert 10 < found_any < len(others)


LONG = TestQuestion(
    "Which instrument plays the long and melancholic solo after the second chorus?",
    "Muted trumpet",
    ("Piano", "Muted trumpet", "Oboe", "Crowd noise"),
)
SHORT = TestQuestion("What is the tempo of the song?", "Slow", ("Fast", "Slow", "Sad", "Guitar"))
TWICE = TestQuestion(
    "How would you describe the overall mood of this piece of music?",
    "Melancholic",
    ("Melancholic", "Happy", "Fast", "Piano"),
)
ASKED = TestSet("Asked", questions=(LONG, SHORT, TWICE, TWICE._replace(answer="Happy")))


def choice(question, options, answer="(A) none"):
    listed = " ".join(f"({x}) {text}" for x, text in zip("ABCD", options, strict=True))
    return record(f"Question: {question} Options: {listed}. The correct answer is:", answer)


@pytest.mark.parametrize(
    "planted",
    [
        # With its right answer: said, offered, or as an option of the record.
        record(LONG.text, "A muted trumpet plays it."),
        choice(LONG.text, ("Harp", "Drums", "Muted trumpet", "Bass")),
        record(LONG.text, "B", options=["Harp", "Muted trumpet"]),
        record(LONG.text.replace("Which instrument", "Tell what it is that"), "Muted trumpet"),
        # With all options, in any order, after a worked example.
        choice(SHORT.text, ("Sad", "Guitar", "Fast", "Slow")),
        record(f"{SHORT.text}\n(A) Fast\n(B) Slow\n(C) Sad\n(D) Guitar", "B"),
        choice(
            f"Which one? Options: (A) x (B) y. The correct answer is: B\n Question: {SHORT.text}",
            SHORT.options,
        ),
        choice(TWICE.text, TWICE.options),
    ],
)
def test_questions_of_a_test_set_are_found(planted):
    assert leaks([planted], ASKED)["text"] == 1


@pytest.mark.parametrize(
    "innocent",
    [
        record(LONG.text, "A piano."),
        choice(LONG.text, ("Harp", "Drums", "Oboe", "Bass")),
        record("Which instrument plays?", "Muted trumpet"),
        # Anybody may ask this, and be right.
        record(SHORT.text, "Slow"),
        choice(SHORT.text, ("Slow", "Fast", "Moderate", "Very slow")),
        record(TWICE.text, "Melancholic"),
    ],
)
def test_generic_questions_are_not_found(innocent):
    assert leaks([innocent], ASKED)["text"] == 0


def test_artists_are_found_by_name_and_by_jamendos_number():
    held_out = TestSet("Artists", artists=frozenset({"beatles", "jamendo artist 224"}))
    planted = [
        record(artist="The Beatles"),
        record(artist="artist_000224", dataset="MTG-Jamendo"),
        record(artist="Beatles Revival Band"),
        record(artist="224", dataset="FMA"),
        record(artist="Unknown"),
        record(),
    ]
    report = check_leaks(planted, [held_out])
    assert report.indices == (0, 1)
    assert report.test_sets[0].leaks == {"id": 0, "text": 0, "artist": 2}


def test_report_counts_by_set_and_kind_and_keeps_the_first_twenty():
    other = TestSet("Other", ids=frozenset({"blues.00000"}))
    planted = [record(clip="-0Gj8-vB1q4", answer=CAPTION)] * 25 + [record(file="blues.00000.wav")]
    report = check_leaks(iter(planted), [CAPS, other])
    assert (report.items, report.leaks, report.indices) == (26, 26, tuple(range(26)))
    content = json.loads(json.dumps(report.to_dict()))
    assert content["indices"] == list(range(26))
    caps = content["test_sets"]["Caps"]
    assert caps["leaks"] == {"id": 25, "text": 25, "artist": 0}
    assert [one["item"] for one in caps["examples"]["text"]] == list(range(20))
    assert caps["examples"]["text"][0] == {
        "item": 0,
        "file_name": "a.wav",
        "match": CAPTION,
        "prompt": "What is heard?",
        "answer": CAPTION,
    }
    assert content["test_sets"]["Other"]["examples"]["id"][0]["match"] == "blues.00000"
    assert report.summary().splitlines() == [
        "26 of 26 questions leak from a test set:",
        "",
        "* Caps (1 recordings, 1 captions): 25 by id, 25 by text",
        "* Other (1 recordings): 1 by id",
    ]


def test_without_leaks_the_report_names_what_was_searched():
    report = check_leaks([record()], [CAPS])
    assert report.leaks == 0
    assert report.summary().endswith("* Caps (1 recordings, 1 captions): no leak")
    assert "nothing was checked" in check_leaks([record()], []).summary()


def test_records_are_read_from_lists_in_order(tmp_path):
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    part = [[record(answer="one", clip="c", artist=None)], [record(answer="two")]]
    for path, records in zip(paths, part, strict=True):
        path.write_text(json.dumps(records))
    assert list(read_records(paths)) == part[0] + part[1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": 1}, "list of records"),
        ([record(), record(answer="")], "record 1"),
        ([record(artist=["a"])], "record 0: 'artist' is not a string"),
        ([record(clip=7)], "record 0: 'clip' is not a string"),
    ],
)
def test_other_lists_are_refused(tmp_path, content, expected):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    message = refusal(lambda: list(read_records([path])))
    assert str(path) in message
    assert expected in message


@pytest.fixture(scope="module")
def real(shared_dir):
    data = shared_dir / "data"
    return read_test_sets(
        musiccaps=data / "musiccaps-public.csv",
        muchomusic=data / "muchomusic_questions.jsonl",
        song_describer=data / "song_describer.csv",
    )


@pytest.fixture(scope="module")
def caps_rows(shared_dir):
    with (shared_dir / "data" / "musiccaps-public.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_real_test_sets_have_the_published_sizes(real):
    sizes = {
        one.name: (len(one.ids), len(one.texts), len(one.artists), len(one.questions))
        for one in real
    }
    assert sizes == {
        "MusicCaps balanced": (1000, 1000, 0, 0),
        "MusicCaps/AudioSet eval": (2858, 2858, 0, 0),
        "MuChoMusic": (0, 0, 0, 1187),
        "Song Describer": (706, 1106, 191, 0),
    }


def test_every_balanced_row_of_musiccaps_hits_by_id_and_by_text(real, caps_rows):
    balanced = [row for row in caps_rows if row["is_balanced_subset"] == "True"]
    report = check_leaks(
        [record(answer=row["caption"], file=f"{row['ytid']}.wav") for row in balanced], real
    )
    assert report.leaks == 1000
    for one in report.test_sets[:2]:
        assert one.leaks == {"id": 1000, "text": 1000, "artist": 0}


def test_no_row_of_musiccaps_outside_audiosets_eval_hits(real, caps_rows):
    clean = [row for row in caps_rows if row["is_audioset_eval"] == "False"]
    report = check_leaks(
        [record(answer=row["caption"], file=f"{row['ytid']}.wav") for row in clean], real
    )
    assert (report.items, report.leaks) == (2663, 0), report.summary()


def test_every_question_of_muchomusic_hits_with_its_options(real, shared_dir):
    lines = (shared_dir / "data" / "muchomusic_questions.jsonl").read_text().splitlines()
    asked = [json.loads(line) for line in lines]
    planted = [choice(one["question"], one["choices"], one["answer"]) for one in asked]
    report = check_leaks(planted, real)
    assert report.test_sets[2].leaks["text"] == 1187


def test_every_track_of_song_describer_hits_under_any_name(real, shared_dir):
    with (shared_dir / "data" / "song_describer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("{path}", "track_{track_id:0>7}"):
        planted = [record(file=name.format(**row)) for row in rows]
        assert check_leaks(planted, real).test_sets[3].leaks["id"] == 1106


TEMPLATES = (
    "What genre is this?",
    "Which genre best describes this music?",
    "What is the genre of this song?",
    "What musical genre best describes this piece?",
    "What instruments can be heard in this recording?",
    "Which instrument carries the main melody of the piece?",
    "What is the mood of this music?",
    "What is the overall mood conveyed by the song?",
    "What is the tempo of the song?",
    "What is the overall tempo of this song?",
    "What kind of voice is singing in this piece?",
    "How would you describe the production of this recording?",
)
TAGS = ("Rock", "Pop", "Jazz", "Electric guitar", "Piano", "Drums", "Slow", "Medium tempo", "Sad")


def test_templates_do_not_leak(real):
    asked = [record(prompt, tag) for prompt in TEMPLATES for tag in TAGS]
    asked += [choice(prompt, TAGS[n : n + 4]) for prompt in TEMPLATES for n in range(5)]
    report = check_leaks(asked, real)
    assert (report.items, report.leaks) == (168, 0), report.summary()
