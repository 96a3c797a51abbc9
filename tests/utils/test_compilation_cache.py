"""The cache of what librosa's functions compile to."""

import fcntl
import os
import threading

import pytest

from tinymu_jax.utils import compilation_cache
from tinymu_jax.utils.files import LOCK_FILE


@pytest.fixture
def numba_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMU_CACHE", str(tmp_path))
    # What the import sets is taken back after the test.
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return tmp_path / "numba"


def test_processes_import_librosa_one_after_another(numba_folder):
    # Two that compile at once can leave a cache that crashes every later process.
    compilation_cache.import_librosa()  # not timed
    numba_folder.mkdir(exist_ok=True)
    imported = []
    thread = threading.Thread(
        target=lambda: imported.append(compilation_cache._import_librosa.__wrapped__())
    )
    with open(numba_folder / LOCK_FILE, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert not imported
    thread.join(60)
    assert imported[0].beat.beat_track
    assert imported[0].effects.pitch_shift
    assert os.environ["NUMBA_CACHE_DIR"] == str(numba_folder)


def test_librosa_works_without_a_cache_folder(numba_folder):
    numba_folder.write_text("not a folder")
    assert compilation_cache._import_librosa.__wrapped__().onset.onset_strength
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_the_users_numba_cache_is_used(numba_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "theirs"))
    compilation_cache._import_librosa.__wrapped__()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "theirs")
