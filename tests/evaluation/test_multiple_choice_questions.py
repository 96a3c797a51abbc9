"""Questions of multiple choice as they are read, and how their recordings are found."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from helpers import refusal

from tinymu_jax.data.annotations.audio_index import find_audio, index_audio
from tinymu_jax.evaluation.multiple_choice.questions import (
    KINDS,
    NEEDED,
    ChoiceQuestion,
    read_choices,
)

CAPS = "-aB_cD3fG-h"
ROW = {
    "question_id": "7",
    "question": "Which instrument is heard?",
    "correct_answer": "Oboe",
    "distractor_1_answer": "Bassoon",
    "distractor_2_answer": "Slow tempo",
    "distractor_3_answer": "Fast drums",
    "dataset": "sdd",
    "dataset_identifier": "1004034",
    "genre": "Folk, World, & Country",
    "music_knowledge": "['instrumentation', 'melody']",
    "music_reasoning": "[]",
}
LINE = {"audio": "a.wav", "question": "Which?", "choices": ["x", "y", "z"], "answer": "C"}


@pytest.fixture
def audio(tmp_path):
    """A folder with empty files in place of recordings."""
    return touch(tmp_path / "audio", "34/1004034.2min.mp3", f"[{CAPS}]-[30-40].wav")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write_csv(path, *changes, columns=tuple(ROW)):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(ROW | change for change in changes)
    return path


def write_jsonl(path, *changes):
    path.write_text("".join(json.dumps(LINE | change) + "\n" for change in changes))
    return path


# --- reading -----------------------------------------------------------------------------------


def test_csv_of_the_official_form(tmp_path, audio):
    caps = {
        "dataset": "musiccaps",
        "dataset_identifier": f"{CAPS}_30.json",
        "genre": "",
        "music_knowledge": "",
        "music_reasoning": "mood and expression, lyrics",
    }
    first, second, third = read_choices(write_csv(tmp_path / "q.csv", {}, {}, caps), audio)
    assert (first.id, second.id) == ("sdd/1004034#1", "sdd/1004034#2")
    assert third.id == f"musiccaps/{CAPS}_30#1"
    assert first.audio == audio / "34" / "1004034.2min.mp3"
    assert third.audio == audio / f"[{CAPS}]-[30-40].wav"
    assert first.labels == {
        "knowledge": ("instrumentation", "melody"),
        "reasoning": (),
        "genre": ("Folk, World, & Country",),
        "dataset": ("sdd",),
    }
    assert third.labels["reasoning"] == ("mood and expression", "lyrics")
    assert third.labels["knowledge"] == third.labels["genre"] == ()
    kind_of = dict(zip(("Oboe", "Bassoon", "Slow tempo", "Fast drums"), KINDS, strict=True))
    for one in (first, second, third):
        assert one.options[one.right] == "Oboe"
        assert dict(zip(one.options, one.kinds, strict=True)) == kind_of


def test_order_of_options_hangs_on_seed_and_question_alone(tmp_path, audio):
    changes = [{"dataset_identifier": str(number)} for number in range(400)]
    path = write_csv(tmp_path / "q.csv", *changes)
    orders = {one.id: one.options for one in read_choices(path, audio)}
    back = read_choices(write_csv(tmp_path / "back.csv", *reversed(changes)), audio)
    assert {one.id: one.options for one in back} == orders
    other = {one.id: one.options for one in read_choices(path, audio, seed=1)}
    assert sum(orders[name] == other[name] for name in orders) < 40  # one in 24 by chance
    rights = Counter(one.right for one in back)
    assert all(60 < rights[letter] < 140 for letter in range(4))  # five standard deviations


def test_csv_with_fewer_distractors(tmp_path, audio):
    path = write_csv(tmp_path / "q.csv", {"distractor_2_answer": "", "distractor_3_answer": " "})
    (one,) = read_choices(path, audio)
    assert dict(zip(one.options, one.kinds, strict=True)) == {
        "Oboe": "right",
        "Bassoon": "incorrect but related",
    }


def test_jsonl_keeps_its_order(tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", {}, {"answer": "A", "choices": [" x ", "y"]})
    first, second = read_choices(path, "clips")
    assert first == ChoiceQuestion("a.wav#1", Path("clips/a.wav"), "Which?", ("x", "y", "z"), 2)
    assert (second.id, second.options, second.right) == ("a.wav#2", ("x", "y"), 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"distractor_1_answer": "oboe "}, "twice"),
        ({"distractor_3_answer": "Bassoon"}, "'Bassoon' twice"),
        (dict.fromkeys(NEEDED[1:5], ""), "no options"),
        (dict.fromkeys(NEEDED[2:5], ""), "1 option, and"),
        ({"correct_answer": ""}, "empty correct_answer"),
        ({"question": " "}, "asks nothing"),
        ({"dataset_identifier": ""}, "empty dataset_identifier"),
        ({"music_knowledge": "['melody'"}, "\"['melody'\" as music_knowledge"),
        ({"music_reasoning": "[1]"}, "music_reasoning"),
    ],
)
def test_bad_rows_are_named_by_their_line(tmp_path, audio, change, problem):
    path = write_csv(tmp_path / "q.csv", {"question": "Two\nlines?"}, change)
    message = refusal(read_choices, path, audio)
    assert f"{path}: line 4: " in message or f"{path}: line 4 " in message
    assert problem in message


def test_wrong_columns_are_named(tmp_path, audio):
    columns = [name for name in ROW if name not in ("genre", "music_knowledge")]
    path = write_csv(tmp_path / "q.csv", {}, columns=columns)
    assert "no column music_knowledge, genre;" in refusal(read_choices, path, audio)
    (tmp_path / "empty.csv").write_text("")
    assert "no column question" in refusal(read_choices, tmp_path / "empty.csv", audio)


def test_csv_that_is_broken(tmp_path, audio):
    path = write_csv(tmp_path / "q.csv", {})
    whole = path.read_text()
    path.write_text(whole + "8,only two\n")
    assert "line 3 has 2 fields where there are" in refusal(read_choices, path, audio)
    path.write_text(whole.replace("Oboe", '"Oboe'))
    assert "line 2 is malformed" in refusal(read_choices, path, audio)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer": "D"}, "answer is 'D'; give one of A, B, C"),
        ({"answer": ""}, "answer is ''"),
        ({"answer": "AB"}, "answer is 'AB'"),
        ({"answer": 2}, "answer is 2"),
        ({"choices": []}, "no options"),
        ({"choices": list("vwxyz")}, "5 options"),
        ({"choices": ["x", ""]}, "an empty option"),
        ({"choices": ["x", "y", "X"]}, "twice"),
        ({"choices": "xyz"}, "not texts"),
        ({"choices": ["x", 3]}, "not texts"),
        ({"audio": ""}, "names no audio"),
        ({"question": None}, "not texts"),
    ],
)
def test_bad_lines_are_named(tmp_path, change, problem):
    path = write_jsonl(tmp_path / "q.jsonl", {}, change)
    message = refusal(read_choices, path, "clips")
    assert message.startswith(f"{path}: line 2: ")
    assert problem in message


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", {}, {"question": "Wh\ud83dat?"})
    message = refusal(read_choices, path, tmp_path)
    assert message.startswith(f"{path}: line 2: has half a character (a lone surrogate)")


def test_jsonl_that_is_none(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('\n{"audio": \n')
    assert "line 2: is not json" in refusal(read_choices, path, "clips")
    path.write_text('["a.wav"]\n')
    assert "record 0: is not an object with audio" in refusal(read_choices, path, "clips")
    path.write_text("\n")
    assert "has no questions" in refusal(read_choices, path, "clips")
    assert "name a .csv" in refusal(read_choices, tmp_path / "q.txt", "clips")
    assert "cannot be read" in refusal(read_choices, tmp_path / "gone.jsonl", "clips")


# --- recordings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "dataset", "identifier"),
    [
        ("5.wav", "sdd", "5"),
        ("sdd/5.flac", "sdd", "5.json"),
        ("05/5.2min.mp3", "sdd", "5"),
        (f"musiccaps/{CAPS}_30.wav", "musiccaps", f"{CAPS}_30"),
        (f"{CAPS}.ogg", "musiccaps", f"{CAPS}_30.json"),
        (f"x/[{CAPS}]-[30-40].wav", "musiccaps", f"{CAPS}_30"),
    ],
)
def test_recordings_are_found_by_name(tmp_path, file, dataset, identifier):
    index = index_audio(touch(tmp_path, file, "other.wav", "55.wav"))
    assert find_audio(index, dataset, identifier) == tmp_path / file


def test_recording_in_the_data_sets_own_folder_is_preferred(tmp_path):
    index = index_audio(touch(tmp_path, "fma/5.mp3", "sdd/05/5.mp3"))
    assert find_audio(index, "sdd", "5") == tmp_path / "sdd/05/5.mp3"
    assert "either may be 5 of mine" in refusal(find_audio, index, "mine", "5")


def test_recording_that_is_not_there(tmp_path):
    index = index_audio(touch(tmp_path / "audio", "5.wav"))
    assert find_audio(index, "sdd", "6") is None
    assert find_audio(index, "sdd", "5_30") is None
    path = write_csv(tmp_path / "q.csv", {"dataset_identifier": "6"})
    (one,) = read_choices(path, tmp_path / "audio")
    assert one.audio == tmp_path / "audio/sdd/6.wav"
