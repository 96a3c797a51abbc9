"""Tests that headers which tell less than what follows are noticed, and metadata is no damage."""

import numpy as np
import pytest
from test_decode import RATE, encode, encode_with_ffmpeg, read, sound

from tinymu_jax.audio.decode import audio_length, decode
from tinymu_jax.audio.headers import count_bytes_after_end
from tinymu_jax.errors import InputError


def changed(content, name, offset, value, order="little"):
    """A file in which the number `offset` bytes after the start of `name` is `value`."""
    at = content.index(name) + offset
    return content[:at] + value.to_bytes(4, order) + content[at + 4 :]


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AU", "CAF"])
def test_samples_after_the_end_that_a_header_gives_are_told(kind):
    content = encode(sound(4), kind=kind)
    size = len(content) // 2
    lies = {
        "WAV": lambda: changed(content, b"data", 4, size),
        "RF64": lambda: changed(content, b"ds64", 16, size),
        "AU": lambda: changed(content, b".snd", 8, size, "big"),
        "CAF": lambda: changed(content, b"data", 8, size, "big"),
    }
    broken = lies[kind]()
    for seconds in (None, 3.0):
        with pytest.raises(InputError, match=r"ends after 2\.\d s by its header, but [\d,]+ bytes"):
            decode(broken, seconds)
    partial = decode(broken, None, keep_damaged=True)
    assert partial.seconds == pytest.approx(2.0, abs=0.1)
    assert decode(broken, 1.0).damage is None


@pytest.mark.parametrize("kind", ["AIFF", "CAF", "RF64", "m4a"])
def test_files_joined_in_formats_of_one_file_are_told(kind):
    if kind == "m4a":
        content = encode_with_ffmpeg(sound(2, 48_000), "mp4", "aac")
    else:
        content = encode(sound(2), kind=kind)
    assert decode(content, None).damage is None
    with pytest.raises(InputError, match=r"ends after 2\.\d s by its header, but [\d,]+ bytes"):
        decode(content * 2, None)


def chunk(name, content, order="little"):
    return name + len(content).to_bytes(4, order) + content


BYTES = bytes(range(256)) * 400
RESTS = {
    "zeros": bytes(99_999),
    "tag": b"ID3" + bytes(range(256)) * 999,
    "chunk": chunk(b"LIST", BYTES),
    "zeros and a tag": bytes(1000) + b"TAG" + BYTES,
    "odd chunk": chunk(b"LIST", b"abc") + b"x" + chunk(b"note", BYTES),
    "chunk with a NUL in its name": chunk(b"id3\0", BYTES),
    "padding": b"\xff" * 60_000,
    "program's block": b"\1\2\3\4" + BYTES,
}


@pytest.mark.parametrize("rest", RESTS.values(), ids=RESTS)
def test_tags_and_zeros_after_the_samples_are_no_damage(rest):
    samples = sound(1)
    decoded = decode(encode(samples, kind="WAV") + rest, None)
    assert decoded.damage is None
    assert len(decoded.samples) == len(samples)


@pytest.mark.parametrize("num_samples", [0, RATE, 2**36 - 1])
def test_a_flac_header_that_gives_another_length_is_not_believed(num_samples):
    samples = sound(4)
    content = bytearray(encode(samples, kind="FLAC"))
    content[21] = content[21] & 0xF0 | num_samples >> 32
    content[22:26] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    decoded = decode(bytes(content), 3.0)
    assert len(decoded.samples) == 3 * RATE
    assert decoded.total == len(samples)
    assert decoded.damage is None


@pytest.mark.parametrize("num_frames", [1, 50, 10**6])
def test_an_mp3_tag_that_gives_another_length_is_not_believed(num_frames):
    content = encode(sound(4))
    name = b"Xing" if b"Xing" in content else b"Info"
    decoded = decode(changed(content, name, 8, num_frames, "big"), 3.0)
    assert len(decoded.samples) == 3 * RATE
    assert decoded.total / RATE == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("size", [-1, 2**60])
def test_a_caf_file_from_a_pipe_is_read_to_its_end(size, capfd):
    samples = sound(1)
    content = bytearray(encode(samples, kind="CAF"))
    at = content.index(b"data") + 4
    content[at : at + 8] = size.to_bytes(8, "big", signed=True)
    decoded = decode(bytes(content), None)
    assert len(decoded.samples) == len(samples)
    assert decoded.damage is None
    assert capfd.readouterr().err == ""


def test_an_unknown_codec_is_refused(capfd):
    content = encode(sound(1), kind="CAF").replace(b"lpcm", b"xxxx", 1)
    with pytest.raises(InputError, match="cannot be decoded"):
        decode(content, None)
    assert capfd.readouterr().err == ""


def test_a_caf_file_without_samples_is_refused(capfd):
    with pytest.raises(InputError, match="has no samples"):
        decode(encode(sound(0), kind="CAF"), None)
    assert capfd.readouterr().err == ""


def test_a_wav_header_that_denies_its_samples_is_told():
    content = bytearray(encode(sound(1), kind="WAV"))
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    with pytest.raises(InputError, match=r"says that no samples follow, but there are 1\.0 s"):
        decode(bytes(content), None)
    partial = decode(bytes(content), None, keep_damaged=True)
    np.testing.assert_array_equal(partial.samples, read(encode(sound(1), kind="WAV")))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF024])
def test_a_wav_file_from_a_pipe_is_read_to_its_end(size):
    content = bytearray(encode(sound(1), kind="WAV"))
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = size.to_bytes(4, "little")
    decoded = decode(bytes(content), None)
    np.testing.assert_array_equal(decoded.samples, read(encode(sound(1), kind="WAV")))
    assert decoded.damage is None


