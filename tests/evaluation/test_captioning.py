"""Captions: where they come from, how they are asked for and scored."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
from evaluation_cases import cells, saying
from helpers import noise, refusal

from tinymu_jax.evaluation import captioning
from tinymu_jax.evaluation.captioning import (
    CaptionConfig,
    CaptionedClip,
    CaptionSet,
    caption_baselines,
    central_captions,
    evaluate_captions,
    read_list_captions,
    read_musiccaps_captions,
)
from tinymu_jax.evaluation.report.build import write_report
from tinymu_jax.evaluation.responses import EvalModel


def clips(*captions):
    return [CaptionedClip(Path(f"{n}.wav"), tuple(part)) for n, part in enumerate(captions)]


FOUR = clips(
    ["a slow piano tune"], ["loud drums", "a slow tune"], ["a slow piano piece"], ["whales"]
)


def test_captions_are_asked_for_once_and_scored_against_all_references():
    put = saying({"0.wav": "a slow piano tune", "1.wav": "a slow tune", "": "slow"}, "silence")
    result = evaluate_captions(
        EvalModel("model", put), CaptionSet("Four", FOUR), CaptionConfig("Say it.")
    )
    assert [(one.audio, one.prompt) for one in put.asked] == [
        *((clip.audio, "Say it.") for clip in FOUR),
        (None, "Say it."),
    ]
    table = result.tables[0]
    assert list(result.headline) == ["BLEU-4", "ROUGE-L", "METEOR", "BERTScore"]
    assert cells(table, "this model")["ROUGE-L"] == 0.5
    assert cells(table, "this model")["words"] == (4 + 3 + 1 + 1) / 4
    # "slow": one word of 4, of 3 and of 4; F = 2 / 5, 2 / 4, 2 / 5.
    assert cells(table, "this model without audio")["ROUGE-L"] == round(1.3 / 4, 4)
    assert result.published == {}
    assert result.settings["prompt"] == "Say it."
    assert (result.kind, result.title, result.missing, result.notices) == (
        "captions",
        "Four",
        0,
        [],
    )


def test_blind_captions_are_the_next_one_and_the_most_central_one():
    # Of 0, 1, 2: "a slow piano" is shared by 0 and 2; "loud drums" has nothing of them.
    assert set(central_captions(FOUR)) == {0, 2}
    result = caption_baselines(FOUR)
    assert result["the next recording's caption"] == [
        "loud drums",
        "a slow piano piece",
        "whales",
        "a slow piano tune",
    ]
    first, second = (FOUR[number].references[0] for number in central_captions(FOUR))
    part = central_captions(FOUR)[0]
    expected = [second if number == part else first for number in range(4)]
    assert result["the most central caption"] == expected
    assert caption_baselines(FOUR[:1]) == {}


def test_central_captions_are_found_in_a_sample(monkeypatch):
    monkeypatch.setattr(captioning, "CENTRAL_SAMPLE", 3)
    drawn = {central_captions(FOUR, seed) for seed in range(20)}
    assert len(drawn) > 1
    assert central_captions(FOUR, 1) == central_captions(FOUR, 1)


def test_missing_cut_and_unanswered_recordings_are_told():
    put = saying({"0.wav": None, "1.wav": " ", "2.wav": "a slow piano piece"}, "x", cut={"2.wav"})
    result = evaluate_captions(EvalModel("model", put), CaptionSet("Four", FOUR))
    assert result.missing == 1
    assert result.notices == [
        "1 of 4 recordings skipped: 1 whose recording is missing or broken; they are listed below",
        "1 of 3 captions are empty",
        "Of 1 of 3 recordings only the beginning was encoded",
    ]
    assert list(result.tables[-1].rows) == ["0.wav: no such file"]
    assert cells(result.tables[0], "this model")["ROUGE-L"] == round(1 / 3, 4)
    assert [one.audio for one in result.worst] == ["1.wav", "3.wav", "2.wav"]
    assert result.worst[0].expected == "loud drums / a slow tune"
    assert result.worst[2].score == 1
    everything = saying({}, None)
    everything_but_silence = saying({"": "x"}, None)
    message = "no question could be asked: 0.wav: no such file"
    assert message in refusal(
        evaluate_captions, EvalModel("m", everything_but_silence), CaptionSet("Four", FOUR)
    )
    assert "no such file" in refusal(
        evaluate_captions, EvalModel("m", everything), CaptionSet("Four", FOUR)
    )


def test_twenty_worst_captions_go_to_the_report(tmp_path):
    soundfile.write(tmp_path / "0.wav", noise(1600), 16_000)
    many = [CaptionedClip(tmp_path / "0.wav", (f"tune {number}",)) for number in range(30)]
    result = evaluate_captions(
        EvalModel("model", saying({}, "tune")), CaptionSet("M", many, music_caps=True)
    )
    assert len(result.worst) == 20
    assert {name: one.value for name, one in result.published.items()} == {
        "METEOR": 0.169,
        "BERTScore": 0.873,
    }
    assert write_report([result], tmp_path / "report").is_file()


# --- where captions come from -------------------------------------------------------------------


def write_caps(folder):
    """Writes MusicCaps' csv with a row of each kind, and a recording of one."""
    columns = ["ytid", "start_s", "end_s", "aspect_list", "caption"]
    columns += ["is_balanced_subset", "is_audioset_eval"]
    rows = [
        ["-0000000000", 30, 40, "['a']", "One.", True, True],
        ["11111111111", 0, 10, "[]", "Two.", False, True],
        ["22222222222", 0, 10, "[]", "Three.", False, False],
    ]
    with (folder / "caps.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    (folder / "audio").mkdir()
    soundfile.write(folder / "audio" / "[-0000000000]-[30-40].wav", noise(1600), 16_000)
    return folder / "caps.csv", folder / "audio"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [("eval", ["One.", "Two."]), ("balanced", ["One."]), ("all", ["One.", "Two.", "Three."])],
)
def test_rows_of_musiccaps(rows, expected, tmp_path):
    result = read_musiccaps_captions(*write_caps(tmp_path), rows)
    assert [clip.references for clip in result.clips] == [(text,) for text in expected]
    assert result.clips[0].audio.name == "[-0000000000]-[30-40].wav"
    assert result.music_caps


