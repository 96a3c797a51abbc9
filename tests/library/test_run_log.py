"""The log of `tinymu caption`: kills between a file and its log, moved folders, other options."""

import shutil

import numpy as np
import pytest
import soundfile
from helpers import noise, refusal, run_cli

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.library import caption_run
from tinymu_jax.library.formats import outputs
from tinymu_jax.library.run_log import RunLog

QUICK = ("--checkpoint", "nano", "--max-new-tokens", "4", "--no-score-fields", "--no-tempo-and-key")


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "library"
    folder.mkdir()
    for name in ("a.wav", "b.flac"):
        soundfile.write(folder / name, noise(3 * SAMPLE_RATE), SAMPLE_RATE)
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    def run(*arguments):
        code, printed, errors = run_cli(capsys, monkeypatch, "caption", *arguments, *QUICK)
        return code, printed + errors

    return run


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_after(monkeypatch, module, name):
    """Makes a function write its file, and then end the run."""
    function = getattr(module, name)

    def killed(*arguments):
        function(*arguments)
        raise Killed

    monkeypatch.setattr(module, name, killed)


@pytest.mark.parametrize("format", ["jsonl", "csv", "webdataset"])
def test_a_kill_after_the_table_is_written(library, run, monkeypatch, format):
    with monkeypatch.context() as patch:
        kill_after(patch, outputs, "write_table")
        with pytest.raises(Killed):
            run(library, "--format", format)
    code, text = run(library, "--format", format)
    assert (code, "2 recordings described (0 of them now)" in text) == (0, True)


def test_a_kill_after_a_file_beside_a_recording_is_written(library, run, monkeypatch):
    with monkeypatch.context() as patch:
        kill_after(patch, caption_run, "write_text")
        with pytest.raises(Killed):
            run(library, "--format", "txt")
    assert (library / "a.txt").exists() or (library / "b.txt").exists()
    code, text = run(library, "--format", "txt")
    assert (code, "2 recordings described" in text) == (0, True)


def test_a_library_can_be_moved_and_named_otherwise(library, run, tmp_path, monkeypatch):
    for format in ("txt", "jsonl"):
        assert run(library, "--format", format)[0] == 0
    moved = shutil.move(library, tmp_path / "moved")
    monkeypatch.chdir(moved)
    soundfile.write("c.wav", noise(2 * SAMPLE_RATE), SAMPLE_RATE)
    for format in ("txt", "jsonl"):
        code, text = run(".", "--format", format)
        assert (code, "3 recordings described" in text) == (0, True)


def test_going_back_to_earlier_options_describes_nothing_again(library, run):
    assert "(2 of them now)" in run(library)[1]
    assert "(2 of them now)" in run(library, "--prompt", "What plays?")[1]
    assert "(0 of them now)" in run(library)[1]


def test_a_recording_that_has_become_silent_loses_its_caption(library, run):
    run(library, "--format", "txt")
    (library / "b.txt").write_text("by hand")
    for name in ("a.wav", "b.flac"):
        soundfile.write(library / name, np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    code, text = run(library, "--format", "txt")
    assert not (library / "a.txt").exists()
    assert (library / "b.txt").read_text() == "by hand"
    assert (code, "b.txt: is there already" in text) == (2, True)


@pytest.mark.parametrize("option", ["--output", "--log"])
def test_a_recording_is_not_written_over(library, run, option):
    before = (library / "a.wav").read_bytes()
    code, text = run(library, option, library / "a.wav", "--overwrite")
    assert (code, "is one of the recordings" in text) == (2, True)
    assert (library / "a.wav").read_bytes() == before


@pytest.mark.parametrize("content", ["my only notes", '{"a": 1}', "line\nrest"])
def test_a_log_that_is_something_else_is_left_alone(library, run, tmp_path, content):
    notes = tmp_path / "notes.txt"
    notes.write_text(content)
    code, text = run(library, "--log", notes)
    assert (code, "notes.txt" in text) == (2, True)
    assert notes.read_text() == content


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    log = RunLog(tmp_path / "log")
    with log.writing():
        log.announce(tmp_path / "a", "1")
        before = (tmp_path / "log").read_bytes()

        def full(self, *arguments, **options):
            with open(self, "a") as file:
                file.write('{"key": "half')
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "open", full)
            assert "No space left" in refusal(log.announce, tmp_path / "b", "2")
        assert (tmp_path / "log").read_bytes() == before


def test_bad_options(library, run):
    assert "shard-mb is nan" in run(library, "--shard-mb", "nan")[1]
    assert "hop is inf" in run(library, "--hop", "inf")[1]
    assert "the prompt has" in run(library, "--prompt", "long " * 300)[1]
