"""Tests that what is decoded is believed: lengths, joined files, formats, and damage."""

import io
import itertools
import sys
import threading
import time
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from tinymu_jax.audio import ffmpeg, libsndfile
from tinymu_jax.audio.decode import audio_length, decode
from tinymu_jax.audio.resample import resample
from tinymu_jax.errors import InputError

RATE = 32_000


def sound(seconds, rate=RATE, channels=2, seed=0):
    """A sweep in noise, at most 0.5."""
    t = np.arange(int(seconds * rate)) / rate
    sweep = 0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t)
    hiss = np.random.default_rng(seed).normal(0, 0.02, (len(t), channels))
    return (sweep[:, None] + hiss).astype(np.float32)


def encode(samples, rate=RATE, kind="MP3", **options):
    """The bytes of a file that libsndfile writes."""
    file = io.BytesIO()
    if kind == "MP3":
        options = {"bitrate_mode": "VARIABLE", "compression_level": 0.4} | options
    with soundfile.SoundFile(file, "w", rate, samples.shape[1], format=kind, **options) as out:
        out.write(samples)
    return file.getvalue()


def encode_with_ffmpeg(samples, container, codec, rate=48_000, **options):
    """The bytes of a file that FFmpeg writes."""
    file = io.BytesIO()
    file.name = ""
    with av.open(file, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=rate, layout="stereo")
        if codec == "libopus":
            stream.format = "flt"
        if codec == "flac":
            stream.format = "s16"
        convert = av.AudioResampler(stream.format.name, "stereo", rate)
        for start in range(0, len(samples), 4096):
            block = np.ascontiguousarray(samples[start : start + 4096].T)
            frame = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
            frame.rate, frame.pts = rate, start
            for part in convert.resample(frame):
                out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return file.getvalue()


def read(content):
    """What libsndfile reads from a sound file."""
    return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0]


def without_tag(mp3):
    """An mp3 file without its first frame, whose Xing tag says how long the file is."""
    return mp3[mp3.index(b"\xff\xfb", 200) :]


# --- sound files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WAV", {"subtype": "FLOAT"}),
        ("FLAC", {}),
        ("AIFF", {}),
        ("OGG", {"subtype": "VORBIS"}),
        ("MP3", {}),
        ("MP3", {"bitrate_mode": "CONSTANT"}),
        ("MP3", {"bitrate_mode": "AVERAGE"}),
    ],
)
def test_sound_files_are_read_as_libsndfile_reads_them(tmp_path, kind, options):
    content = encode(sound(2.5), kind=kind, **options)
    (tmp_path / "sound").write_bytes(content)
    for seconds in (1.0, None):
        decoded = decode(tmp_path / "sound", seconds)
        expected = read(content)[: None if seconds is None else RATE]
        np.testing.assert_array_equal(decoded.samples, expected)
        assert decoded[1:] == (RATE, int(2.5 * RATE), None)
    assert audio_length(tmp_path / "sound") == (int(2.5 * RATE), RATE)


def test_a_sound_mp3_without_a_tag_is_read_as_libsndfile_reads_it():
    content = without_tag(encode(sound(2.0), bitrate_mode="CONSTANT"))
    decoded = decode(content, None)
    np.testing.assert_array_equal(decoded.samples, read(content))
    assert decoded.total == len(decoded.samples)


