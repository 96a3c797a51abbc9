"""Decodes recordings with FFmpeg (PyAV): m4a, aac, webm, mp4, wma, ac3 and the like."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.audio.bitstream import scan_ogg
from tinymu_jax.audio.decoded import TOLERANCE, Decoded, Samples, as_format, damaged_after
from tinymu_jax.audio.source import Source, open_source
from tinymu_jax.errors import InputError

ESTIMATED = {"aac", "ac3", "eac3", "mp3", "dts", "dtshd", "mlp", "truehd", "amr", "mpegts", "mpeg"}
"""FFmpeg's names of formats without a length, which it estimates."""
STREAM_BLOCK = 2**18
"""Least number of samples per channel in a block of a stream."""


def decode_with_ffmpeg(source: Source, max_seconds: float | None) -> Decoded | None:
    """Decode a recording with FFmpeg; return None if it cannot."""
    import av

    av.logging.set_level(None)
    try:
        with source.open() as file, open_container(file) as container:
            if not container.streams.audio:
                raise InputError(f"{source.name}: has no audio; name a recording")
            length = _ffmpeg_length(container, source.size)
        with source.open() as file, open_container(file) as container:
            decoded = _read_container(container, max_seconds, length)
    except (av.error.FFmpegError, EOFError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        return None
    return decoded and _with_page_damage(source, decoded, max_seconds)


def stream_with_ffmpeg(source: Source) -> Iterator[Samples | None]:
    """Decode a recording in blocks, the last of which is None if the rest cannot be decoded."""
    import av

    av.logging.set_level(None)
    rate = channels = count = 0
    blocks: list[Samples] = []
    errors = (av.error.FFmpegError, EOFError, IndexError, ValueError)
    try:
        with source.open() as file, open_container(file) as container:
            stream = container.streams.audio[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                block = _frame_samples(frame)
                if not rate:
                    rate, channels = frame.sample_rate, block.shape[1]
                blocks.append(as_format(block, frame.sample_rate, rate, channels))
                count += len(blocks[-1])
                if count >= STREAM_BLOCK:
                    yield np.concatenate(blocks)
                    blocks, count = [], 0
    except errors:
        yield from blocks
        yield None
        return
    yield from blocks


def container_seconds(source: Source) -> tuple[float, float]:
    """Return how many seconds of audio a container declares, and how many its packets hold.

    Both are 0 if FFmpeg cannot read the recording, or it has no audio.
    """
    import av

    av.logging.set_level(None)
    try:
        with source.open() as file, open_container(file) as container:
            return _ffmpeg_length(container, source.size) if container.streams.audio else (0.0, 0.0)
    except (av.error.FFmpegError, EOFError, IndexError, ValueError):
        return 0.0, 0.0


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the tags that FFmpeg finds in a recording, such as genre and artist; {} if none."""
    import av

    av.logging.set_level(None)
    try:
        with open_source(path).open() as file, open_container(file) as container:
            tags = [*(stream.metadata for stream in container.streams.audio), container.metadata]
            return {key.lower(): value for group in tags for key, value in group.items()}
    except (av.error.FFmpegError, EOFError, IndexError, InputError):
        return {}


class _File:
    """A file for PyAV. Seeking to an impossible place, as of a broken header, gives -1.

    It has no name, by which FFmpeg would take any bytes for samples (.gsm, .g722 and the like).
    """

    def __init__(self, file: Any) -> None:
        self._file, self.read, self.tell = file, file.read, file.tell

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def open_container(file: Any) -> Any:
    """Open a file object with PyAV; what its content names is not opened."""
    import av

    # Playlists and the like must not make FFmpeg open other files or addresses.
    options = {"protocol_whitelist": "none", "err_detect": "crccheck"}
    return av.open(_File(file), options=options, metadata_errors="replace")


def _ffmpeg_length(container: Any, size: int) -> tuple[float, float]:
    """Return how many seconds of audio a container declares, and how many its `size` bytes hold."""
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
    except (av.error.FFmpegError, EOFError, IndexError):
        pass
    return end


def _read_container(
    container: Any, max_seconds: float | None, length: tuple[float, float]
) -> Decoded | None:
    """Decode the first audio stream of a container, and skip packets that cannot be decoded."""
    import av

    stream = container.streams.audio[0]
    if stream.codec_context is None:  # an unknown codec
        return None
    stream.thread_type = "NONE"
    is_pcm = stream.codec_context.name.startswith("pcm_")
    blocks, rate, channels, count = [], 0, 0, 0
    limit = first_error = first_gap = None
    packets = container.demux(stream)
    while limit is None or count < limit:
        try:
            packet = next(packets)
            frames = packet.decode()
            # FFmpeg takes the last packet of uncompressed samples for corrupt if it is short.
            if packet.is_corrupt and first_error is None and not is_pcm:
                first_error = count
        except StopIteration:
            break
        except (av.error.FFmpegError, EOFError, IndexError) as error:
            # IndexError: PyAV meets a stream that the header did not announce.
            first_error = count if first_error is None else first_error
            if isinstance(error, EOFError) or not blocks:
                break
            continue
        for frame in frames:
            block = _frame_samples(frame)
            if not rate:
                rate, channels = frame.sample_rate, block.shape[1]
                limit = None if max_seconds is None else int(max_seconds * rate)
                start = frame.time or 0.0
            if first_gap is None and (frame.time or 0.0) - start > count / rate + TOLERANCE:
                first_gap = count
            block = as_format(block, frame.sample_rate, rate, channels)
            blocks.append(block)
            count += len(block)
    if not blocks:
        return None
    samples = np.concatenate(blocks)[:limit]
    return _with_length(samples, rate, limit, length, (first_error, first_gap, count))


def _with_length(
    samples: Samples,
    rate: int,
    limit: int | None,
    length: tuple[float, float],
    places: tuple[int | None, int | None, int],
) -> Decoded:
    """Return decoded samples with the recording's length, and with its damage if there is any.

    Args:
        samples: the samples, at most `limit` (None: any number) per channel.
        rate: sample rate in Hz.
        limit: number of samples per channel that were asked for; None: all.
        length: result of `_ffmpeg_length`.
        places: numbers of samples before the first error, before the first gap (None: there is
            none), and of all packets that were read.
    """
    first_error, first_gap, count = places
    at_end = limit is None or count < limit
    promised, held = (round(seconds * rate) for seconds in length)
    total = count if at_end else max(held, count)
    asked = promised if limit is None else min(promised, limit)
    # A gap alone is no damage: some programs record nothing while it is silent.
    is_short = count < asked - TOLERANCE * rate
    failed_at = None if not is_short else count if first_gap is None else first_gap
    if first_error is not None:
        failed_at = first_error
    if failed_at is None or failed_at >= (limit or failed_at + 1):
        return Decoded(samples, rate, total)
    total = max(total, promised)
    return Decoded(samples, rate, total, damaged_after(failed_at / rate, total / rate))


def _with_page_damage(source: Source, decoded: Decoded, max_seconds: float | None) -> Decoded:
    """Return what was decoded with the damage of an Ogg file's pages, which FFmpeg passes over."""
    layout = scan_ogg(source.data, max_seconds)
    after = None if layout is None else layout.damaged_after
    if after is None or (max_seconds is not None and after >= max_seconds):
        return decoded
    return decoded._replace(damage=damaged_after(after, decoded.total / decoded.rate))


def _frame_samples(frame: Any) -> Samples:
    """Return the samples of FFmpeg's frame as floats; full scale is 1."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, len(frame.layout.channels))
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype.kind == "i":
        return (array / 2.0 ** (8 * array.dtype.itemsize - 1)).astype(np.float32)
    return array.astype(np.float32)
