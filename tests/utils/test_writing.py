"""Writing files: temporary names, long names, and names that are not UTF-8."""

import json
import os

import pytest
from helpers import refusal

from tinymu_jax.qa_builder.output import list_name
from tinymu_jax.utils.files import (
    check_library_path,
    is_partial,
    printable,
    write_atomic,
    write_text,
)

LONGEST = 255
"""Bytes of the longest name that most file systems allow."""


@pytest.mark.parametrize("name", ["x" * LONGEST, "é" * 127, "x.npy", "caf\udce9"])
def test_any_name_that_the_disk_takes_can_be_written(name, tmp_path):
    temporary = []

    def write(partial):
        temporary.append(partial)
        partial.write_text("content")

    write_atomic(tmp_path / name, write)
    assert (tmp_path / name).read_text() == "content"
    assert os.listdir(tmp_path) == [name]
    # The temporary name is as long for every name, and known as what is left of this file.
    assert temporary[0].parent == tmp_path
    assert len(os.fsencode(temporary[0].name)) < 40
    assert is_partial(temporary[0], name)
    assert not is_partial(temporary[0], "y")


def test_a_name_that_is_too_long_is_to_be_shortened(tmp_path):
    message = refusal(write_text, tmp_path / ("x" * (LONGEST + 1)), "")
    assert message.endswith("cannot be written (File name too long); shorten its name")
    assert os.listdir(tmp_path) == []


def test_a_list_of_questions_has_a_name_that_can_be_written():
    name = list_name("é" * LONGEST)
    assert name == "é" * 100 + ".json"
    assert list_name("MTG-Jamendo") == "MTG-Jamendo.json"


def test_bytes_that_are_no_utf8_are_written_as_escapes(tmp_path):
    text = json.dumps({"file": "caf\udce9.ogg", "é": "\ud83d bird"}, ensure_ascii=False)
    write_text(tmp_path / "x.json", text)
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == json.loads(text)
    assert printable("caf\udce9, café") == r"caf\udce9, café"


def test_folders_that_libraries_cannot_open_are_refused():
    message = refusal(check_library_path, "out/caf\udce9")
    assert message.startswith("out/caf\udce9: its name is not UTF-8")
    check_library_path("out/café")