@pytest.mark.parametrize("bitrate_mode", ["CONSTANT", "VARIABLE"])
def test_a_short_mp3_with_a_tag_is_trimmed_as_by_libsndfile(bitrate_mode):
    content = encode(sound(0.1), bitrate_mode=bitrate_mode)
    assert len(read(content)) == RATE // 10
    decoded = decode(content, None)
    np.testing.assert_array_equal(decoded.samples, read(content))
    assert (decoded.total, decoded.damage) == (RATE // 10, None)
    np.testing.assert_array_equal(
        decode(content * 3, None).samples, np.concatenate([read(content)] * 3)
    )


# --- lengths -------------------------------------------------------------------------------------

FORMATS = {
    "m4a": ("mp4", "aac", {}),
    "fragmented mp4": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "alac": ("mp4", "alac", {}),
    "aac": ("adts", "aac", {}),
    "webm": ("webm", "libopus", {}),
    "webm without a length": ("webm", "libopus", {"live": "1"}),
    "mka": ("matroska", "aac", {}),
    "ac3": ("ac3", "ac3", {}),
    "wv": ("wv", "wavpack", {}),
    "tta": ("tta", "tta", {}),
    "mp2": ("mp2", "mp2", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_ffmpeg_reads_what_libsndfile_cannot(name):
    container, codec, options = FORMATS[name]
    samples = sound(2.0, 48_000)
    content = encode_with_ffmpeg(samples, container, codec, **options)
    decoded, start = decode(content, None), decode(content, 0.5)
    assert decoded.rate == 48_000
    assert abs(decoded.total - len(samples)) < 3000
    assert abs(start.total - len(samples)) < 3000
    assert len(start.samples) == 24_000
    np.testing.assert_array_equal(start.samples, decoded.samples[:24_000])
    if codec in ("alac", "wavpack", "tta"):
        step = 2**-15 if codec == "alac" else 2**-7  # FFmpeg writes 8 bits of the latter two
        np.testing.assert_allclose(decoded.samples, samples, rtol=0, atol=step)
    else:
        shift = np.argmax(np.correlate(decoded.samples[:8000, 0], samples[3000:6000, 0])) - 3000
        pair = decoded.samples[3000 + shift : 9000 + shift, 0], samples[3000:9000, 0]
        assert np.corrcoef(*pair)[0, 1] > 0.95


def test_a_flac_file_of_unknown_length_is_read_to_its_end():
    content = bytearray(encode(sound(2.0), kind="FLAC"))
    content[21] &= 0xF0  # the number of samples in the header, as a program that writes to a pipe
    content[22:26] = bytes(4)
    content[26:42] = bytes(16)
    decoded = decode(bytes(content), None)
    np.testing.assert_array_equal(decoded.samples, read(encode(sound(2.0), kind="FLAC")))
    start = decode(bytes(content), 0.5)
    assert (len(start.samples), start.total) == (RATE // 2, 2 * RATE)


def test_an_mp3_without_a_tag_is_read_to_its_end():
    samples = sound(3.0)
    samples[RATE // 2 :] *= 1e-3
    mp3 = encode(samples)
    content = without_tag(mp3)
    # libsndfile takes the bit rate of the start for that of the whole.
    assert len(read(content)) < 2.5 * RATE
    decoded = decode(content, None)
    assert abs(decoded.total - 3 * RATE) < 4000
    assert len(decoded.samples) == decoded.total
    assert decode(content, 0.5).total == decoded.total
    # With the tag, the encoder's delay of 576 samples is cut off.
    error = decoded.samples[576 : 576 + 2 * RATE] - read(mp3)[: 2 * RATE]
    np.testing.assert_array_equal(error, 0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("MP3", {}),
        ("MP3", {"bitrate_mode": "CONSTANT"}),
        ("OGG", {"subtype": "VORBIS"}),
        ("OGG", {"subtype": "OPUS"}),
        ("FLAC", {}),
        ("WAV", {}),
    ],
)
def test_joined_files_give_the_samples_of_each(kind, options):
    rate = 48_000 if options.get("subtype") == "OPUS" else RATE
    parts = [encode(sound(s, rate, seed=s), rate, kind, **options) for s in (1, 2)]
    parts.append(parts[0])
    expected = np.concatenate([read(part) for part in parts])
    decoded = decode(b"".join(parts), None)
    np.testing.assert_array_equal(decoded.samples, expected)
    assert decoded.total == 4 * rate
    assert len(decode(b"".join(parts), 2.5).samples) == 2.5 * rate


@pytest.mark.parametrize("kind", ["MP3", "OGG", "WAV"])
def test_joined_files_take_the_format_of_the_first(kind):
    mono = encode(sound(1, 44_100, channels=1), 44_100, kind)
    decoded = decode(encode(sound(1), kind=kind) + mono, None)
    assert decoded.samples.shape == (2 * RATE, 2)
    expected = resample(read(mono)[:, 0], 44_100, RATE)
    for channel in (0, 1):
        np.testing.assert_array_equal(decoded.samples[RATE:, channel], expected)


def test_a_joined_file_of_an_impossible_rate_is_damage():
    second = bytearray(encode(sound(1), kind="WAV"))
    second[24:28] = (2**31 - 1).to_bytes(4, "little")
    begin = time.process_time()
    with pytest.raises(InputError, match=r"damaged after 1\.0 s"):
        decode(encode(sound(1), kind="WAV") + bytes(second), None)
    assert time.process_time() - begin < 2


def test_tags_are_no_damage():
    id3 = b"ID3\x04\0\0\0\0\x07\x68" + bytes(1000)
    end = b"TAG" + bytes(125)
    content = encode(sound(1))
    decoded = decode(id3 + content + end + id3 + content + end, None)
    np.testing.assert_array_equal(decoded.samples, np.concatenate([read(content)] * 2))


@pytest.mark.parametrize("kind", ["mp3", "m4a"])
def test_the_start_of_a_long_file_is_read_with_little_memory(tmp_path, kind):
    path = tmp_path / "long"
    if kind == "mp3":
        path.write_bytes(without_tag(encode(sound(2.0))) * 200)
    else:
        samples = np.tile(sound(1.0, 8000), (400, 1))
        path.write_bytes(encode_with_ffmpeg(samples, "mp4", "alac", 8000))
    tracemalloc.start()
    begin = time.process_time()
    decoded = decode(path, 2.0)
    taken, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = 200 * 2.05 if kind == "mp3" else 400
    assert decoded.total / decoded.rate == pytest.approx(expected, rel=0.01)
    assert len(decoded.samples) == 2 * decoded.rate
    assert taken < 5
    assert peak < 16e6


def with_length(kind, num_samples):
    """A file of two seconds at 48 kHz whose header promises another number of samples."""
    container, options = ("FLAC", {}) if kind == "FLAC" else ("OGG", {"subtype": kind})
    content = bytearray(encode(sound(2.0, 48_000), 48_000, container, **options))
    if kind == "FLAC":
        content[21] = content[21] & 0xF0 | num_samples >> 32
        content[22:26] = (num_samples % 2**32).to_bytes(4, "big")
        return bytes(content)
    last = content.rindex(b"OggS")
    content[last + 6 : last + 14] = num_samples.to_bytes(8, "little")
    content[last + 22 : last + 26] = bytes(4)
    checksum = 0
    for byte in content[last:]:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x104C11DB7 if checksum >> 31 else 0)) % 2**32
    content[last + 22 : last + 26] = checksum.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("kind", "num_samples"), [("FLAC", 2**36 - 1), ("VORBIS", 2**40), ("OPUS", 2**40)]
)
def test_a_header_that_promises_terabytes_is_damage(kind, num_samples):
    content = with_length(kind, num_samples)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"damaged after (1\.9|2\.0) s"):
        decode(content, None)
    partial = decode(content, None, keep_damaged=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert partial.seconds == pytest.approx(2, abs=0.1)
    assert peak < 100e6


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_samples_are_the_same_however_many_are_read_at_once(monkeypatch, kind):
    content = encode(sound(2.5), kind=kind)
    monkeypatch.setattr(libsndfile, "MIN_PLAUSIBLE", 30_000)
    monkeypatch.setattr(libsndfile, "MAX_EXPANSION", 0)
    for seconds in (1.0, None):
        expected = read(content)[: None if seconds is None else RATE]
        np.testing.assert_array_equal(decode(content, seconds).samples, expected)


def test_a_flac_file_is_decoded_once(monkeypatch):
    counts, unchanged = [], soundfile.SoundFile.read

    def counted(*args, **kwargs):
        samples = unchanged(*args, **kwargs)
        counts.append(len(samples))
        return samples

    content = encode(sound(1), kind="FLAC")
    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert len(decode(content, None).samples) == RATE == sum(counts)


class OneByOne:
    """An open file that gives samples one by one, and fails if asked for others."""

    channels = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, frames=None, out=None, **_):
        if frames == libsndfile.BLOCK:
            return np.ones((1, 1), np.float32)
        raise RuntimeError