BEFORE = {
    "odd chunk": chunk(b"LIST", b"abc") + b"\x7f",
    "odd chunk without a pad byte": chunk(b"LIST", b"abc"),
    "zeros": bytes(12),
    "name with NUL": chunk(b"a\0b\0", b"abcd"),
    "name with a letter": chunk(b"\xe9abc", b"abcd"),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_what_precedes_the_samples_is_no_damage(kind, name):
    content, samples_at = encode(sound(4), kind=kind), b"data" if kind == "WAV" else b"SSND"
    before = BEFORE[name]
    if kind == "AIFF":
        before = before.replace(b"\3\0\0\0", b"\0\0\0\3").replace(b"\4\0\0\0", b"\0\0\0\4")
    at = content.index(samples_at)
    content = content[:at] + before + content[at:]
    assert count_bytes_after_end(content) == 0
    assert count_bytes_after_end(content + chunk(b"LIST", BYTES)) == 0


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_a_file_behind_a_tag_is_checked_alike(kind):
    content = encode(sound(4), kind=kind)
    size = len(content) // 2
    broken = changed(content, b"data", 4, size) if kind == "WAV" else content * 2
    for tag in (b"", b"ID3\x04\0\0\0\0\x07\x68" + bytes(1000)):
        assert count_bytes_after_end(tag + content) == 0
        assert count_bytes_after_end(tag + broken) > size - 200


@pytest.mark.parametrize("between", [b"", bytes(1000), b"TAG" + bytes(125), b"x" * 99])
def test_a_second_wav_file_is_read_or_told(between):
    content = encode(sound(2), kind="WAV")
    joined = content + between + content
    if between:
        with pytest.raises(InputError, match=r"ends after 2\.0 s by its header"):
            decode(joined, None)
    else:
        assert decode(joined, None).seconds == 4


@pytest.mark.parametrize("num_samples", [0, RATE])
def test_a_flac_header_behind_a_tag_is_not_believed_either(num_samples):
    samples = sound(4)
    content = bytearray(encode(samples, kind="FLAC"))
    content[22:26] = num_samples.to_bytes(4, "big")
    decoded = decode(b"ID3\x04\0\0\0\0\x07\x68" + bytes(1000) + bytes(content), None)
    assert len(decoded.samples) == len(samples)


@pytest.mark.parametrize(
    ("kind", "num_files"), [("WAV", 1), ("WAV", 2), ("AIFF", 1), ("CAF", 1), ("AU", 1), ("RF64", 1)]
)
def test_all_samples_behind_a_tag_are_read(tmp_path, kind, num_files):
    samples = sound(1)
    content = b"ID3\x04\0\0\0\x04\0\0" + bytes(65_536)
    content += encode(samples, kind=kind) * num_files
    (tmp_path / "a").write_bytes(content)
    for recording in (content, tmp_path / "a"):
        decoded = decode(recording, None)
        assert len(decoded.samples) == len(samples) * num_files
        np.testing.assert_allclose(decoded.samples[: len(samples)], samples, rtol=0, atol=2**-15)


def test_damage_that_ffmpeg_finds_in_a_longer_flac_file_is_told():
    content = bytearray(encode(sound(4), kind="FLAC"))
    content[22:26] = RATE.to_bytes(4, "big")
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    with pytest.raises(InputError, match=r"damaged after [12]\.\d s"):
        decode(bytes(content), None)


@pytest.mark.parametrize("rest", [b"TAG" + BYTES, b"ID3\x04\0\0\0\0\x07\x68" + BYTES])
def test_tags_after_a_caf_file_with_alac_are_no_damage(rest):
    content = encode(sound(4), kind="CAF", subtype="ALAC_16")
    assert decode(content + rest, None).damage is None


@pytest.mark.parametrize("num_samples", [0, RATE])
def test_a_length_without_decoding_is_that_of_all_samples(tmp_path, num_samples):
    content = bytearray(encode(sound(4), kind="FLAC"))
    content[22:26] = num_samples.to_bytes(4, "big")
    (tmp_path / "a.flac").write_bytes(content)
    assert audio_length(tmp_path / "a.flac") == (4 * RATE, RATE)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "RF64", "FLAC"])
def test_a_cut_file_has_no_length(tmp_path, kind):
    content = encode(sound(4), kind=kind)
    (tmp_path / "a").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"damaged after [12]\.\d s of 4\.0 s"):
        audio_length(tmp_path / "a")
    assert audio_length(tmp_path / "a", keep_damaged=True)[0] > RATE


def test_a_flac_file_that_is_shorter_than_its_header_says_has_no_length(tmp_path):
    content = bytearray(encode(sound(4), kind="FLAC"))
    content[22:26] = (8 * RATE).to_bytes(4, "big")
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged after [34]\.\d s of 8\.0 s"):
        audio_length(tmp_path / "a.flac")
    assert audio_length(tmp_path / "a.flac", keep_damaged=True) == (8 * RATE, RATE)


@pytest.mark.parametrize("lie", [0, 200_000])
def test_a_length_without_decoding_is_refused_as_the_samples_are(tmp_path, lie):
    broken = changed(encode(sound(4), kind="WAV"), b"data", 4, lie)
    (tmp_path / "a.wav").write_bytes(broken)
    messages = []
    for reader in (audio_length, lambda path: decode(path, None)):
        with pytest.raises(InputError, match=r"by its header|its header says") as caught:
            reader(tmp_path / "a.wav")
        messages.append(str(caught.value))
    assert messages[0].split(";")[0] == messages[1].split(";")[0]
    whole = audio_length(tmp_path / "a.wav", keep_damaged=True)
    assert whole[0] == decode(tmp_path / "a.wav", None, keep_damaged=True).total
