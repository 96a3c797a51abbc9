"""Decodes recordings with libsndfile: wav, flac, ogg, mp3, aiff and the like."""

import ctypes
import io
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import numpy as np

from tinymu_jax.audio.bitstream import (
    Layout,
    Part,
    scan_mpeg,
    scan_ogg,
    skip_tags,
    split_flac,
    split_wav,
    xing_header,
)
from tinymu_jax.audio.decoded import TOLERANCE, Decoded, Samples, as_format, damaged_after
from tinymu_jax.audio.ffmpeg import STREAM_BLOCK
from tinymu_jax.audio.source import Source
from tinymu_jax.errors import InputError

UNKNOWN_LENGTH = 2**60
"""libsndfile's number of samples is above this if a header does not tell the length."""
BLOCK = 4096
"""Number of samples per read when the place of damage is looked for."""
MIN_PLAUSIBLE, MAX_EXPANSION = 64 * 2**20, 32
"""Bytes of samples that any header may promise, and those per byte of the file."""

MAX_FLAC_EXPANSION = 6_000
"""Samples per channel and byte of a FLAC file of silence: 65,535 in a frame of 11 bytes."""
_HEADERS = (b"RIFF", b"RF64", b"FORM", b"caff", b".snd")
"""First bytes of formats that libsndfile reads better without a tag before them."""


class _DecoderError(Exception):
    """libsndfile cannot open or decode a file."""


class _View(io.RawIOBase):
    """Part of a file's bytes as a file: a header, then the bytes [start, stop) of the file."""

    def __init__(self, source: Source, part: Part) -> None:
        self._data, self._part, self._pos = source.data, part, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._pos

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        header, start, stop = self._part.header, self._part.start, self._part.stop
        size = len(header) + stop - start
        self._pos = max(0, offset + {0: 0, 1: self._pos, 2: size}[whence])
        return self._pos

    def readinto(self, buffer: Any) -> int:
        header, start, stop = self._part.header, self._part.start, self._part.stop
        if self._pos < len(header):
            block = header[self._pos : self._pos + len(buffer)]
        else:
            first = start + self._pos - len(header)
            try:
                block = self._data[first : min(stop, first + len(buffer))]
            except InputError:  # the file was cut meanwhile, which libsndfile sees as its end
                block = b""
        buffer[: len(block)] = block
        self._pos += len(block)
        return len(block)


def _open_whole(source: Source) -> Any:
    """Open a recording with libsndfile."""
    start = skip_tags(source.data, 0)
    # libsndfile would not read as many bytes of the samples as are in a tag before a wav file.
    start = start if source.data[start : start + 4] in _HEADERS else 0
    if start or source.path is None:
        return _open_sound(_View(source, Part(start, source.size)))
    # The path is passed as bytes, since a file name may be in any encoding.
    return _open_sound(os.fsencode(source.path))


def _open_sound(file: Any) -> Any:
    """Open a file with libsndfile; raise `_DecoderError` if it cannot read it."""
    import soundfile

    try:
        opened = soundfile.SoundFile(file)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _DecoderError(str(error)) from error
    if opened.format == "MP3":
        # soundfile would seek after each read, which makes the decoder start anew in the middle.
        opened._info.seekable = 0
    return opened


def _open_part(source: Source, part: Part, is_whole: bool) -> tuple[Any, int]:
    """Open a part of a recording with libsndfile; return the open file and its number of samples.

    `is_whole` is whether the part is the whole recording.
    """
    file = _open_whole(source) if is_whole else _open_sound(_View(source, part))
    if not part.num_samples or part.header:
        return file, file.frames
    if file.frames < part.num_samples and not part.has_tag and not _is_close(file.frames, part):
        file.close()
        part = part._replace(header=xing_header(source.data, part))
        file = _open_sound(_View(source, part))
    return file, min(file.frames, part.num_samples)


def _is_close(num_samples: int, part: Part) -> bool:
    """Return whether libsndfile's estimate of a long part's length, `num_samples`, is kept."""
    return num_samples > part.num_samples - 8 * 1152 and part.num_samples > 8 * 1152


