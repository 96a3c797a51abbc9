"""Tables, lists and texts may come from pipes; a pipe to which nobody writes ends no program."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import refusal

from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.data.annotations.labelled import read_label_rows
from tinymu_jax.data.config import PrepareConfig
from tinymu_jax.data.musicskills import read_list
from tinymu_jax.data.prepare import prepare
from tinymu_jax.evaluation.multiple_choice.questions import read_choices
from tinymu_jax.inference.class_names import read_labels
from tinymu_jax.training.run_record import check_tables
from tinymu_jax.utils import fingerprint, pipes
from tinymu_jax.utils.files import read_json_object


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    monkeypatch.setattr(pipes, "WRITER_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe.json")
    return tmp_path / "pipe.json"


READERS = {
    "table": lambda path: read_label_rows(path, None),
    "list": lambda path: list(read_list(path)),
    "choices": lambda path: read_choices(path, path.parent),
    "names of classes": read_labels,
    "json": lambda path: read_json_object(path, "name another"),
    "tokenizer": read_tokenizer,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_to_which_nobody_writes_is_told(pipe, name):
    message = refusal(READERS[name], pipe)
    assert message.startswith(f"{pipe}: no program writes to this pipe; start one, or name a file")


def test_weights_do_not_come_from_pipes(pipe):
    for reader in (open_checkpoint, read_torch_file):
        assert refusal(reader, pipe) == f"{pipe}: is a pipe; write it to a file, and name that"


@pytest.fixture
def write(monkeypatch):
    """Write a text to a pipe in another thread."""
    monkeypatch.setattr(pipes, "WRITER_SECONDS", 30.0)

    def start(path, content):
        arguments = {"args": (content, "utf-8"), "daemon": True}
        threading.Thread(target=Path(path).write_text, **arguments).start()

    return start


def test_a_table_is_read_from_a_pipe(pipe, write):
    write(pipe, "\ufefffile;label\n" + "1.ogg;a\n" * 20_000)
    rows = read_label_rows(pipe, None)[1]
    assert rows == [("1.ogg", ("a",), "")] * 20_000


@pytest.mark.parametrize("content", ["0,a\n1,b\n", "index,name\n1,b\n0,a\n"])
def test_names_of_classes_are_read_from_a_pipe_once(pipe, write, content):
    path = pipe.rename(pipe.with_suffix(".csv"))
    write(path, content)
    assert read_labels(path) == ["a", "b"]


def test_what_a_run_depends_on_does_not_come_from_pipes(pipe, tmp_path):
    expected = f"{pipe}: is a pipe, whose content cannot be compared when the work is resumed"
    assert refusal(fingerprint.of_file, pipe).startswith(expected)
    config = SimpleNamespace(data=SimpleNamespace(labels=str(pipe), classes=None))
    assert refusal(check_tables, config).startswith(expected)
    message = refusal(prepare, [pipe], [tmp_path], tmp_path / "out", "", PrepareConfig())
    assert message.startswith(expected)
    assert not (tmp_path / "out").exists()
