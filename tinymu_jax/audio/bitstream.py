"""Finds the frames of mp3 files and the pages of Ogg files, whose headers may not tell the length.

Several files that were joined end to end are parts, each of which decodes like a file of its own.
"""

import itertools
import zlib
from functools import lru_cache
from typing import NamedTuple

from tinymu_jax.audio.source import FileBytes

Bytes = bytes | FileBytes
"""Contents of a file, in memory or on the disk."""


class Part(NamedTuple):
    """A stretch of a file that decodes on its own: `header`, then bytes [start, stop) of it."""

    start: int
    stop: int
    header: bytes = b""
    """Bytes that replace those before `start`."""
    num_samples: int = 0
    """Samples per channel of all mp3 frames, without trimming; 0: unknown."""
    has_tag: bool = False
    """Whether an mp3 tag gives the number of frames, so that a shorter result is trimmed."""


class Layout(NamedTuple):
    """The parts of a file, and where it is damaged."""

    parts: list[Part]
    damaged_after: float | None = None
    """Seconds before the first damage; None if there is none in the part that was looked at."""
    promised: float | None = None
    """Seconds that a damaged file's header promises; None: unknown."""


# --- MPEG audio ----------------------------------------------------------------------------------

_BITRATES = {
    # (MPEG version 1, layer): kbit/s
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MIN_FRAME_BYTES = 24
"""Bytes of the smallest frame: 8 kbit/s of 24 kHz."""
_FIRST_FRAME_LIMIT = 65_536
"""Number of bytes, after tags, in which the first frame must be."""


class _Frame(NamedTuple):
    """What an MPEG frame header says."""

    size: int
    """Size in bytes; 0 if it is no header of a frame."""
    rate: int = 0
    num_samples: int = 0
    version_1: bool = False


@lru_cache(maxsize=8192)
def _frame(second: int, third: int) -> _Frame:
    """Read the second and third byte of an MPEG frame header; the first is 0xFF."""
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bitrate, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if second < 0xE0 or version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return _Frame(0)
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _BITRATES[version == 3, layer][bitrate - 1]
    if layer == 1:
        return _Frame(4 * (12 * bits // hertz + padding), hertz, 384, version == 3)
    num_samples = 576 if layer == 3 and version != 3 else 1152
    return _Frame(num_samples // 8 * bits // hertz + padding, hertz, num_samples, version == 3)


def _frame_at(data: Bytes, pos: int) -> _Frame:
    if pos + 4 > len(data) or data[pos] != 0xFF:
        return _Frame(0)
    return _frame(data[pos + 1], data[pos + 2])


def _is_chain(data: Bytes, pos: int, length: int) -> bool:
    """Return whether `length` frames of one format begin at `pos`, or fewer that end the data."""
    first = _frame_at(data, pos)
    for _ in range(length):
        frame = _frame_at(data, pos)
        if not frame.size or frame[1:] != first[1:]:
            return False
        pos += frame.size
        if pos >= len(data):
            return pos == len(data)
    return True


def _next_chain(data: Bytes, pos: int, stop: int, length: int) -> int:
    """Return the first position from `pos` on with a chain of `length` frames; -1 if none."""
    while (pos := data.find(b"\xff", pos, stop)) >= 0:
        if _is_chain(data, pos, length):
            return pos
        pos += 1
    return -1


def _count_frames(data: Bytes, pos: int, first: _Frame) -> tuple[int, int]:
    """Return how many frames of the format of `first` begin at `pos`, and where they end.

    Only frames in one block of data are counted, up to one with a tag.
    """
    block, at, count, kind = data[pos : pos + 65_536], 0, 0, first[1:]
    while at + 64 <= len(block) and block[at] == 0xFF:
        frame = _frame(block[at + 1], block[at + 2])
        if frame[1:] != kind or not frame.size or at + frame.size > len(block):
            break
        if not any(block[at + 6 : at + 13]) and _read_tag(block, at):
            break
        at += frame.size
        count += 1
    return count, pos + at


def skip_tags(data: Bytes, pos: int) -> int:
    """Return the position after the ID3, APE and Lyrics3 tags at `pos`."""
    while True:
        head = data[pos : pos + 32]
        if head[:3] == b"ID3" and len(head) >= 10:
            size = [byte & 127 for byte in head[6:10]]
            pos += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
            pos += 10 if head[5] & 16 else 0
        elif head[:3] == b"TAG":
            pos += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            is_header = head[23] & 32
            pos += 32 + (int.from_bytes(head[12:16], "little") if is_header else 0)
        elif head[:11] == b"LYRICSBEGIN":
            end = data.find(b"LYRICS200", pos)
            pos = end + 9 if end >= 0 else len(data)
        else:
            return pos


class _Tag(NamedTuple):
    """A Xing, Info or VBRI tag in the first frame of a file: how many frames and bytes follow."""

    count_at: int
    """Offset of the number of frames in the file."""
    num_frames: int
    num_bytes: int
    """Number of bytes from the start of the tag's frame; 0: unknown."""


def _read_tag(data: Bytes, pos: int) -> _Tag | None:
    """Return the tag in the frame at `pos`; None if it has none or one without a count."""
    head = data[pos : pos + 64]
    if any(head[6:13]):  # The side information of a tag's frame is zero.
        return None
    for name in (b"Xing", b"Info"):
        at = head.find(name, 4, 46)
        if at >= 0 and len(head) >= at + 16:
            if not head[at + 7] & 1:
                return None
            size = int.from_bytes(head[at + 12 : at + 16], "big") if head[at + 7] & 2 else 0
            return _Tag(pos + at + 8, int.from_bytes(head[at + 8 : at + 12], "big"), size)
    if head[36:40] == b"VBRI":
        return _Tag(pos + 50, int.from_bytes(head[50:54], "big"), 0)
    return None


class _Run:
    """Consecutive frames of one format; before them may be a frame with a tag."""

    def __init__(self, data: Bytes, pos: int) -> None:
        self.data, self.start, self.stop = data, pos, pos
        self.frame, self.tag, self.num_frames = _frame_at(data, pos), _read_tag(data, pos), 0
        if self.tag:
            self.stop = pos + self.frame.size
        self.body = self.stop

    def exceeds_tag(self) -> bool:
        """Return whether the run has more frames than its tag says."""
        return self.tag is not None and self.num_frames > self.tag.num_frames + 1

    def part(self) -> Part:
        """Return the run as a part; `header` corrects the tag if its number of frames is wrong."""
        size = self.num_frames * self.frame.num_samples
        if self.tag is None or abs(self.tag.num_frames - self.num_frames) <= 1:
            return Part(self.start, self.stop, b"", size, self.tag is not None)
        header = bytearray(self.data[self.start : self.body])
        at = self.tag.count_at - self.start
        header[at : at + 4] = self.num_frames.to_bytes(4, "big")
        return Part(self.body, self.stop, bytes(header), size, True)


def scan_mpeg(data: Bytes, seconds: float | None = None) -> Layout | None:
    """Find the frames of an mp3 file; return None if `data` is not an mp3 file.

    Damage is searched for in the first `seconds` seconds (None: everywhere). The parts are those of
    the whole file in any case.
    """
    first = skip_tags(data, 0)
    pos = _next_chain(data, first, first + _FIRST_FRAME_LIMIT, 3)
    if pos < 0:
        return None
    runs, damaged_after, done = [_Run(data, pos)], None, 0.0
    pos = runs[0].body
    trusted = _is_whole(data, runs[0])
    while pos < len(data):
        run = runs[-1]
        count, pos = _count_frames(data, pos, run.frame)
        if count:
            run.num_frames += count
            run.stop = pos
            is_enough = seconds is not None and _seconds(run) > seconds + 1
            if trusted and is_enough and not run.exceeds_tag():
                return Layout([Part(run.start, len(data))])
            continue
        frame = _frame_at(data, pos)
        if frame.size and pos + frame.size <= len(data):
            tag = None if any(data[pos + 6 : pos + 13]) else _read_tag(data, pos)
            if tag or frame[1:] != run.frame[1:]:
                done += _seconds(run)
                if not run.num_frames:
                    runs.pop()
                runs.append(_Run(data, pos))
                pos = runs[-1].body
                if tag:
                    continue
                run = runs[-1]
            run.num_frames += 1
            run.stop = pos = pos + frame.size
            continue
        skipped = skip_tags(data, pos)
        following = _next_chain(data, skipped, len(data), 2)
        if following < 0:
            break
        if following > skipped and damaged_after is None:
            damaged_after = done + _seconds(run)
        if skipped > pos:
            done += _seconds(run)
            runs.append(_Run(data, following))
            pos = runs[-1].body
        else:
            pos = following
    return _mpeg_layout(runs, damaged_after)


def _mpeg_layout(runs: list[_Run], damaged_after: float | None) -> Layout:
    """Return the layout of a file that consists of `runs`.

    `damaged_after` is the time in seconds of the damage found between frames, or None. Without any,
    the file is damaged after the first run that has fewer frames than its tag says.
    """
    runs = [run for run in runs if run.num_frames]
    seconds = [_seconds(run) for run in runs]
    missing = [
        max(0, run.tag.num_frames - run.num_frames - 1) * run.frame.num_samples / run.frame.rate
        if run.tag
        else 0.0
        for run in runs
    ]
    for number in range(len(runs)):
        if damaged_after is None and missing[number]:
            damaged_after = sum(seconds[: number + 1])
    promised = sum(seconds) + sum(missing) if sum(missing) else None
    return Layout([run.part() for run in runs], damaged_after, promised)


def _seconds(run: _Run) -> float:
    return run.num_frames * run.frame.num_samples / run.frame.rate


def _is_whole(data: Bytes, run: _Run) -> bool:
    """Return whether `data` has as many bytes as the tag of `run` says, not counting end tags.

    The number of frames that the tag says must be possible in these bytes, too.
    """
    if run.tag is None or not run.tag.num_bytes:
        return False
    if run.tag.num_frames * _MIN_FRAME_BYTES > len(data):
        return False
    stop = run.start + run.tag.num_bytes
    return abs(len(data) - stop) <= 2 * run.frame.size or skip_tags(data, stop) >= len(data) - 1


def xing_header(data: Bytes, part: Part) -> bytes:
    """Return an mp3 frame with a Xing tag that gives the number of frames in `part`."""
    frame = _frame_at(data, part.start)
    second, third, fourth = data[part.start + 1 : part.start + 4]
    third = 9 << 4 | third & 0x0C
    header = bytearray(_frame(second | 1, third).size)
    header[:4] = 0xFF, second | 1, third, fourth
    mono = fourth >> 6 == 3
    at = 4 + ((17 if mono else 32) if frame.version_1 else (9 if mono else 17))
    count = part.num_samples // frame.num_samples
    header[at : at + 12] = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return bytes(header)


# --- Ogg -----------------------------------------------------------------------------------------


class _Page(NamedTuple):
    """What an Ogg page header says."""

    size: int
    """Size in bytes with the header; beyond the data if the page is incomplete."""
    begins: bool
    """Whether a stream begins with the page."""
    granule: int
    """Samples per channel up to the end of the page; -1: no packet ends in it."""
    serial: bytes
    """Which stream the page belongs to."""


_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _page_at(data: Bytes, pos: int) -> _Page | None:
    head = data[pos : pos + 27]
    if len(head) < 27 or head[:4] != b"OggS":
        return None
    body = 27 + head[26]
    size = body + sum(data[pos + 27 : pos + body])
    granule = int.from_bytes(head[6:14], "little", signed=True)
    return _Page(size, bool(head[5] & 2), granule, head[14:18])


def _is_intact(data: Bytes, pos: int, size: int) -> bool:
    """Return whether an Ogg page has the checksum that its header says."""
    page = bytearray(data[pos : pos + size])
    stored = int.from_bytes(page[22:26], "little")
    page[22:26] = bytes(4)
    # Ogg's CRC-32 is zlib's with reversed bits, and without inversion at the start and the end.
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2) == stored


def _ogg_rate(data: Bytes, pos: int) -> int:
    """Return the number of granules per second of the stream that begins at `pos`; 0: unknown."""
    start = pos + 27 + data[pos + 26]
    if data[start : start + 7] == b"\x01vorbis":
        return int.from_bytes(data[start + 12 : start + 16], "little")
    if data[start : start + 5] == b"\x7fFLAC":
        return int.from_bytes(data[start + 27 : start + 30], "big") >> 4
    if data[start : start + 8] == b"Speex   ":
        return int.from_bytes(data[start + 36 : start + 40], "little")
    return 48_000 if data[start : start + 8] == b"OpusHead" else 0


def _ogg_audio(data: Bytes, pos: int) -> tuple[int, bytes]:
    """Return the granules per second, and the serial number, of the first audio stream.

    The first pages of all streams that are stored together, such as a video's, begin at `pos`. The
    number of granules is 0 if it is unknown; the serial number is then that of the first stream.
    """
    first = page = _page_at(data, pos)
    while page is not None and page.begins:
        rate = _ogg_rate(data, pos)
        if rate:
            return rate, page.serial
        pos += page.size
        page = _page_at(data, pos)
    return 0, b"" if first is None else first.serial


def scan_ogg(data: Bytes, seconds: float | None = None) -> Layout | None:
    """Find the pages of an Ogg file and the streams that follow each other in it.

    Damage is looked for in the first `seconds` seconds (None: everywhere). Returns None if the data
    is no Ogg file.
    """
    if _page_at(data, 0) is None:
        return None
    single = _is_one_stream(data)
    starts, pos = [0], 0
    rate, serial = _ogg_audio(data, 0)
    done = last = 0.0
    damaged_after, in_headers = None, True
    while pos < len(data):
        page = _page_at(data, pos)
        if page is None or pos + page.size > len(data) or not _is_intact(data, pos, page.size):
            following = data.find(b"OggS", pos + 1)
            is_audio = following >= 0 if page is None else page.serial == serial or not rate
            if damaged_after is None and is_audio:
                damaged_after = done + last
            if following < 0:
                break
            pos = following
            continue
        if page.begins and not in_headers:
            starts.append(pos)
            done, last = done + last, 0.0
            new_rate, serial = _ogg_audio(data, pos)
            rate = new_rate or rate
        in_headers = page.begins
        if rate and page.granule > 0 and page.serial == serial:
            last = page.granule / rate
        pos += page.size
        if single and seconds is not None and rate and done + last > seconds + 1:
            break
    return Layout(_parts_from(starts, data), damaged_after)


def _is_one_stream(data: Bytes) -> bool:
    """Return whether no new stream begins after the one or several with which the data begins."""
    pos = 0
    while (page := _page_at(data, pos)) is not None and page.begins:
        pos += page.size
    return data.find(b"OggS\0\2", pos) < 0


# --- wav and FLAC --------------------------------------------------------------------------------


def split_wav(data: Bytes) -> list[Part]:
    """Return one part for each wav file of those joined into one file; other data is one part."""
    starts, pos = [], skip_tags(data, 0)
    while data[pos : pos + 4] == b"RIFF":
        starts.append(pos)
        size = int.from_bytes(data[pos + 4 : pos + 8], "little")
        pos += 8 + size + size % 2
    parts = _parts_from(starts, data)
    # libsndfile would not read as many bytes of the samples as are in a tag before them.
    return parts if len(parts) == 1 else [parts[0]._replace(start=starts[0]), *parts[1:]]


def split_flac(data: Bytes) -> list[Part]:
    """Return one part for each of the FLAC files that were joined into one file."""
    starts = []
    for block in (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"):
        pos = -1
        while (pos := data.find(block, pos + 1)) >= 0:
            starts.append(pos)
    return _parts_from(sorted(starts), data)


def _parts_from(starts: list[int], data: Bytes) -> list[Part]:
    """Split the data before each of the positions `starts` but the first; return the parts."""
    edges = [0, *starts[1:], len(data)]
    return [Part(*span) for span in itertools.pairwise(edges)]
