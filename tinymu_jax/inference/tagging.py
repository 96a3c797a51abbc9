"""Tags of recordings over windows with times, written as they are found and gone on with."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.errors import InputError
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.utils.files import exists, make_folder, read_text, write_text

COLUMNS = ("file", "start", "end", "tag", "probability")

TOGETHER = 32
"""Windows that are heard together."""

SHORTEST = 0.5
"""Seconds that the last window has at least; what is left of a recording beyond is not tagged."""


class Window(NamedTuple):
    """A stretch of a recording and its tags, the most probable first."""

    start: float
    end: float
    tags: list[tuple[str, float]]


def tag_windows(
    model: Embedder, recording: str | Path, seconds: float, hop: float, top: int
) -> list[Window]:
    """Returns the tags of each window of a recording.

    Args:
        model: with a head.
        recording: its path.
        seconds: of a window.
        hop: seconds from one window's start to the next one's.
        top: how many tags.

    Raises:
        InputError: as `tinymu_jax.audio.load.read_clip`; the model has no head.
    """
    clip = read_clip(recording, model.max_seconds)
    size, step = (round(x * SAMPLE_RATE) for x in (seconds, hop))
    least = min(round(SHORTEST * SAMPLE_RATE), len(clip.samples))
    starts = [s for s in range(0, len(clip.samples), step) if len(clip.samples) - s >= least]
    tags = [
        own
        for first in range(0, len(starts), TOGETHER)
        for own in model.tag_all(
            [clip.samples[start : start + size] for start in starts[first : first + TOGETHER]], top
        )
    ]
    rate = SAMPLE_RATE
    ends = [min(start + size, len(clip.samples)) for start in starts]
    return [Window(s / rate, e / rate, own) for s, e, own in zip(starts, ends, tags, strict=True)]


class TagFile:
    """A csv or jsonl of tags; recordings that are in it already are not tagged again."""

    def __init__(self, path: Path) -> None:
        """Opens it, or begins it. What a kill may have cut short, the last recording, is dropped.

        Raises:
            InputError: another suffix, a file that holds something else, or no place to write.
        """
        if path.suffix not in (".csv", ".jsonl"):
            raise InputError(f"{path}: name a file that ends in .csv or .jsonl")
        self.path, self.done = path, set()
        make_folder(path.parent)
        header = ",".join(COLUMNS) + "\n" if path.suffix == ".csv" else ""
        kept = header
        if exists(path):
            kept = self._whole(read_text(path, "name another file"), header)
        write_text(path, kept)

    def _whole(self, text: str, header: str) -> str:
        """Returns the lines of all recordings but the last, which are noted as done."""
        lines = text.splitlines(keepends=True)
        if header and lines[:1] not in ([header], []):
            raise InputError(f"{self.path}: holds something else than tags; name another file")
        lines = lines[bool(header) :]
        named = [self._file(line) for line in lines if line.endswith("\n")]
        last = named[-1] if named else None
        self.done = set(named) - {last}
        return header + "".join(
            line for name, line in zip(named, lines, strict=False) if name != last
        )

    def _file(self, line: str) -> str:
        """Returns the recording of a line."""
        try:
            if self.path.suffix == ".csv":
                return next(csv.reader([line]))[0]
            return json.loads(line)["file"]
        except (ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
            raise InputError(
                f"{self.path}: holds something else than tags; name another file"
            ) from error

    def write(self, recording: str, windows: Sequence[Window]) -> None:
        """Adds a recording's tags at once."""
        out = io.StringIO()
        if self.path.suffix == ".csv":
            rows = csv.writer(out, lineterminator="\n")
            for start, end, tags in windows:
                rows.writerows((recording, start, end, tag, f"{p:.6f}") for tag, p in tags)
        else:
            for start, end, tags in windows:
                page = {"file": recording, "start": start, "end": end, "tags": dict(tags)}
                out.write(json.dumps(page, ensure_ascii=False) + "\n")
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(out.getvalue())


def check_window(seconds: float, hop: float, top: int) -> None:
    """Raises `InputError` where a number is out of range."""
    for name, value in (("window", seconds), ("hop", hop)):
        if not value >= SHORTEST:
            raise InputError(f"{name} is {value}; give {SHORTEST} seconds or more")
    if top < 1:
        raise InputError(f"top is {top}; give 1 or more")