def test_musiccaps_without_such_rows_or_recordings_is_refused(tmp_path):
    path, audio = write_caps(tmp_path)
    assert "use one of eval, balanced, all" in refusal(
        read_musiccaps_captions, path, audio, "train"
    )
    path.write_text("\n".join(path.read_text().replace("True", "False").splitlines()))
    assert "no row of AudioSet eval" in refusal(read_musiccaps_captions, path, audio)
    (tmp_path / "empty").mkdir()
    assert "has no recordings" in refusal(read_musiccaps_captions, path, tmp_path / "empty")


def test_real_musiccaps_has_as_many_rows_as_published(shared_dir, tmp_path):
    soundfile.write(tmp_path / "x.wav", noise(1600), 16_000)
    path = shared_dir / "data" / "musiccaps-public.csv"
    counts = [
        len(read_musiccaps_captions(path, tmp_path, rows).clips) for rows in captioning.SPLITS
    ]
    assert counts == [2858, 1000, 5521]


def record(name, answer, task="Captioning"):
    return {
        "file_name": name,
        "input_text": "Caption it",
        "target_text": answer,
        "dataset": "Made",
        "task": task,
    }


def write_list(folder, *records):
    (folder / "list.json").write_text(json.dumps(records))
    return folder / "list.json"


def test_captions_of_a_recording_stand_together(tmp_path):
    path = write_list(
        tmp_path,
        record("a.wav", "One."),
        record("b.wav", "Two."),
        record("a.wav", "Three."),
        record("a.wav", "One."),
        record("a.wav", "Yes.", "Binary"),
    )
    result = read_list_captions(path, tmp_path)
    assert result.clips == [
        CaptionedClip(tmp_path / "a.wav", ("One.", "Three.")),
        CaptionedClip(tmp_path / "b.wav", ("Two.",)),
    ]
    assert (result.name, result.music_caps) == ("list", False)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record("a.wav", " ")], "record 0: has a blank caption"),
        ([record("a.wav", "")], "record 0: has an empty or unreadable 'target_text'"),
        ([record("a.wav", "Yes.", "Binary")], "has no records of task 'Captioning'"),
        ([{"file_name": "a.wav"}], "record 0: has no 'input_text'"),
        ([], "holds no list of records"),
    ],
)
def test_lists_without_captions_are_refused(records, message, tmp_path):
    assert message in refusal(read_list_captions, write_list(tmp_path, *records), tmp_path)
    assert "is not a folder" in refusal(read_list_captions, tmp_path / "list.json", tmp_path / "no")