def decode_with_libsndfile(source: Source, max_seconds: float | None) -> Decoded | None:
    """Decode a recording with libsndfile; return None if it cannot, or not reliably."""
    with suppress(_DecoderError), _quiet_c_stderr():
        layout: Layout | None = Layout(split_wav(source.data))
        if len(layout.parts) == 1:
            with _open_whole(source) as file:
                kind, frames = file.format, file.frames
                if kind in ("MP3", "OGG"):
                    layout = (scan_mpeg if kind == "MP3" else scan_ogg)(source.data, max_seconds)
                elif frames > UNKNOWN_LENGTH or kind == "RAW":
                    # Any file that is named .au, .snd, .vox or .gsm is RAW for libsndfile.
                    return None
                elif kind == "FLAC" and frames > MAX_FLAC_EXPANSION * source.size:
                    return None
                else:
                    decoded = _read_whole(source, file, max_seconds)
                    if kind != "FLAC" or decoded.damage or len(decoded.samples) < frames:
                        return decoded
                    layout = Layout(split_flac(source.data))
                    if len(layout.parts) == 1:
                        return decoded
        return layout and _read_parts(source, layout, max_seconds)
    return None


def stream_with_libsndfile(source: Source) -> Iterator[Samples | None] | None:
    """Decode an undamaged recording in blocks; return None if libsndfile cannot, or not reliably.

    A block that is None stands for the rest of a recording that is damaged there.
    """
    with suppress(_DecoderError), _quiet_c_stderr():
        with _open_whole(source) as file:
            kind, length = file.format, file.frames
        split = {"MP3": scan_mpeg, "OGG": scan_ogg}.get(kind)
        layout = split(source.data, None) if split else Layout(split_wav(source.data))
        if layout is None or len(layout.parts) > 1 or layout.damaged_after is not None:
            return None
        if kind == "RAW" or (kind == "FLAC" and len(split_flac(source.data)) > 1):
            return None
        if split is None:
            return None if length > UNKNOWN_LENGTH else _blocks(_open_whole(source), length)
        file, length = _open_part(source, layout.parts[0], not layout.parts[0].header)
        return None if length > UNKNOWN_LENGTH else _blocks(file, length)
    return None


def _blocks(file: Any, length: int) -> Iterator[Samples | None]:
    """Yield the first `length` samples per channel of an open file in blocks; None at an error."""
    with file:
        while length > 0:
            try:
                with _quiet_c_stderr():
                    block = file.read(min(length, STREAM_BLOCK), dtype="float32", always_2d=True)
            except RuntimeError:
                yield None
                return
            if not len(block):
                return
            length -= len(block)
            yield block


def _read_whole(source: Source, file: Any, max_seconds: float | None) -> Decoded:
    """Read a file whose header tells its length."""
    rate, total = file.samplerate, file.frames
    limit = total if max_seconds is None else min(total, int(max_seconds * rate))
    samples, failed = _read(file, limit, source.size, lambda: _open_whole(source))
    failed = failed or len(samples) < limit - TOLERANCE * rate
    promised = total if failed else _promised_samples(file)
    damage = None
    if max_seconds == 0 and promised > total:
        return Decoded(samples, rate, total, damaged_after(total / rate, promised / rate))
    if failed or (len(samples) == total and promised > total):
        asked = promised if max_seconds is None else min(promised, int(max_seconds * rate))
        if len(samples) < asked:
            damage = damaged_after(len(samples) / rate, promised / rate)
    return Decoded(samples, rate, max(total, promised) if damage else total, damage)


def _promised_samples(file: Any) -> int:
    """Return how many samples a file has, or had before it was cut, by the sizes in its header."""
    # libsndfile logs the size in the header, and the size of what follows it.
    match = re.search(
        r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)",
        file.extra_info,
        re.MULTILINE,
    )
    if match is None:
        return file.frames
    promised, available = map(int, match.groups())
    # Programs that write to a pipe put a size near 2 or 4 GiB, or 0.
    if (
        promised >= 0x7FFFF000
        or available <= 0
        or promised - available < 0.1 * available / max(file.frames / max(file.samplerate, 1), 1e-9)
    ):
        return file.frames
    return int(file.frames * promised / available)


def _read(
    file: Any, frames: int, num_bytes: int, reopen: Callable[[], Any]
) -> tuple[Samples, bool]:
    """Read `frames` samples per channel; return them, and whether the decoder met an error.

    `num_bytes` is the size of the file. After an error, `reopen` opens the file again, and what
    precedes the error is read in blocks.
    """
    try:
        return _read_growing(file, frames, num_bytes), False
    except RuntimeError:
        blocks, count = [np.zeros((0, file.channels), np.float32)], 0
    with reopen() as file, suppress(RuntimeError):
        while count < frames:
            blocks.append(file.read(BLOCK, dtype="float32", always_2d=True))
            count += len(blocks[-1])
            if not len(blocks[-1]):
                break
    return np.concatenate(blocks)[:frames], True


