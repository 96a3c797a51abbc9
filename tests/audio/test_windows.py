import resource
import sys

import numpy as np
import pytest
import soundfile
from helpers import noise, refusal, write_m4a

from tinymu_jax.audio import decode, libsndfile
from tinymu_jax.audio.load import load_audio
from tinymu_jax.audio.windows import read_windows, seconds_of_each

RATE = 22_050


def write(path, seconds, **options):
    soundfile.write(path, noise(round(seconds * RATE)), RATE, **options)
    return path


def spans(windows):
    return [(round(w.start, 2), round(w.end, 2)) for w in windows]


@pytest.mark.parametrize(
    ("seconds", "hop", "expected"),
    [
        (1, None, [(0, 1)]),
        (10, None, [(0, 10)]),
        (10.2, None, [(0, 10), (0.2, 10.2)]),
        (12.9, None, [(0, 10), (2.9, 12.9)]),
        (13, None, [(0, 10), (10, 13)]),
        (20, None, [(0, 10), (10, 20)]),
        (20, 5.0, [(0, 10), (5, 15), (10, 20)]),
        (21, 5.0, [(0, 10), (5, 15), (10, 20), (15, 21)]),
        (31, 15.0, [(0, 10), (15, 25), (21, 31)]),
    ],
)
def test_where_windows_begin_and_end(tmp_path, seconds, hop, expected):
    path = write(tmp_path / "a.wav", seconds)
    assert spans(read_windows(path, 10.0, hop)) == expected


def test_a_window_is_read_as_a_file_of_that_part_would_be(tmp_path):
    path = write(tmp_path / "a.wav", 25.3, subtype="FLOAT")
    samples, _ = soundfile.read(path, dtype="float32")
    windows = list(read_windows(path, 10.0))
    for window in windows:
        part = samples[round(window.start * RATE) : round(window.end * RATE)]
        soundfile.write(tmp_path / "part.wav", part, RATE, subtype="FLOAT")
        expected = load_audio(tmp_path / "part.wav", None)
        assert np.array_equal(window.samples, expected)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_stream_has_the_windows_of_a_recording_that_is_read_at_once(
    tmp_path, monkeypatch, suffix
):
    path = tmp_path / f"a.{suffix}"
    if suffix == "m4a":
        write_m4a(path, noise(round(24.5 * RATE)), RATE)
    else:
        write(path, 24.5)
    at_once = list(read_windows(path, 4.0))
    monkeypatch.setattr(decode, "STREAMED_SECONDS", 5.0)
    streamed = list(read_windows(path, 4.0))
    assert spans(streamed) == spans(at_once)
    for first, second in zip(streamed, at_once, strict=True):
        assert np.array_equal(first.samples, second.samples)


def test_damage_is_an_error_after_the_windows_before_it(tmp_path, monkeypatch):
    whole = write(tmp_path / "a.mp3", 30).read_bytes()
    path = tmp_path / "cut.mp3"
    path.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(decode, "STREAMED_SECONDS", 5.0)
    windows = read_windows(path, 4.0)
    with pytest.raises(
        ValueError, match=r"cut\.mp3: damaged after 1[45]\.\d s of 30\.0 s; replace"
    ):
        list(windows)
    readable = spans(read_windows(path, 4.0, keep_damaged=True))
    assert readable[0] == (0, 4)
    assert 14 < readable[-1][1] < 16


def test_a_long_file_that_is_cut_or_damaged_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "STREAMED_SECONDS", 5.0)
    path = tmp_path / "a.m4a"
    write_m4a(path, noise(round(30 * RATE)), RATE)
    content = path.read_bytes()
    # The index comes last, so a cut file without it is refused; one with broken packets is not.
    start = content.find(b"mdat") + len(content) // 2
    path.write_bytes(content[:start] + bytes(2_000) + content[start + 2_000 :])
    with pytest.raises(ValueError, match=r"damaged after 1\d\.\d s of 30\.\d s; replace"):
        list(read_windows(path, 4.0))
    readable = list(read_windows(path, 4.0, keep_damaged=True))
    assert spans(readable)[-1][1] > 28
    at_once = decode.decode(path, None, keep_damaged=True)
    assert readable[-1].end == pytest.approx(at_once.seconds)
    wav = write(tmp_path / "a.wav", 30)
    wav.write_bytes(wav.read_bytes()[: 22 * RATE * 2])
    with pytest.raises(ValueError, match=r"a\.wav: damaged after 2\d\.\d s of 30\.0 s"):
        next(read_windows(wav, 4.0))


def test_the_memory_of_a_stream_does_not_grow_with_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "STREAMED_SECONDS", 10.0)
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros((45 * 60 * 8_000, 8), np.int16), 8_000)
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    count = sum(1 for _ in read_windows(path, 10.0))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert count == 270
    # All samples of all channels at once would be 690 MB.
    assert after - before < 200e6


def test_windows_of_samples_in_memory():
    windows = list(read_windows(noise(16_000 * 9), 4.0))
    assert spans(windows) == [(0, 4), (4, 8), (5, 9)]
    assert not any(window.is_silent for window in windows)
    (quiet,) = read_windows(np.full(16_000, 5e-4, np.float32), 4.0)
    assert quiet.is_silent


def test_windows_that_overlap_share_their_seconds():
    assert seconds_of_each([(0.0, 10.0), (10.0, 20.0), (15.0, 25.0)]) == [10.0, 7.5, 7.5]
    spans = [(0.0, 10.0), (5.0, 15.0), (10.0, 20.0), (11.0, 21.0)]
    assert sum(seconds_of_each(spans)) == pytest.approx(21)


def test_bad_windows():
    assert "window is 1.0" in refusal(lambda: list(read_windows(noise(16_000), 1.0)))
    assert "hop is inf" in refusal(lambda: list(read_windows(noise(16_000), 4.0, np.inf)))
    assert "hop is 0" in refusal(lambda: list(read_windows(noise(16_000), 4.0, 0.0)))


def test_an_mp3_that_is_read_in_parts_is_the_one_that_is_read_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp3", 24.5)
    at_once = load_audio(path, None)
    monkeypatch.setattr(libsndfile, "MIN_PLAUSIBLE", 400_000)
    monkeypatch.setattr(libsndfile, "MAX_EXPANSION", 1)
    assert np.array_equal(load_audio(path, None), at_once)
