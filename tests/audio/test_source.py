"""Tests of recordings that come from pipes, and of files that are cut while they are read."""

import io
import os
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from helpers import noise

from tinymu_jax.audio import libsndfile, source
from tinymu_jax.audio.decode import decode
from tinymu_jax.audio.load import as_clip
from tinymu_jax.errors import InputError
from tinymu_jax.utils import pipes


@pytest.fixture
def content():
    file = io.BytesIO()
    soundfile.write(file, noise(100_000), 16_000, format="WAV")
    return file.getvalue()


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def write_slowly(path, content, begin=0.0):
    """Starts a thread that opens a pipe and writes to it in blocks."""

    def work():
        time.sleep(begin)
        with suppress(BrokenPipeError), open(path, "wb", buffering=0) as file:
            for start in range(0, len(content), 50_000):
                file.write(content[start : start + 50_000])
                time.sleep(0.02)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("begin", [0.0, 0.3])
def test_a_named_pipe_is_read_to_its_end(pipe, content, begin):
    thread = write_slowly(pipe, content, begin)
    decoded = decode(pipe, None)
    thread.join()
    assert decoded.total == len(decoded.samples) == 100_000


def test_a_process_substitution_is_read(content):
    reader, writer = os.pipe()
    thread = write_slowly(f"/dev/fd/{writer}", content)
    thread.join(0.05)
    os.close(writer)
    decoded = decode(f"/dev/fd/{reader}", 1.0)
    os.close(reader)
    assert (len(decoded.samples), decoded.total) == (16_000, 100_000)


def test_stdin_is_read(monkeypatch, content, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    stdin = os.dup(0)
    with open(tmp_path / "a.wav", "rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        assert decode("-", None).total == 100_000
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


def test_a_pipe_to_which_nobody_writes_is_refused_soon(pipe, monkeypatch):
    monkeypatch.setattr(pipes, "WRITER_SECONDS", 0.2)
    with pytest.raises(InputError, match="pipe: no program writes to this pipe; start one"):
        decode(pipe, None)


def test_a_program_that_writes_nothing_is_refused(pipe, monkeypatch):
    monkeypatch.setattr(pipes, "WRITER_SECONDS", 0.2)
    monkeypatch.setattr(pipes, "SILENT_SECONDS", 0.5)
    keep_open = os.open(pipe, os.O_RDWR)
    with pytest.raises(InputError, match=r"pipe: nothing came from this pipe for 0\.5 s"):
        decode(pipe, None)
    os.close(keep_open)


def test_a_pipe_that_ends_at_once_is_empty(pipe):
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(InputError, match="is empty"):
        decode(f"/dev/fd/{reader}", None)
    os.close(reader)


def test_a_pipe_without_end_is_refused(pipe, monkeypatch):
    monkeypatch.setattr(pipes, "MAX_STREAM_BYTES", 1 << 20)
    write_slowly(pipe, bytes(50_000) * 30)
    with pytest.raises(InputError, match="more than 1 MiB come from this pipe; write them to"):
        decode(pipe, None)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "/dev/full"])
def test_devices_are_refused(path):
    with pytest.raises(InputError, match=f"{path}: is no file but a device"):
        decode(path, None)


def test_bytes_of_a_file_are_those_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BLOCK_BYTES", 100)
    random = np.random.default_rng(0)
    content = random.integers(0, 4, 1000, np.uint8).tobytes()
    (tmp_path / "a").write_bytes(content)
    data = source.FileBytes(tmp_path / "a")
    assert len(data) == 1000
    for start, stop in random.integers(0, 1100, (500, 2)).tolist():
        assert data[start:stop] == content[start:stop]
        assert data[start % 1000] == content[start % 1000]
        part = content[stop % 990 : stop % 990 + 5]
        assert data.find(part, start) == content.find(part, start)
        assert data.find(part, start, stop) == content.find(part, start, stop)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path, monkeypatch, kind):
    path = tmp_path / "a"
    soundfile.write(path, noise(200_000), 16_000, format=kind)
    unchanged = libsndfile._open_whole

    def cut_after_opening(recording):
        file = unchanged(recording)
        os.truncate(path, 9000)
        return file

    monkeypatch.setattr(libsndfile, "_open_whole", cut_after_opening)
    monkeypatch.setattr(source, "BLOCK_BYTES", 1000)
    with pytest.raises(InputError, match=r"a: (was cut while it was read|damaged after)"):
        decode(path, None)


def test_a_pipe_is_encoded_once_per_call_and_never_cached(assistant, content, pipe):
    cache = assistant.audio_cache
    for length in (100_000, 50_000):
        file = io.BytesIO()
        soundfile.write(file, noise(length)[-50_000:], 16_000, format="WAV")
        write_slowly(pipe, file.getvalue())
        first, second = cache.encode([pipe, pipe])
        expected = cache.encode_one(as_clip(file.getvalue()))
        for encoded in (first, second):
            np.testing.assert_array_equal(encoded.vectors, expected.vectors)


def test_errors_name_the_path_of_bytes_with_a_path(content):
    clip = as_clip({"bytes": content, "path": "a.wav"})
    np.testing.assert_allclose(clip.samples, noise(100_000), rtol=0, atol=2**-15)
    with pytest.raises(InputError, match=r"^a\.wav: is text"):
        as_clip({"bytes": b"text", "path": "a.wav"})
