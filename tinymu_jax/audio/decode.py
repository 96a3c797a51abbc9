"""Decodes recordings: with libsndfile, and with FFmpeg (PyAV) what libsndfile cannot read.

What is decoded is believed, not what a header says: files that are longer than their header says
are read to their end, and files that are shorter are damaged.
"""

import ctypes
import io
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.bitstream import (
    Layout,
    Part,
    scan_mpeg,
    scan_ogg,
    split_flac,
    split_wav,
    xing_header,
)
from tinymu_jax.audio.resample import resample
from tinymu_jax.audio.source import Source, open_source
from tinymu_jax.errors import InputError

Samples = Float32[np.ndarray, "n channels"]
UNKNOWN_LENGTH = 2**60
"""libsndfile's number of samples is above this if a header does not tell the length."""
TOLERANCE = 0.15
"""Seconds that a compressed file may be shorter than its header says: encoders' delay."""
ESTIMATED = {"aac", "ac3", "eac3", "mp3", "dts", "dtshd", "mlp", "truehd", "amr", "mpegts", "mpeg"}
"""FFmpeg's names of formats without a length, which it estimates."""
BLOCK = 4096
"""Number of samples per read when the place of damage is looked for."""


class _DecoderError(Exception):
    """libsndfile cannot open or decode a file."""


class Decoded(NamedTuple):
    """A recording, or its start, at its sample rate."""

    samples: Samples
    rate: int
    """Sample rate in Hz."""
    total: int
    """Samples per channel of the whole recording."""
    damage: str | None = None
    """What is wrong with the recording; None if nothing is."""

    @property
    def seconds(self) -> float:
        """Decoded seconds."""
        return len(self.samples) / max(self.rate, 1)


def decode(
    recording: "str | Path | bytes",
    max_seconds: float | None,
    keep_damaged: bool = False,
    name: str = "audio bytes",
) -> Decoded:
    """Decode the first `max_seconds` seconds (None: all) of a recording, without resampling.

    Args:
        recording: a path, "-" (stdin), or the content of a file, which errors call `name`.
        max_seconds: seconds to decode from the start.
        keep_damaged: return what can be read of a damaged recording.
        name: name of a recording that is given by its content.

    Raises:
        InputError: the recording is missing, empty or text, or cannot be decoded; or it is damaged
            in the part to decode, unless `keep_damaged`.
    """
    source = open_source(recording, name)
    decoded = _decode(source, max_seconds, keep_damaged)
    if decoded.damage and not (keep_damaged and len(decoded.samples)):
        remedy = ", or use what can be read with --keep-damaged" if len(decoded.samples) else ""
        raise InputError(f"{source.name}: {decoded.damage}; replace it{remedy}")
    if len(decoded.samples) == 0:
        raise InputError(f"{source.name}: has no samples; replace or skip it")
    return decoded


def audio_length(path: str | Path) -> tuple[int, int]:
    """Return a recording's number of samples per channel and its sample rate, without decoding it.

    Raises:
        InputError: the recording is missing, empty or text, or cannot be decoded.
    """
    decoded = _decode(open_source(path), 0.0)
    return decoded.total, decoded.rate


def _decode(source: Source, max_seconds: float | None, keep_damaged: bool = False) -> Decoded:
    """Decode a recording with the first decoder that can read it; see `decode`."""
    decoded = _decode_with_libsndfile(source, max_seconds)
    if decoded is not None and decoded.total and not (decoded.damage and keep_damaged):
        return decoded
    other = _decode_with_ffmpeg(source, max_seconds)
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
    if other.seconds > decoded.seconds + TOLERANCE:
        total = max(other.total, round(decoded.total * other.rate / decoded.rate))
        return other._replace(total=total, damage=decoded.damage)
    return decoded


def _damaged_after(seconds: float, total: float | None) -> str:
    whole = f" of {total:.1f} s" if total is not None and total > seconds else ""
    return f"damaged after {seconds:.1f} s{whole}"


# --- libsndfile ----------------------------------------------------------------------------------


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
            block = self._data[first : min(stop, first + len(buffer))]
        buffer[: len(block)] = block
        self._pos += len(block)
        return len(block)


def _open_whole(source: Source) -> Any:
    """Open a recording with libsndfile."""
    # The path is passed as bytes, since a file name may be in any encoding.
    return _open_sound(os.fsencode(source.path) if source.path else source.open())


def _open_sound(file: Any) -> Any:
    """Open a file with libsndfile; raise `_DecoderError` if it cannot read it."""
    import soundfile

    try:
        return soundfile.SoundFile(file)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _DecoderError(str(error)) from error


