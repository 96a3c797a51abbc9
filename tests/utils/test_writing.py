"""Writing files: temporary names, long names, and names that are not UTF-8."""

import errno
import json
import os
import stat

import pytest
from helpers import refusal

from tinymu_jax.qa_builder.output import list_name
from tinymu_jax.utils.files import (
    check_library_path,
    edit_atomic,
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


def test_an_edited_file_keeps_its_mode_and_attributes(tmp_path):
    path, link = tmp_path / "x.wav", tmp_path / "link.wav"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    try:
        os.setxattr(path, "user.rating", b"5")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    # An interrupted edit leaves nothing.
    with pytest.raises(KeyboardInterrupt):
        edit_atomic(path, _interrupt)
    edit_atomic(link, lambda copy: copy.write_text(copy.read_text() + " and new"))
    assert path.read_text() == "old and new"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.getxattr(path, "user.rating") == b"5"
    assert sorted(os.listdir(tmp_path)) == ["link.wav", "x.wav"]


def _interrupt(copy):
    assert is_partial(copy, "x.wav")
    copy.write_text("half")
    raise KeyboardInterrupt


def test_a_file_that_cannot_be_replaced_stays(tmp_path):
    path = tmp_path / "x.wav"
    path.write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    message = refusal(edit_atomic, path, fail)
    assert "cannot be replaced (No space left on device) and is as it was" in message
    assert "No such file" in refusal(edit_atomic, tmp_path / "missing.wav", fail)
    path.chmod(0o444)
    assert "is read-only" in refusal(edit_atomic, path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.wav"]
