"""Data sets on buckets are copied once, and interrupted copies are continued."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers import refusal
from test_prepare import make, prepared, recordings  # noqa: F401 - fixtures

from tinymu_jax.data import remote
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.remote import is_url, local_copy, local_path
from tinymu_jax.training.config import DataConfig, TrainConfig
from tinymu_jax.training.run import with_local_data

ADDRESS = "memory://bucket/sets/music"


@pytest.fixture
def whole(prepared):  # noqa: F811
    """The folder of a data set."""
    return prepared.folder


@pytest.fixture
def bucket(whole, own_cache):
    """The data set in a bucket of this process's memory."""
    files = fsspec.filesystem("memory")
    files.put(str(whole), "/bucket/sets/music", recursive=True)
    yield files
    files.rm("/bucket", recursive=True)


@pytest.fixture
def fetched(monkeypatch):
    """The names of the files that are copied."""
    names, get = [], MemoryFileSystem.get_file

    def counted(self, path, *rest, **named):
        names.append(path.rsplit("/", 1)[-1])
        return get(self, path, *rest, **named)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return names


def contents(folder):
    actual = (remote.LOCK_FILE,)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in actual]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_copy_is_exact_and_made_once(bucket, whole, fetched):
    folder = local_copy(ADDRESS)
    assert contents(folder) == contents(whole)
    assert len(Dataset(folder)) == len(Dataset(whole)) > 0
    assert len(fetched) == len(contents(whole)) - 1
    assert local_copy(ADDRESS) == folder
    assert len(fetched) == len(contents(whole)) - 1


def test_an_interrupted_copy_is_continued(bucket, whole, fetched, monkeypatch):
    counted = MemoryFileSystem.get_file

    def breaks(self, path, target, **named):
        if path.endswith(".array_record"):
            raise OSError("connection reset")
        return counted(self, path, target, **named)

    monkeypatch.setattr(MemoryFileSystem, "get_file", breaks)
    said = refusal(local_copy, ADDRESS)
    assert said.startswith(f"{ADDRESS}: cannot be copied (connection reset); check the URL")
    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    before = set(fetched)
    fetched.clear()
    assert contents(local_copy(ADDRESS)) == contents(whole)
    assert before.isdisjoint(fetched)
    assert len(before) + len(fetched) == len(contents(whole)) - 1


def test_a_truncated_shard_is_copied_again(bucket, whole, fetched):
    folder = local_copy(ADDRESS)
    shard = next(folder.glob("*.array_record"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (folder / "dataset.json").rename(folder / remote.IN_PROGRESS_FILE)
    fetched.clear()
    assert contents(local_copy(ADDRESS)) == contents(whole)
    assert fetched == [shard.name]


def test_another_data_set_at_the_same_url_is_copied_again(bucket, recordings, tmp_path):  # noqa: F811
    before = local_copy(ADDRESS)
    other = tmp_path / "other"
    make(recordings, other, store="waveform")
    bucket.rm("/bucket", recursive=True)
    bucket.put(str(other), "/bucket/sets/music", recursive=True)
    assert local_copy(ADDRESS) == before
    assert contents(before) == contents(other)


def test_processes_of_a_machine_copy_it_once(bucket, whole, fetched):
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(local_copy, [ADDRESS] * 4))
    assert len(folders) == 1
    assert len(fetched) == len(contents(whole)) - 1


def test_local_folders_are_not_copied(whole, own_cache):
    assert local_path(str(whole)) == whole
    copy = local_path(f"file://{whole}")
    assert copy != whole
    assert contents(copy) == contents(whole)


def test_training_reads_the_copies(bucket, whole):
    data = DataConfig(train=ADDRESS, validation=str(whole))
    result = with_local_data(TrainConfig(output="run", data=data)).data
    assert contents(Path(result.train)) == contents(whole)
    assert result.validation == str(whole)
    assert with_local_data(TrainConfig(data=DataConfig(train="x"))).data.validation is None


@pytest.mark.parametrize(
    ("place", "address"),
    [("gs://a/b", True), ("s3://a", True), ("/data", False), ("a:b/c", False), ("C:/x", False)],
)
def test_urls_are_distinguished_from_paths(place, address):
    assert is_url(place) is address


def test_errors_of_copying_are_one_sentence(bucket, own_cache, monkeypatch):
    assert "has no dataset.json; copy a folder there" in refusal(local_copy, "memory://bucket/sets")
    assert "nix:// is not a known protocol" in refusal(local_copy, "nix://bucket/sets")

    def lacks(address):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacks)
    assert refusal(local_copy, "gs://bucket/sets") == (
        "gs://bucket/sets: needs gcsfs; pip install gcsfs"
    )
    shutil.rmtree(own_cache, ignore_errors=True)