def _open_part(source: Source, part: Part, is_whole: bool) -> tuple[Any, int]:
    """Open a part of a recording with libsndfile; return it and its number of samples."""
    file = _open_whole(source) if is_whole else _open_sound(_View(source, part))
    if not part.num_samples or part.header:
        return file, file.frames
    if file.frames < part.num_samples and not _has_trimmed(file.frames, part):
        file.close()
        part = part._replace(header=xing_header(source.data, part))
        file = _open_sound(_View(source, part))
    return file, min(file.frames, part.num_samples)


def _has_trimmed(num_samples: int, part: Part) -> bool:
    """Return whether a part is shorter than its mp3 frames only by the encoder's delay."""
    return num_samples > part.num_samples - 8 * 1152 and part.num_samples > 8 * 1152


def _decode_with_libsndfile(source: Source, max_seconds: float | None) -> Decoded | None:
    """Decode a recording with libsndfile; return None if it cannot, or not reliably."""
    with suppress(_DecoderError), _quiet_c_stderr():
        layout: Layout | None = Layout(split_wav(source.data))
        if len(layout.parts) == 1:
            with _open_whole(source) as file:
                kind, frames = file.format, file.frames
                if kind in ("MP3", "OGG"):
                    layout = (scan_mpeg if kind == "MP3" else scan_ogg)(source.data, max_seconds)
                elif frames > UNKNOWN_LENGTH:
                    return None
                else:
                    decoded = _read_whole(source, file, max_seconds)
                    if kind != "FLAC" or decoded.damage or len(decoded.samples) < frames:
                        return decoded
                    layout = Layout(split_flac(source.data))
        return layout and _read_parts(source, layout, max_seconds)
    return None


def _read_whole(source: Source, file: Any, max_seconds: float | None) -> Decoded:
    """Read a file whose header tells its length."""
    rate, total = file.samplerate, file.frames
    wanted = total if max_seconds is None else min(total, int(max_seconds * rate))
    samples, failed = _read(file, wanted, lambda: _open_whole(source))
    promised = total if failed else _promised_samples(file)
    damage = None
    if failed or (len(samples) == total and max_seconds != 0 and promised > total):
        asked = promised if max_seconds is None else min(promised, int(max_seconds * rate))
        if len(samples) < asked:
            damage = _damaged_after(len(samples) / rate, promised / rate)
    return Decoded(samples, rate, max(total, promised) if damage else total, damage)


def _promised_samples(file: Any) -> int:
    """Return how many samples the header of a cut file promises, or else how many there are."""
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


def _read(file: Any, frames: int, reopen: Callable[[], Any]) -> tuple[Samples, bool]:
    """Read samples up to an error of the decoder; return them, and whether there was one.

    After an error, the file is opened again, and read in small blocks.
    """
    try:
        return file.read(frames, dtype="float32", always_2d=True), False
    except RuntimeError:
        blocks = [np.zeros((0, file.channels), np.float32)]
    with reopen() as file, suppress(RuntimeError):
        while sum(map(len, blocks)) < frames:
            blocks.append(file.read(BLOCK, dtype="float32", always_2d=True))
            if not len(blocks[-1]):
                break
    return np.concatenate(blocks)[:frames], True


