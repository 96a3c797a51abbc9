"""A command that cannot do its work says so, and leaves no folder and no lock."""

import fcntl
import json

import pytest
import soundfile
from helpers import noise, refusal, run_cli

from tinymu_jax.checkpoints.open import NANO_FOLDER, describe_checkpoint, open_checkpoint
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.skipped import collect_answers
from tinymu_jax.utils import files as files_module
from tinymu_jax.utils.files import exists, folder_lock, new_folder
from tinymu_jax.utils.tree import flatten


@pytest.fixture
def files(tmp_path, monkeypatch, own_cache):
    """A list of questions about a recording, and an encoder-like file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", noise(16_000), 16_000)
    record = {"file_name": "a.wav", "input_text": "Why?", "target_text": "So.", "task": "QA"}
    (tmp_path / "list.json").write_text(json.dumps([record | {"dataset": "Made"}]))
    (tmp_path / "t.csv").write_text("file,label,split\na.wav,a,train\nb.wav,b,test\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("data prepare --lists list.json none.json --audio . --tokenizer nano", "none.json"),
        ("data prepare --lists list.json --audio none --tokenizer nano", "none: is not a folder"),
        ("data prepare --lists list.json --audio . --tokenizer none.json", "none.json: no such"),
        (
            "data prepare --lists list.json --audio . --tokenizer nano --features embeddings",
            "embeddings need the checkpoint",
        ),
        ("data prepare --audio . --max-seconds 0", "max_seconds is 0.0: give 0.025"),
        ("data prepare --audio . --max-seconds nan", "max_seconds is nan: give 0.025"),
        ("data build --tokenizer none", "no source"),
        ("data build --tokenizer none --user-table none.csv", "none.csv: cannot be read"),
        ("data build --tokenizer none --user-folder empty", "empty"),
        ("quickstart --checkpoint none --only finetune", "none: no such file"),
        ("quickstart --test-clips 0", "test_clips 0: give 1 or more"),
        ("evaluate synthetic none", "none/facts.csv"),
        ("evaluate probe none.csv --checkpoint nano", "none.csv"),
        ("evaluate probe t.csv --checkpoint nano --audio none", "none: is not a folder; name the"),
        ("evaluate classification t.csv --checkpoint nano --audio none", "none: is not a folder"),
        (
            "evaluate probe t.csv --checkpoint nano --max-bad-fraction nan",
            "max-bad-fraction is nan",
        ),
        ("evaluate probe t.csv --checkpoint nano --max-bad-fraction 2", "max-bad-fraction is 2.0"),
        ("evaluate questions list.json --audio . --max-new-tokens 0", "max_new_tokens is 0"),
        (
            "evaluate questions list.json --audio empty --checkpoint nano",
            "no question could be asked: empty/a.wav: no such file",
        ),
    ],
)
def test_a_refused_command_leaves_nothing(command, named, files, monkeypatch, capsys):
    before = sorted(files.rglob("*"))
    code, out, error = run_cli(
        capsys, monkeypatch, *command.split(), "--output", files / "new" / "folder"
    )
    assert (code, out) == (2, "")
    assert named in error
    assert error.count("\n") == 1
    cache = files / "cache"
    assert sorted(p for p in files.rglob("*") if cache not in (p, *p.parents)) == before


def test_an_output_that_is_a_file_is_said_before_the_model_is_loaded(files, monkeypatch, capsys):
    monkeypatch.setattr("tinymu_jax.inference.load.load", None)
    for command in ("questions list.json --audio .", "synthetic none"):
        arguments = ("evaluate", *command.split(), "--checkpoint", "nano", "--output", "a.wav")
        code, _, error = run_cli(capsys, monkeypatch, *arguments)
        assert (code, error) == (2, "error: a.wav: it is a file; name another folder\n")


def test_no_lock_is_left_in_a_folder_of_other_files(files, monkeypatch, capsys):
    before = sorted(files.rglob("*"))
    arguments = ("--lists", "list.json", "--audio", ".", "--tokenizer", "nano", "--output", ".")
    code, _, error = run_cli(capsys, monkeypatch, "data", "prepare", *arguments)
    assert code == 2
    assert "holds other files" in error
    assert sorted(files.rglob("*")) == before


def test_a_folder_is_removed_only_if_it_is_new_and_unused(tmp_path):
    def fail(path, *names):
        with new_folder(path) as folder, folder_lock(folder):
            for name in names:
                (folder / name).write_text("content")
            raise InputError("no")

    refusal(fail, tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    refusal(fail, tmp_path / "a" / "b", "answers")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "answers", "b"]
    (tmp_path / "there").mkdir()
    refusal(fail, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def make_and_lock(path):
    with new_folder(path) as folder, folder_lock(folder):
        pass


def test_the_folder_of_another_process_is_not_removed(tmp_path, monkeypatch):
    output = tmp_path / "new" / "run"
    with new_folder(output), folder_lock(output):
        # The other process looked for the folder before it was there.
        before = (output, output.parent)
        monkeypatch.setattr(
            files_module, "exists", lambda path: path not in before and exists(path)
        )
        message = refusal(make_and_lock, output)
        assert "another process is writing it" in message
        monkeypatch.undo()
        assert [path.name for path in output.iterdir()] == [".lock"]
        (output / "answers").write_text("content")


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    flock = fcntl.flock

    def remove_then_lock(file, operation):
        (tmp_path / ".lock").unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_then_lock)
    with pytest.raises(InputError, match="another process is writing it"), folder_lock(tmp_path):
        pass


def test_a_described_checkpoint_has_the_shapes_of_its_weights():
    described, opened = describe_checkpoint("nano"), open_checkpoint(NANO_FOLDER)
    assert described[0::2] == opened[0::2]
    shapes = {path: (leaf.shape, leaf.dtype) for path, leaf in flatten(described.params)}
    assert shapes == {path: (leaf.shape, leaf.dtype) for path, leaf in flatten(opened.params)}


def test_no_questions_are_an_error():
    assert "no question could be asked: there is none" in refusal(collect_answers, [], [])
