"""`tinymu caption` over libraries: interrupted, changed, in other orders, partly broken."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import mutagen
import mutagen.id3
import numpy as np
import pytest
import soundfile
from helpers import ROOT, noise, run_cli, write_m4a

import tinymu_jax
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.synthetic.compose import compose
from tinymu_jax.data.synthetic.facts import draw_facts
from tinymu_jax.library.caption_run import SidecarWriter, describe_library, list_recordings
from tinymu_jax.library.description import DescribeOptions, Description
from tinymu_jax.library.fields import Field
from tinymu_jax.library.formats.options import FormatOptions
from tinymu_jax.library.run_log import RunLog

FIELDS = """
instrument:
  prompt: What instrument is playing?
  threshold: 0
  options: [flute, trumpet, bell, organ]
drums: {prompt: "Drums or drumless?", options: [drums, drumless], normalize: sum}
"""
SUFFIXES = ("wav", "flac", "ogg", "mp3", "m4a")
ARGUMENTS = ("--checkpoint", "nano", "--max-new-tokens", "12", "--batch-size", "3")


def make_library(folder, count, broken):
    """Writes recordings of five formats, `broken` of which are cut to their first 100 bytes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        seconds = 2 + 4 * (number % 3)
        parts = [compose(draw_facts(rng, True), 4, rng) for _ in range(-(-seconds // 4))]
        samples = np.concatenate(parts)[: seconds * SAMPLE_RATE].astype(np.float32) / 32768
        path = folder / f"album {number % 4}" / f"{number:03}.{SUFFIXES[number % 5]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".m4a":
            write_m4a(path, samples, SAMPLE_RATE)
        else:
            soundfile.write(path, samples, SAMPLE_RATE)
        if number % (count // broken) == 1:
            path.write_bytes(path.read_bytes()[:100])
    (folder / "fields.yaml").write_text(FIELDS)
    return folder


def caption(folder, *arguments):
    """Returns a process that describes a folder."""
    command = [sys.executable, "-m", "tinymu_jax", "caption", str(folder), *ARGUMENTS]
    command += ["--fields", str(folder / "fields.yaml"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **options)


def outputs(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".jsonl", ".txt") and not path.name.startswith(".")
    }


def kill_often(folder, count, kills, *arguments):
    """Describes a folder in runs that are killed; returns how many recordings each had logged."""
    chance, log, logged = random.Random(0), folder / ".tinymu-captions.jsonl", []
    for number in range(kills):
        process, goal = caption(folder, *arguments), (number + 1) * count // (kills + 2)
        while process.poll() is None:
            lines = log.read_bytes().count(b"\n") if log.exists() else 0
            if lines >= goal:
                break
            time.sleep(0.05)
        time.sleep(chance.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        logged.append(log.read_bytes().count(b"\n"))
    return logged


# The numbers of the issue: 300 tracks, 10 broken, 5 kills.
@pytest.mark.parametrize(
    ("count", "broken", "kills"), [(10, 1, 1), pytest.param(300, 10, 5, marks=pytest.mark.slow)]
)
def test_a_run_that_is_killed_gives_the_same_bytes(tmp_path, count, broken, kills):
    library = make_library(tmp_path / "library", count, broken)
    other = shutil.copytree(library, tmp_path / "other")
    whole = caption(library)
    _, errors = whole.communicate()
    assert whole.returncode == 2, errors
    logged = kill_often(other, count, kills)
    # A recording that was logged is not described again.
    assert all(number < count - broken for number in logged)
    last = caption(other)
    printed, _ = last.communicate()
    assert f"({count - broken - logged[-1]} of them now)" in printed
    assert outputs(other) == outputs(library)
    rows = [json.loads(line) for line in (library / "captions.jsonl").open(encoding="utf-8")]
    assert len(rows) == count - broken
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    skipped = json.loads((library / ".tinymu-captions.skipped.json").read_text())
    assert len(skipped) == broken
    assert errors.count("error: ") == broken


@pytest.fixture(scope="module")
def assistant():
    return tinymu_jax.load("nano")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("library"), 7, 1)


OPTIONS = DescribeOptions(
    (
        Field(
            "instrument", "What instrument is playing?", ("flute", "bell"), ("flute", "bell"), 0.0
        ),
    ),
    max_new_tokens=8,
)


def describe(assistant, recordings, log, batch_size=8, format="jsonl", overwrite=False, **changes):
    writer = SidecarWriter(format, FormatOptions(), overwrite)
    options = OPTIONS._replace(**changes)
    run_log = RunLog(log)
    with run_log.writing():
        return describe_library(assistant, recordings, options, run_log, writer, batch_size)


def test_descriptions_depend_on_neither_order_nor_batch(assistant, library, tmp_path):
    recordings = list_recordings([str(library)])
    first = describe(assistant, recordings, tmp_path / "1", batch_size=8)
    second = describe(assistant, recordings[::-1], tmp_path / "2", batch_size=1)
    assert first.descriptions == second.descriptions
    assert len(first.descriptions) == 6
    assert first.num_new == 6
    (error,) = first.errors.values()
    assert "001.flac" in str(error)


def test_only_what_is_new_or_changed_is_described_again(assistant, library, tmp_path):
    folder = shutil.copytree(library, tmp_path / "library")
    log = tmp_path / "log"
    first = describe(assistant, list_recordings([str(folder)]), log)
    assert describe(assistant, list_recordings([str(folder)]), log).num_new == 0
    name = "album 0/000.wav"
    os.utime(folder / name)  # another time, the same content
    assert describe(assistant, list_recordings([str(folder)]), log).num_new == 0
    tagged = mutagen.File(folder / "album 3" / "003.mp3")
    tagged.add_tags()
    tagged.tags.add(mutagen.id3.TCON(text="Folk"))
    tagged.save()
    assert describe(assistant, list_recordings([str(folder)]), log).num_new == 0
    soundfile.write(folder / name, np.zeros(9 * SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(folder / "new.wav", noise(5 * SAMPLE_RATE), SAMPLE_RATE)
    third = describe(assistant, list_recordings([str(folder)]), log)
    assert third.num_new == 2
    silence = third.descriptions[name]
    assert (silence.silent, silence.caption, silence.fields) == (True, None, {})
    assert (silence.bpm, silence.key, silence.seconds) == (None, None, 9.0)
    unchanged = first.descriptions.keys() - {name}
    assert all(third.descriptions[one] == first.descriptions[one] for one in unchanged)
    assert (
        describe(assistant, list_recordings([str(folder)]), log, prompt="What plays?").num_new > 5
    )


def test_a_description_is_that_of_the_assistant(assistant, library, tmp_path):
    (recording,) = list_recordings([str(library / "album 2" / "002.ogg")])
    result = describe(assistant, [recording], tmp_path / "log")
    (description,) = result.descriptions.values()
    whole = assistant.ask(recording.path, OPTIONS.prompt, 8, whole=True)
    assert description.caption == whole.text
    assert [w["caption"] for w in description.timeline] == [w.answer for w in whole.timeline]
    field = OPTIONS.fields[0]
    scores = assistant.score(recording.path, field.prompt, field.options, "pmi", whole=True)
    value = description.fields["instrument"]
    assert value.value == max(scores, key=scores.get)
    assert value.probability == pytest.approx(max(scores.values()), abs=1e-4)
    content = json.loads(json.dumps(description.to_json()))
    assert Description.from_json(content) == description
    unsure = field.__class__(field.name, field.prompt, field.values, field.options, threshold=1.0)
    result = describe(assistant, [recording], tmp_path / "log", fields=(unsure,))
    (description,) = result.descriptions.values()
    assert description.fields["instrument"].value is None


def test_files_of_others_are_not_replaced(assistant, library, tmp_path):
    folder = shutil.copytree(library, tmp_path / "library")
    text, log = folder / "album 0" / "000.txt", tmp_path / "log"
    text.write_text("by hand")
    recordings = list_recordings([str(folder)])
    first = describe(assistant, recordings, log, format="txt")
    assert "000.txt: is there already" in str(first.errors["album 0/000.wav"])
    assert text.read_text() == "by hand"
    assert (folder / "album 2" / "002.txt").read_text() == first.descriptions[
        "album 2/002.ogg"
    ].caption
    # A file that this command wrote is replaced when its recording has changed.
    shutil.copy(folder / "album 0" / "000.wav", folder / "album 2" / "x.wav")
    describe(assistant, list_recordings([str(folder)]), log, format="txt")
    soundfile.write(folder / "album 2" / "x.wav", noise(4 * SAMPLE_RATE), SAMPLE_RATE)
    again = describe(assistant, list_recordings([str(folder)]), log, format="txt")
    assert "album 2/x.wav" not in again.errors
    (folder / "album 2" / "002.txt").write_text("edited")
    edited = describe(assistant, recordings, log, format="txt", prompt="What plays?")
    assert "002.txt: is there already" in str(edited.errors["album 2/002.ogg"])
    replaced = describe(assistant, recordings, log, format="txt", overwrite=True)
    assert list(replaced.errors) == ["album 1/001.flac"]
    assert text.read_text() == replaced.descriptions["album 0/000.wav"].caption


def test_a_recording_that_changes_while_it_is_read(assistant, library, tmp_path, monkeypatch):
    from tinymu_jax.library import description

    folder = shutil.copytree(library, tmp_path / "library")
    encode = description.encode_windows

    def encode_and_touch(engine, path, *rest):
        with open(path, "ab") as file:
            file.write(b"0")
        return encode(engine, path, *rest)

    monkeypatch.setattr(description, "encode_windows", encode_and_touch)
    (recording,) = list_recordings([str(folder / "album 3" / "003.mp3")])
    result = describe(assistant, [recording], tmp_path / "log")
    assert "changed while it was read" in str(result.errors[recording.name])


def test_the_command(library, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(library, tmp_path / "library")

    def run(*arguments):
        code, printed, errors = run_cli(capsys, monkeypatch, "caption", *arguments)
        return code, printed + errors

    basic = (str(folder), *ARGUMENTS, "--fields", str(folder / "fields.yaml"))
    assert "no recording" in run()[1]
    assert "is written beside each" in run(*basic, "--format", "txt", "--output", "x")[1]
    assert "nothing to find out" in run(
        *basic, "--no-caption", "--no-score-fields", "--no-tempo-and-key"
    )[1]  # fmt: skip
    (folder / "captions.csv").write_text("by hand")
    code, text = run(*basic, "--format", "csv")
    assert (code, "captions.csv: is there already" in text) == (2, True)
    code, text = run(*basic)
    assert (code, "6 recordings described (6 of them now); 1 skipped" in text) == (2, True)
    code, text = run(*basic, "--format", "csv")
    assert (code, "captions.csv: is there already" in text) == (2, True)
    assert (folder / "captions.csv").read_text() == "by hand"
    (folder / "album 1" / "001.flac").unlink()
    code, text = run(*basic)
    assert (code, "6 recordings described (0 of them now)" in text) == (0, True)
    rows = (folder / "captions.jsonl").read_text().splitlines()
    assert [json.loads(row)["file"] for row in rows][:2] == ["album 0/000.wav", "album 0/004.m4a"]


def test_a_recording_without_a_place_is_skipped(library, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(library / "album 0", tmp_path / "library")
    shutil.copy(folder / "000.wav", folder / "000.aiff.wav")  # not the same stem
    shutil.copy(folder / "004.m4a", folder / "000.m4a")
    basic = (str(folder), *ARGUMENTS, "--no-score-fields", "--no-tempo-and-key")
    code, printed, errors = run_cli(capsys, monkeypatch, "caption", *basic, "--format", "txt")
    assert (code, "3 recordings described (3 of them now); 1 skipped" in printed) == (2, True)
    assert "000.wav: would be described in 000.txt, as 000.m4a is; rename one of them" in errors
    listing = json.loads((folder / ".tinymu-captions.skipped.json").read_text())
    assert list(listing) == ["000.wav"]
    assert (folder / "000.txt").is_file()


def test_two_runs_on_one_log(assistant, library, tmp_path):
    from tinymu_jax.utils.jsonl import JsonlLog

    log = JsonlLog(tmp_path / "log", dict, "", "")
    with log.writing(), pytest.raises(ValueError, match="another process is writing it"):
        describe(assistant, list_recordings([str(library)]), tmp_path / "log")