def _read_growing(file: Any, frames: int, num_bytes: int) -> Samples:
    """Read up to `frames` samples per channel into an array that grows with what is decoded.

    A broken header may promise terabytes. What a file of `num_bytes` may well hold is read at once.
    """
    plausible = max(MIN_PLAUSIBLE, MAX_EXPANSION * num_bytes) // (4 * file.channels)
    samples, count = np.empty((min(frames, plausible), file.channels), np.float32), 0
    while True:
        count += len(file.read(out=samples[count:]))
        if count < len(samples) or count == frames:
            return samples[:count]
        samples.resize((min(frames, 2 * count), file.channels), refcheck=False)


def _read_parts(source: Source, layout: Layout, max_seconds: float | None) -> Decoded:
    """Read a file part by part; later parts take the sample rate and channels of the first."""
    blocks: list[Samples] = []
    rate = channels = count = 0
    total, failed = 0.0, False
    is_whole = len(layout.parts) == 1 and not layout.parts[0].header
    for part in layout.parts:
        try:
            file, length = _open_part(source, part, is_whole)
        except _DecoderError:
            if not blocks:
                raise
            failed = True
            break
        with file:
            if not blocks:
                rate, channels = file.samplerate, file.channels
            if length > UNKNOWN_LENGTH:
                raise _DecoderError("an Ogg stream without a length")
            part_rate = file.samplerate
            total += length * rate / part_rate
            limit = None if max_seconds is None else int(max_seconds * rate) - count
            if not blocks or limit is None or limit > 0:
                asked = length if limit is None else min(length, -(-limit * part_rate // rate))
                reopen = partial(_open_part, source, part, is_whole)
                samples, stopped = _read(
                    file, asked, source.size, lambda reopen=reopen: reopen()[0]
                )
                failed = failed or stopped or len(samples) < asked - TOLERANCE * part_rate
                samples = as_format(samples, part_rate, rate, channels)
                failed = failed or (asked > 0 and len(samples) == 0)
                blocks.append(samples if limit is None else samples[: max(limit, 0)])
                count += len(blocks[-1])
        if failed:
            break
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return _with_damage(samples, rate, round(total), failed, layout, max_seconds)


def _with_damage(
    samples: Samples, rate: int, total: int, failed: bool, layout: Layout, max_seconds: float | None
) -> Decoded:
    """Return `samples`, which were decoded from a file's parts, with a text that tells the damage.

    `total` is the number of samples per channel in all parts, decoded or not. `failed` is whether
    the decoder stopped early. Damage after `max_seconds` does not count.
    """
    seconds, after = len(samples) / rate, layout.damaged_after
    if after is not None and (max_seconds is None or after < max_seconds):
        seconds = min(after, seconds) if failed else after
    elif not failed:
        return Decoded(samples, rate, max(total, len(samples)))
    total = max(total, round((layout.promised or 0) * rate))
    return Decoded(samples, rate, total, damaged_after(seconds, total / rate))


_QUIET_LOCK = threading.Lock()
_num_quiet = 0
_stderr_before: int | None = None


@cache
def _c_stderr() -> tuple[Any, int] | None:
    """Return C's variable `stderr` and a file that discards; None where it cannot be set."""
    name = {"Darwin": "__stderrp", "Linux": "stderr"}.get(platform.system())
    if name is None or (name == "stderr" and platform.libc_ver()[0] != "glibc"):
        return None
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    discard = library.fopen(os.fsencode(os.devnull), b"w")
    return (ctypes.c_void_p.in_dll(library, name), discard) if discard else None


@contextmanager
def _quiet_c_stderr() -> Iterator[None]:
    """Discard what C code, such as libmpg123, prints to stderr while the context is open."""
    # Only C's variable is changed, so that Python's messages are printed, and threads share it.
    global _num_quiet, _stderr_before
    variable = _c_stderr()
    if variable is None:
        yield
        return
    stderr, discard = variable
    with _QUIET_LOCK:
        _num_quiet += 1
        if _num_quiet == 1:
            _stderr_before, stderr.value = stderr.value, discard
    try:
        yield
    finally:
        with _QUIET_LOCK:
            _num_quiet -= 1
            if _num_quiet == 0:
                stderr.value = _stderr_before