def test_time_to_read_a_damaged_file_is_linear_in_its_length():
    begin = time.process_time()
    samples, failed = libsndfile._read(OneByOne(), 20_000, 20_000, OneByOne)
    assert time.process_time() - begin < 1.5
    assert (len(samples), failed) == (20_000, True)


# --- content, not names --------------------------------------------------------------------------


def test_files_are_decoded_by_content_not_by_name(tmp_path):
    for name, content in {
        "m4a.mp3": encode_with_ffmpeg(sound(1, 48_000), "mp4", "aac"),
        "wav.m4a": encode(sound(1), kind="WAV"),
        "flac.wav": encode(sound(1), kind="FLAC"),
        "mp3.ogg": encode(sound(1)),
    }.items():
        (tmp_path / name).write_bytes(content)
        decoded = decode(tmp_path / name, None)
        assert decoded.seconds == pytest.approx(1, abs=0.05)
        assert np.abs(decoded.samples[:, 0]).max() < 0.7


TEXTS = {
    "text": (b"no sound\n" * 5000, "is text, not a recording"),
    "short": (b"404", "is text, not a recording"),
    "accents": ("Zugriff verweigert: für Sie nicht verfügbar\n".encode("latin-1") * 9, "is text"),
    "japanese": ("見つかりません" * 300).encode(),
    "utf-16": ("<html>" * 300).encode("utf-16"),
    "web page": (b"\n <!DOCTYPE html><html>" + b"<p>x</p>" * 900, "is a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "playlist": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://x.org/a.ts\n", "is text"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_refused(tmp_path, name):
    content, message = TEXTS[name] if isinstance(TEXTS[name], tuple) else (TEXTS[name], "is text")
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"song.mp3: .*{message}"):
        decode(path, None)


@pytest.mark.parametrize(("kind", "subtype"), [("NIST", "PCM_16"), ("PVF", "PCM_S8")])
def test_sound_files_with_a_text_as_header_are_no_text(kind, subtype):
    samples = np.full((4000, 1), 65 / 128, np.float32)  # "A" in 8 bits
    content = encode(samples, 16_000, kind, subtype=subtype)
    if kind == "NIST":
        content = content[:1024].rstrip(b"\0").ljust(1024) + content[1024:]
    np.testing.assert_array_equal(decode(content, None).samples, samples)


@pytest.mark.parametrize("suffix", [".au", ".snd", ".vox", ".gsm"])
def test_noise_is_not_read_as_samples_without_a_header(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()
    (tmp_path / f"a{suffix}").write_bytes(bytes(1000) + noise)
    with pytest.raises(InputError, match="cannot be decoded"):
        decode(tmp_path / f"a{suffix}", None)


@pytest.mark.parametrize("name", ["noise", "png", "zip"])
def test_other_files_are_refused(tmp_path, name):
    content = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
    start = {"noise": b"", "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "zip": b"PK\x03\x04\x14\0"}
    (tmp_path / "a.mp3").write_bytes(start[name] + content)
    with pytest.raises(InputError, match=r"a.mp3: (cannot be decoded|has no audio)"):
        decode(tmp_path / "a.mp3", None)


# --- damage --------------------------------------------------------------------------------------


def with_hole(content):
    """A file with 600 zeros in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(600) + content[middle + 600 :]


def half(content):
    return content[: len(content) // 2]


DAMAGED = {
    f"{kind} {name}": (content, change)
    for kind, content in {
        "wav": lambda: encode(sound(4), kind="WAV"),
        "aiff": lambda: encode(sound(4), kind="AIFF"),
        "au": lambda: encode(sound(4), kind="AU"),
        "flac": lambda: encode(sound(4), kind="FLAC"),
        "mp3": lambda: encode(sound(4)),
        "ogg": lambda: encode(sound(4), kind="OGG"),
        "m4a": lambda: encode_with_ffmpeg(sound(4, 48_000), "mp4", "aac", movflags="frag_keyframe"),
        "webm": lambda: encode_with_ffmpeg(sound(4, 48_000), "webm", "libopus"),
        "wv": lambda: encode_with_ffmpeg(sound(4, 48_000), "wv", "wavpack"),
        "ogg flac": lambda: encode_with_ffmpeg(sound(4, 48_000), "ogg", "flac"),
    }.items()
    for name, change in {"cut": half, "with a hole": with_hole}.items()
    if change is half or kind in ("flac", "mp3", "ogg", "wv", "ogg flac")
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_told_and_the_rest_is_read_on_request(name):
    content, change = DAMAGED[name][0](), DAMAGED[name][1]
    damaged = change(content)
    for seconds in (None, 3.5):
        with pytest.raises(InputError, match=r"damaged after [12]\.\d s.*--keep-damaged") as caught:
            decode(damaged, seconds)
    after = float(str(caught.value).split("after ")[1].split(" s")[0])
    assert after == pytest.approx(2.0, abs=0.5)
    partial = decode(damaged, None, keep_damaged=True)
    assert partial.damage.startswith(f"damaged after {after:.1f} s")
    assert partial.seconds > after - 0.1
    intact = decode(content, None)
    assert (
        partial.total / partial.rate == pytest.approx(4.0, abs=0.1)
        or "ogg" in name
        or "m4a" in name
    )
    # What precedes the damage is unharmed.
    before = int((after - 0.1) * partial.rate)
    np.testing.assert_allclose(partial.samples[:before], intact.samples[:before], rtol=0, atol=1e-4)
    start = decode(damaged, 1.0)
    assert start.damage is None
    np.testing.assert_array_equal(start.samples, intact.samples[: len(start.samples)])


class _SurprisingContainer:
    """A container of PyAV in which a stream appears that the header did not announce."""

    def __init__(self, container):
        self.container = container

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def __getattr__(self, name):
        return getattr(self.container, name)

    def demux(self, stream):
        yield from itertools.islice(self.container.demux(stream), 30)
        raise IndexError("list index out of range")


def test_a_stream_that_was_not_announced_is_damage(monkeypatch):
    content = encode_with_ffmpeg(sound(2, 48_000), "mp4", "aac")
    make = ffmpeg.open_container
    monkeypatch.setattr(ffmpeg, "open_container", lambda file: _SurprisingContainer(make(file)))
    with pytest.raises(InputError, match=r"damaged after 0\.\d s of 2\.0 s"):
        decode(content, None)


def test_an_m4a_file_without_its_index_is_cut_off():
    content = encode_with_ffmpeg(sound(1, 48_000), "mp4", "aac")
    with pytest.raises(InputError, match="cut off before its index"):
        decode(half(content), None)


def test_decoders_are_quiet_and_messages_of_others_are_not_lost(capfd):
    damaged = with_hole(with_hole(encode(sound(4))))
    broken = np.random.default_rng(0).integers(0, 256, 60_000, np.uint8).tobytes()

    def work():
        for content in (damaged, b"\xff\xfb\x90\x64" + broken, half(damaged)):
            with pytest.raises(InputError):
                decode(content, None)
            decode(damaged, None, keep_damaged=True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    lines = 0
    while any(thread.is_alive() for thread in threads):
        print("a message", file=sys.stderr, flush=True)
        lines += 1
        time.sleep(0.01)
    assert capfd.readouterr() == ("", "a message\n" * lines)
