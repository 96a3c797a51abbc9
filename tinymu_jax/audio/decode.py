"""Decodes recordings: with libsndfile, and with FFmpeg what libsndfile cannot read.

What is decoded is believed, not what a header says: files that are longer than their header says
are read to their end, and files that are shorter are damaged.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.decoded import TOLERANCE, Decoded, Samples, damaged_after
from tinymu_jax.audio.ffmpeg import container_seconds, decode_with_ffmpeg, stream_with_ffmpeg
from tinymu_jax.audio.headers import count_bytes_after_end, type_of
from tinymu_jax.audio.libsndfile import decode_with_libsndfile, stream_with_libsndfile
from tinymu_jax.audio.source import Source, open_source
from tinymu_jax.errors import InputError

STREAMED_SECONDS = 600.0
"""Length from which `decode_blocks` decodes a recording as a stream."""
_REMEDY = "replace it, or use what can be read with --keep-damaged"


def decode(
    recording: "str | Path | bytes",
    max_seconds: float | None,
    keep_damaged: bool = False,
    name: str = "audio bytes",
) -> Decoded:
    """Decode the first `max_seconds` seconds (None: all) of a recording, without resampling.

    Args:
        recording: path of a file, "-" (stdin), or the content of a file as bytes.
        max_seconds: seconds to decode from the start.
        keep_damaged: whether to return what can be read of a damaged recording.
        name: name in error messages of a recording that is given as bytes.

    Raises:
        InputError: the recording is missing, is empty, is text, or cannot be decoded; or it is
            damaged in the part to decode, unless `keep_damaged`.
    """
    return _decode_checked(open_source(recording, name), max_seconds, keep_damaged)


def decode_blocks(
    recording: "str | Path | bytes", keep_damaged: bool = False, name: str = "audio bytes"
) -> tuple[int, Iterator[Float32[np.ndarray, "_"]]]:
    """Return a recording's sample rate, and its first channel in consecutive blocks of samples.

    A recording of more than `STREAMED_SECONDS` is decoded while the blocks are read, in bounded
    memory; damage is then an error after the blocks before it. See `decode` for the arguments and
    errors.
    """
    source = open_source(recording, name)
    header = _decode(source, 0.0)
    if header.total > STREAMED_SECONDS * header.rate:
        if header.damage and not keep_damaged:
            raise InputError(f"{source.name}: {header.damage}; {_REMEDY}")
        blocks, total = _stream(source, header)
        # What can be read of a damaged recording is found out by decoding all of it at once.
        if not keep_damaged or not (
            header.damage or _is_damaged(blocks, total, header.rate, source)
        ):
            blocks, _ = _stream(source, header)
            return header.rate, _until_damage(blocks, total, header.rate, source)
    decoded = _decode_checked(source, None, keep_damaged)
    return decoded.rate, iter([np.ascontiguousarray(decoded.samples[:, 0])])


def _stream(source: Source, header: Decoded) -> tuple[Iterator[Samples | None], int]:
    """Return a stream of a recording's samples, and how many there should be per channel.

    None in the stream stands for a part that cannot be decoded.
    """
    blocks = stream_with_libsndfile(source)
    if blocks is not None:
        return blocks, header.total
    promised, _ = container_seconds(source)
    return stream_with_ffmpeg(source), max(header.total, round(promised * header.rate))


def _until_damage(
    blocks: Iterable[Samples | None], total: int, rate: int, source: Source
) -> Iterator[Float32[np.ndarray, "_"]]:
    """Yield the first channel of blocks; raise `InputError` at damage, or if samples are missing.

    `total` is the number of samples per channel that there should be.
    """
    count, block = 0, None
    for block in blocks:
        if block is None:
            break
        count += len(block)
        yield np.ascontiguousarray(block[:, 0])
    damage = None
    if block is None or count < total - TOLERANCE * rate:
        damage = damaged_after(count / rate, total / rate)
    damage = damage or _unread(source, count / rate)
    if damage:
        raise InputError(f"{source.name}: {damage}; {_REMEDY}")


def _is_damaged(blocks: Iterable[Samples | None], total: int, rate: int, source: Source) -> bool:
    """Return whether `_until_damage` raises an error."""
    try:
        for _ in _until_damage(blocks, total, rate, source):
            pass
    except InputError:
        return True
    return False


def _decode_checked(source: Source, max_seconds: float | None, keep_damaged: bool) -> Decoded:
    decoded = _decode(source, max_seconds, keep_damaged)
    if decoded.damage is None and _is_read_to_end(decoded, max_seconds):
        decoded = decoded._replace(damage=_unread(source, decoded.seconds))
    if decoded.damage and not (keep_damaged and len(decoded.samples)):
        remedy = _REMEDY if len(decoded.samples) else "replace it"
        raise InputError(f"{source.name}: {decoded.damage}; {remedy}")
    if len(decoded.samples) == 0:
        raise InputError(f"{source.name}: has no samples; replace or skip it")
    return decoded


def audio_length(path: str | Path, keep_damaged: bool = False) -> tuple[int, int]:
    """Return a recording's number of samples per channel and its sample rate, without decoding it.

    Args:
        path: path of the recording.
        keep_damaged: whether to return the length of a recording whose header is wrong, too.

    Raises:
        InputError: the recording is missing, empty or text, has no samples, or cannot be decoded;
            or its header is wrong, unless `keep_damaged`.
    """
    source = open_source(path)
    decoded = _decode(source, 0.0)
    if not decoded.total:
        raise InputError(f"{path}: has no samples; replace or skip it")
    damage = decoded.damage or _unread(source, decoded.total / decoded.rate)
    if damage and not keep_damaged:
        raise InputError(f"{source.name}: {damage}; {_REMEDY}")
    return decoded.total, decoded.rate


def _decode(source: Source, max_seconds: float | None, keep_damaged: bool = False) -> Decoded:
    """Decode a recording with the first decoder that can read it; see `decode`."""
    decoded = decode_with_libsndfile(source, max_seconds)
    if decoded is not None and decoded.total and not (decoded.damage and keep_damaged):
        is_flac = type_of(source.data) == b"fLaC" and decoded.damage is None
        if not (is_flac and (max_seconds == 0 or _is_read_to_end(decoded, max_seconds))):
            return decoded
        # A FLAC file's header may give fewer samples than follow it, or more.
        held, total_seconds = container_seconds(source)[1], decoded.total / decoded.rate
        if max_seconds == 0 and 0 < held < total_seconds - TOLERANCE:
            return decoded._replace(damage=damaged_after(held, total_seconds))
        if held <= total_seconds + TOLERANCE:
            return decoded
    other = decode_with_ffmpeg(source, max_seconds)
    if decoded is None and other is None:
        if source.data[4:8] == b"ftyp" and source.data.find(b"moov") < 0:
            raise InputError(f"{source.name}: is cut off before its index (moov); copy it again")
        raise InputError(f"{source.name}: cannot be decoded; convert it to wav, flac, ogg or mp3")
    if decoded is None or other is None:
        return decoded or other
    if not decoded.total and other.total:
        seconds = other.total / other.rate
        damage = f"its header says that no samples follow, but there are {seconds:.1f} s"
        return other._replace(damage=damage)
    is_longer = other.seconds > decoded.seconds + TOLERANCE
    if is_longer or (max_seconds == 0 and other.total > decoded.total):
        total = max(other.total, round(decoded.total * other.rate / decoded.rate))
        return other._replace(total=total, damage=decoded.damage or other.damage)
    return decoded


def _is_read_to_end(decoded: Decoded, max_seconds: float | None) -> bool:
    """Return whether all samples that a recording has by its header were decoded."""
    return max_seconds is None or len(decoded.samples) < int(max_seconds * decoded.rate)


def _unread(source: Source, seconds: float) -> str | None:
    """Return a text on the bytes of a recording of which no decoder makes samples; None if few.

    `seconds` is the recording's length by its header.
    """
    unread = count_bytes_after_end(source.data)
    if unread * seconds <= TOLERANCE * (source.size - unread):
        return None
    return f"ends after {seconds:.1f} s by its header, but {unread:,} bytes follow"
