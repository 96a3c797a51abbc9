"""Tells from the headers of wav, AIFF, CAF, AU and mp4 files whether samples follow their end."""

import re
from typing import Literal, NamedTuple

from tinymu_jax.audio.bitstream import Bytes, skip_tags


class _ChunkFormat(NamedTuple):
    """How the chunks of a file are stored."""

    start: int
    """Offset of the first chunk."""
    size_bytes: int
    """Bytes of a chunk's size."""
    order: Literal["little", "big"]


_CHUNKS = {
    b"RIFF": _ChunkFormat(12, 4, "little"),
    b"RF64": _ChunkFormat(12, 4, "little"),
    b"FORM": _ChunkFormat(12, 4, "big"),
    b"caff": _ChunkFormat(8, 8, "big"),
}
"""First bytes of a file -> how its chunks are stored."""
_SECOND_HEADER = re.compile(rb"(RIFF|RF64)....WAVE|FORM....AIF[FC]|caff\0\1|\.snd\0\0", re.DOTALL)
_MIN_PADDING = 64
"""Least number of equal bytes, other than zeros, that are padding."""


def type_of(data: Bytes) -> bytes:
    """Return the four bytes that name the type of a file, after the tags that may precede them."""
    start = skip_tags(data, 0)
    return data[start : start + 4]


def count_bytes_after_end(data: Bytes) -> int:
    """Return how many bytes follow what the header of a wav, AIFF, CAF, AU or mp4 file describes.

    Tags and padding do not count. The result is 0 for other files, and for files that are cut.
    """
    start = skip_tags(data, 0)
    name = data[start : start + 4]
    if name in _CHUNKS:
        return _count_after_chunks(data, start)
    if data[4:8] == b"ftyp":
        pos = _end_of_boxes(data)
    elif name == b".snd":
        offset, size = data[start + 4 : start + 8], data[start + 8 : start + 12]
        pos = start + int.from_bytes(offset, "big") + int.from_bytes(size, "big")
    else:
        return 0
    end = _skip_padding(data, pos)
    skipped = skip_tags(data, end)
    return 0 if skipped > end and not _has_header(data, skipped) else max(0, len(data) - end)


class _Chunk(NamedTuple):
    """A chunk of a file."""

    name: bytes
    body: int
    """Where its content begins."""
    size: int
    """Bytes of its content."""

    @property
    def holds_samples(self) -> bool:
        return self.name in (b"data", b"SSND")


def _chunk_at(data: Bytes, pos: int, kind: _ChunkFormat, start: int) -> _Chunk | None:
    """Return the chunk at `pos` of the file that begins at `start`; None: its name is no name."""
    name, body = data[pos : pos + 4], pos + 4 + kind.size_bytes
    text = name.rstrip(b"\0").decode("latin-1")
    if body > len(data) or len(text) < 3 or not (text.isascii() and text.isprintable()):
        return None
    size = int.from_bytes(data[pos + 4 : body], kind.order)
    if name == b"data" and size == 0xFFFFFFFF and data[start + 12 : start + 16] == b"ds64":
        size = int.from_bytes(data[start + 28 : start + 36], "little")
    return _Chunk(name, body, size)


def _container_end(data: Bytes, start: int) -> int | None:
    """Return where a wav or AIFF file ends by the size in its header; None for a CAF file."""
    if data[start : start + 4] == b"caff":
        return None
    size = int.from_bytes(data[start + 4 : start + 8], _CHUNKS[data[start : start + 4]].order)
    if data[start + 12 : start + 16] == b"ds64":
        size = int.from_bytes(data[start + 20 : start + 28], "little")
    return start + 8 + size + size % 2


def _next_chunk(data: Bytes, last: _Chunk, kind: _ChunkFormat, start: int) -> int:
    """Return where the chunk after `last` begins, or where there is something else.

    Chunks of wav and AIFF files have an even number of bytes, but not all programs do so; zeros may
    be between chunks.
    """
    stop = last.body + last.size
    if kind.size_bytes == 4 and last.size % 2:
        after = _chunk_at(data, stop + 1, kind, start)
        if stop + 1 == len(data) or (after and after.body + after.size <= len(data)):
            return stop + 1
    return _skip_padding(data, stop)


def _count_after_chunks(data: Bytes, start: int) -> int:
    """Return how many bytes follow the samples of a file that begins at `start` and has chunks.

    They count if the size of the samples is not that of the whole, or if another file follows. The
    result is 0 if a chunk is cut, or if the samples are not reached.
    """
    kind, end = _CHUNKS[data[start : start + 4]], _container_end(data, start)
    pos, samples_end, num_after = start + kind.start, None, 0
    while True:
        joined = data[start : start + 4] == data[pos : pos + 4] == b"RIFF" and pos == end
        if joined and samples_end is not None:  # wav files, which are read part by part
            start, end, samples_end, num_after = pos, _container_end(data, pos), None, 0
            pos += kind.start
            continue
        chunk = None if data[pos : pos + 4] in _CHUNKS else _chunk_at(data, pos, kind, start)
        if chunk is None or (samples_end is not None and chunk.body + chunk.size > len(data)):
            break
        if chunk.body + chunk.size > len(data) or (chunk.holds_samples and not chunk.size):
            return 0
        if samples_end is not None:
            num_after += 1
        elif chunk.holds_samples:
            samples_end = chunk.body + chunk.size
        pos = _next_chunk(data, chunk, kind, start)
    if samples_end is None:
        return 0
    skipped = skip_tags(data, pos)
    agrees = end is not None and samples_end - 16 <= end <= pos + 16 and len(data) - end < 2**32
    if (agrees or num_after or skipped > pos) and not _has_header(data, skipped):
        return 0
    return len(data) - pos


def _skip_padding(data: Bytes, pos: int) -> int:
    """Return the position after the zeros at `pos`, or after many bytes of another value."""
    byte, stop = data[pos : pos + 1], pos
    while block := data[stop : stop + 65_536]:
        rest = len(block.lstrip(byte))
        stop += len(block) - rest
        if rest:
            break
    return stop if byte == b"\0" or stop - pos >= _MIN_PADDING else pos


def _has_header(data: Bytes, pos: int) -> bool:
    """Return whether another sound file begins at `pos` or later."""
    while block := data[pos : pos + 65_536]:
        if _SECOND_HEADER.search(block):
            return True
        pos += max(1, len(block) - 11) if len(block) == 65_536 else len(block)
    return False


def _end_of_boxes(data: Bytes) -> int:
    """Return where the boxes of an mp4 file end, or where another mp4 file begins after them."""
    pos = 0
    while pos + 8 <= len(data) and not (pos and data[pos + 4 : pos + 8] == b"ftyp"):
        size = int.from_bytes(data[pos : pos + 4], "big")
        if size == 1:
            size = int.from_bytes(data[pos + 8 : pos + 16], "big")
        if size < 8:  # 0: to the end of the file
            return len(data)
        pos += size
    return min(pos, len(data))
