"""Tags recordings window by window, and writes the tags to a file that can be continued."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.errors import InputError
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.utils.files import exists, make_folder, read_text, write_text

COLUMNS = ("file", "start", "end", "tag", "probability")
BATCH_SIZE = 32
"""Number of windows that are encoded together."""
MIN_SECONDS = 0.5
"""Minimum length of a window; a shorter rest at the end of a recording is not tagged."""


class Window(NamedTuple):
    """A window of a recording, in seconds, with (tag, probability) pairs, most probable first."""

    start: float
    end: float
    tags: list[tuple[str, float]]

    def to_json(self, recording: str) -> dict[str, Any]:
        """Return the window as a JSON object with the keys file, start, end and tags."""
        return {"file": recording, "start": self.start, "end": self.end, "tags": dict(self.tags)}


def tag_windows(
    model: Embedder, recording: str | Path, seconds: float, hop: float, top: int
) -> list[Window]:
    """Cut a recording into windows, and return each window with its `top` most probable tags.

    A window of `seconds` seconds starts every `hop` seconds.

    Raises:
        InputError: the recording cannot be read; the model has no head.
    """
    clip = read_clip(recording, model.max_seconds, keep_damaged=model.keep_damaged)
    size, step = (round(x * SAMPLE_RATE) for x in (seconds, hop))
    shortest = min(round(MIN_SECONDS * SAMPLE_RATE), len(clip.samples))
    starts = [s for s in range(0, len(clip.samples), step) if len(clip.samples) - s >= shortest]
    windows = []
    for first in range(0, len(starts), BATCH_SIZE):
        batch = starts[first : first + BATCH_SIZE]
        samples = [clip.samples[start : start + size] for start in batch]
        windows += [
            Window(start / SAMPLE_RATE, (start + len(window)) / SAMPLE_RATE, tags)
            for start, window, tags in zip(batch, samples, model.tag_all(samples, top), strict=True)
        ]
    return windows


class TagFile:
    """A csv or jsonl file of recordings' tags; `done` holds the recordings tagged before."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and remove the last recording's tags, which may be incomplete.

        Raises:
            InputError: the suffix is unknown; the file holds no tags, or cannot be written.
        """
        if path.suffix not in (".csv", ".jsonl"):
            raise InputError(f"{path}: name a file that ends in .csv or .jsonl")
        self.path = path
        make_folder(path.parent)
        header = ",".join(COLUMNS) + "\n" if path.suffix == ".csv" else ""
        text = (read_text(path, "name another file") if exists(path) else "") or header
        if not text.startswith(header):
            raise self._no_tags()
        # Text after the last newline is an incomplete line.
        lines = [line + "\n" for line in text[len(header) :].split("\n")[:-1]]
        recordings = [self._recording(line) for line in lines]
        last = recordings[-1] if recordings else None
        self.done = set(recordings) - {last}
        complete = (line for name, line in zip(recordings, lines, strict=True) if name != last)
        write_text(path, header + "".join(complete))

    def _no_tags(self) -> InputError:
        return InputError(f"{self.path}: holds something else than tags; name another file")

    def _recording(self, line: str) -> str:
        """Return the recording that a line names; raise `InputError` if it names none."""
        try:
            if self.path.suffix == ".csv":
                return next(csv.reader([line]))[0]
            return json.loads(line)["file"]
        except (ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
            raise self._no_tags() from error

    def write(self, recording: str, windows: Sequence[Window]) -> None:
        """Append the tags of all windows of a recording to the file in one write."""
        out = io.StringIO()
        if self.path.suffix == ".csv":
            rows = csv.writer(out, lineterminator="\n")
            for start, end, tags in windows:
                rows.writerows((recording, start, end, tag, f"{p:.6f}") for tag, p in tags)
        else:
            for window in windows:
                out.write(json.dumps(window.to_json(recording), ensure_ascii=False) + "\n")
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(out.getvalue())


def check_window(seconds: float, hop: float, top: int) -> None:
    """Raise `InputError` if the window's length, the hop or the number of tags is too small."""
    for name, value in (("window", seconds), ("hop", hop)):
        if not value >= MIN_SECONDS:
            raise InputError(f"{name} is {value}; give {MIN_SECONDS} seconds or more")
    if top < 1:
        raise InputError(f"top is {top}; give 1 or more")
