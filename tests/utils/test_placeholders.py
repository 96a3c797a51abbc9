"""Files that stand in for content that was not fetched are recognised by every reader."""

import os
import shutil
from pathlib import Path

import pytest
from helpers import refusal

from tinymu_jax.audio.load import load_audio
from tinymu_jax.checkpoints.open import NANO_FOLDER, open_checkpoint, read_tokenizer
from tinymu_jax.checkpoints.safetensors import map_safetensors
from tinymu_jax.data.musicskills import read_lists
from tinymu_jax.inference.class_names import read_labels
from tinymu_jax.utils.files import check_content
from tinymu_jax.utils.tables import read_lines

LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 917345212\n"
)
ANNEX = "/annex/objects/SHA256E-s917345212--4d7a214614ab2935c943f9e0ff69d22eadbb8f32.pt\n"
PAGE = "\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
XET = "# xet version 0\nfilesize = 917345212\nhash = '4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1'\n"
ERROR_PAGE = "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
REMEDIES = {
    "lfs": (LFS, "`git lfs pull`"),
    "annex": (ANNEX, "`git annex get`"),
    "xet": (XET, "download the file from the hub"),
    "page": (PAGE, "is a web page"),
    "error page": (ERROR_PAGE, "is a web page"),
}
READERS = {
    "tinymu.pt": open_checkpoint,
    "tinymu.safetensors": open_checkpoint,
    "mapped.safetensors": map_safetensors,
    "tokenizer.json": read_tokenizer,
    "song.wav": load_audio,
    "song.mp3": load_audio,
    "list.json": lambda path: read_lists([path], [path.parent]),
    "table.csv": lambda path: list(read_lines(path, "name a table")),
    "names.txt": read_labels,
    "names.json": read_labels,
}


@pytest.mark.parametrize(("content", "remedy"), REMEDIES.values(), ids=REMEDIES)
@pytest.mark.parametrize("name", READERS)
def test_a_placeholder_is_recognised(name, content, remedy, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    said = refusal(READERS[name], path)
    assert said.startswith(f"{path}: ")
    assert said.count(str(path)) == 1
    assert remedy in said


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_in_a_checkpoint_folder_is_recognised(name, tmp_path):
    folder = shutil.copytree(NANO_FOLDER, tmp_path / "nano")
    (folder / name).write_text(LFS)
    assert refusal(open_checkpoint, folder).startswith(f"{folder / name}: is a Git LFS pointer")


@pytest.mark.parametrize("name", ["tinymu.pt", "mapped.safetensors", "tokenizer.json", "song.wav"])
def test_an_empty_file_is_recognised(name, tmp_path):
    (tmp_path / name).touch()
    said = refusal(READERS[name], tmp_path / name)
    assert said.startswith(f"{tmp_path / name}: ")
    assert "is empty" in said


def test_a_link_to_content_that_was_not_fetched_is_recognised(tmp_path):
    link = tmp_path / "song.wav"
    link.symlink_to(".git/annex/objects/xx/yy/KEY/KEY")
    assert "`git annex get`" in refusal(load_audio, link)
    assert "`git annex get`" in refusal(read_tokenizer, link)


def test_streams_are_not_read_and_missing_files_are_left_to_the_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "none", tmp_path, Path("/dev/stdin")):
        check_content(path)