def _read_parts(source: Source, layout: Layout, max_seconds: float | None) -> Decoded:
    """Read an mp3 or Ogg file part by part; later parts take the sample rate of the first."""
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
            wanted = None if max_seconds is None else int(max_seconds * rate) - count
            if not blocks or wanted is None or wanted > 0:
                asked = length if wanted is None else min(length, -(-wanted * part_rate // rate))
                reopen = partial(_open_part, source, part, is_whole)
                samples, stopped = _read(file, asked, lambda reopen=reopen: reopen()[0])
                failed = failed or stopped or len(samples) < asked - TOLERANCE * part_rate
                samples = _as_format(samples, part_rate, rate, channels)
                blocks.append(samples if wanted is None else samples[: max(wanted, 0)])
                count += len(blocks[-1])
        if failed:
            break
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return _with_damage(samples, rate, round(total), failed, layout, max_seconds)


def _with_damage(
    samples: Samples, rate: int, total: int, failed: bool, layout: Layout, max_seconds: float | None
) -> Decoded:
    """Return decoded parts with what is wrong in them; `failed`: the decoder stopped early."""
    seconds, after = len(samples) / rate, layout.damaged_after
    if after is not None and (max_seconds is None or after < max_seconds):
        seconds = min(after, seconds) if failed else after
    elif not failed:
        return Decoded(samples, rate, max(total, len(samples)))
    total = max(total, round((layout.promised or 0) * rate))
    return Decoded(samples, rate, total, _damaged_after(seconds, total / rate))


def _as_format(samples: Samples, rate: int, new_rate: int, channels: int) -> np.ndarray:
    """Convert samples to another sample rate and number of channels: (n, channels) float32."""
    if rate != new_rate and len(samples):
        columns = [resample(np.ascontiguousarray(c), rate, new_rate) for c in samples.T]
        samples = np.stack(columns, axis=1)
    if samples.shape[1] != channels:
        # The first channel, as often as needed: right for mono, and the one that TinyMU uses.
        samples = np.repeat(samples[:, :1], channels, axis=1)
    return samples


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


# --- FFmpeg --------------------------------------------------------------------------------------


def _decode_with_ffmpeg(source: Source, max_seconds: float | None) -> Decoded | None:
    """Decode a recording with FFmpeg; return None if it cannot."""
    import av

    av.logging.set_level(None)
    try:
        with source.open() as file, _open_container(file) as container:
            if not container.streams.audio:
                raise InputError(f"{source.name}: has no audio; name a recording")
            length = _ffmpeg_length(container, source.size)
        with source.open() as file, _open_container(file) as container:
            return _read_container(container, max_seconds, length)
    except (av.error.FFmpegError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        return None


def _open_container(file: Any) -> Any:
    import av

    # Playlists and the like must not make FFmpeg open other files or addresses.
    options = {"protocol_whitelist": "none", "err_detect": "crccheck"}
    return av.open(file, options=options, metadata_errors="replace")


def _ffmpeg_length(container: Any, size: int) -> tuple[float, float]:
    """Return the seconds that a container's audio promises, and those that its bytes hold."""
    stream = container.streams.audio[0]
    start = max(stream.start_time or 0, 0)
    promised = stream.duration or 0
    if not promised and container.duration and stream.time_base:
        promised = round(container.duration / 1e6 / stream.time_base)
    entries = stream.index_entries
    whole = [e for e in (entries[-1:] if len(entries) else []) if e.pos + e.size > size]
    if whole:
        # The file is cut: its index names packets beyond its end.
        present = [entry.timestamp for entry in entries if entry.pos + entry.size <= size]
        held = max(present, default=0)
    else:
        held = (_last_packet_end(container, stream) or promised + start) - start
        promised = held if container.format.name in ESTIMATED else max(promised, held)
    unit = float(stream.time_base or 0)
    return promised * unit, held * unit


def _last_packet_end(container: Any, stream: Any) -> int | None:
    """Return the time at which the last packet of a stream ends, in the stream's unit."""
    import av

    end = None
    try:
        container.seek(2**50, stream=stream)
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                end = max(end or 0, packet.pts + (packet.duration or 0))
    except (av.error.FFmpegError, EOFError):
        pass
    return end


def _read_container(
    container: Any, max_seconds: float | None, length: tuple[float, float]
) -> Decoded | None:
    """Decode the first audio stream of a container, and skip packets that cannot be decoded."""
    import av

    stream = container.streams.audio[0]
    stream.thread_type = "NONE"
    blocks, rate, channels, count = [], 0, 0, 0
    wanted = first_error = first_gap = None
    packets = container.demux(stream)
    while wanted is None or count < wanted:
        try:
            packet = next(packets)
            frames = packet.decode()
            if packet.is_corrupt and first_error is None:
                first_error = count
        except StopIteration:
            break
        except (av.error.FFmpegError, EOFError) as error:
            first_error = count if first_error is None else first_error
            if isinstance(error, EOFError) or not blocks:
                break
            continue
        for frame in frames:
            block = _frame_samples(frame)
            if not rate:
                rate, channels = frame.sample_rate, block.shape[1]
                wanted = None if max_seconds is None else int(max_seconds * rate)
                start = frame.time or 0.0
            if first_gap is None and (frame.time or 0.0) - start > count / rate + TOLERANCE:
                first_gap = count
            block = _as_format(block, frame.sample_rate, rate, channels)
            blocks.append(block)
            count += len(block)
    if not blocks:
        return None
    samples = np.concatenate(blocks)[:wanted]
    at_end = wanted is None or count < wanted
    promised, held = (round(seconds * rate) for seconds in length)
    total = count if at_end else max(held, count)
    asked = promised if wanted is None else min(promised, wanted)
    # A gap alone is no damage: some programs record nothing while it is silent.
    is_short = count < asked - TOLERANCE * rate
    failed_at = None if not is_short else count if first_gap is None else first_gap
    if first_error is not None:
        failed_at = first_error
    if failed_at is None or failed_at >= (wanted or failed_at + 1):
        return Decoded(samples, rate, total)
    total = max(total, promised)
    return Decoded(samples, rate, total, _damaged_after(failed_at / rate, total / rate))


def _frame_samples(frame: Any) -> Samples:
    """Return the samples of FFmpeg's frame as floats; full scale is 1."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, len(frame.layout.channels))
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype.kind == "i":
        return (array / 2.0 ** (8 * array.dtype.itemsize - 1)).astype(np.float32)
    return array.astype(np.float32)
