"""Question lists are joined per recording, and errors name the record."""

import json
import os

import numpy as np
import pytest
import soundfile
from helpers import noise, refusal

from tinymu_jax.data.musicskills import QuestionAnswer, list_recordings, read_lists
from tinymu_jax.data.records import Record, decode_record, encode_record


def record(name, prompt="What is it?", answer="A trumpet.", dataset="MC", task="QA"):
    return {
        "file_name": name,
        "input_text": prompt,
        "target_text": answer,
        "dataset": dataset,
        "task": task,
    }


@pytest.fixture
def write(tmp_path):
    """Writes a list and makes its folder; returns both."""

    def write(name, records):
        path, folder = tmp_path / f"{name}.json", tmp_path / name
        path.write_text(json.dumps(records), "utf-8")
        folder.mkdir(exist_ok=True)
        return path, folder

    return write


def test_questions_of_a_recording_are_joined_in_the_order_of_the_lists(write, tmp_path):
    first, folder = write("a", [record("x.wav"), record("y.wav"), record("x.wav", "Which key?")])
    second, _ = write("b", [record("y.wav", "Is it fast?", "Yes.", task="Binary")])
    result = read_lists([first, second], [folder])
    assert [clip.path for clip in result.clips] == [folder / "x.wav", folder / "y.wav"]
    assert result.clips[0].questions == (
        QuestionAnswer("What is it?", "A trumpet.", "QA"),
        QuestionAnswer("Which key?", "A trumpet.", "QA"),
    )
    assert result.clips[1].questions[1] == QuestionAnswer("Is it fast?", "Yes.", "Binary")
    assert result.repeated == 0


def test_lists_of_one_data_set_may_have_several_folders(write):
    """The published loader would look for both in the folder of the last list."""
    first, one = write("a", [record("x.wav")])
    second, two = write("b", [record("x.wav")])
    clips = read_lists([first, second], [one, two]).clips
    assert [clip.path for clip in clips] == [one / "x.wav", two / "x.wav"]
    assert [clip.dataset for clip in clips] == ["MC", "MC"]


def test_repeated_questions_are_counted(write):
    path, folder = write("a", [record("x.wav"), record("x.wav"), record("x.wav", answer="Horn.")])
    result = read_lists([path], [folder])
    assert (len(result.clips[0].questions), result.repeated) == (2, 1)


def test_the_example_list_is_read(shared_dir):
    lists = [shared_dir / "data" / "musicskills_example.json"]
    clips = read_lists(lists, [shared_dir / "audio"]).clips
    assert len(clips) == 5
    assert sum(len(clip.questions) for clip in clips) == 6
    assert all(clip.path.exists() for clip in clips)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "is not json"),
        ("{}", "is not a list of records"),
        ("[]", "holds no list of records"),
        ('["a"]', "record 0: is not an object"),
        (json.dumps([record("x"), {"file_name": "y"}]), "record 1: has no 'input_text'"),
        (
            json.dumps([record("x", answer="")]),
            "record 0: has an empty or unreadable 'target_text'",
        ),
        (json.dumps([record("x", prompt=3)]), "record 0: has an empty or unreadable 'input_text'"),
        (json.dumps([record("")]), "record 0: has an empty or unreadable 'file_name'"),
    ],
)
def test_an_invalid_list_is_named(tmp_path, content, named):
    path = tmp_path / "list.json"
    path.write_text(content)
    message = refusal(read_lists, [path], [tmp_path])
    assert message.startswith(f"{path}: ")
    assert named in message


def test_texts_that_are_not_utf8_are_named_by_their_record(write):
    for change in (record("x.wav", answer="A \ud83d bird."), record("\ud83d.wav")):
        path, folder = write("a", [record("x.wav"), change])
        message = refusal(read_lists, [path], [folder])
        assert message.startswith(f"{path}: record 1: has half a character (a lone surrogate)")
        assert r"\ud83d" in message
        message.encode()


def test_names_that_are_not_utf8_are_read(write):
    """A name on disk may be any bytes: Python and JSON escape those that are not UTF-8."""
    path, folder = write("a", [record("caf\udce9.wav") | {"clip": "caf\udce9.wav"}])
    soundfile.write(os.fsencode(folder / "caf\udce9.wav"), noise(8_000), 16_000, format="WAV")
    (clip,) = read_lists([path], [folder]).clips
    assert os.fsencode(clip.path).endswith(b"caf\xe9.wav")
    assert list_recordings([folder]).clips[0].path == clip.path
    stored = Record(str(clip.path), clip.dataset, np.zeros(3, np.int16), ())
    assert decode_record(encode_record(stored)).clip == str(clip.path)


def test_a_missing_list_or_folder_is_named(tmp_path, write):
    path, folder = write("a", [record("x.wav")])
    missing = tmp_path / "missing"
    assert refusal(read_lists, [missing], [folder]).startswith(f"{missing}: cannot be read")
    assert refusal(read_lists, [path], [missing]).startswith(f"{missing}: is not a folder")
    assert "name one or more json files" in refusal(read_lists, [], [folder])


def test_numbers_of_lists_and_folders_must_match(write):
    path, folder = write("a", [record("x.wav")])
    assert "3 lists and 2 audio folders" in refusal(read_lists, [path] * 3, [folder] * 2)
