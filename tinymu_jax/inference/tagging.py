"""Tags recordings window by window, and writes the tags to a file that can be continued."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.errors import InputError, note_damage
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.utils.files import exists, make_folder, printable, write_atomic, write_text

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
    if clip.damage:
        note_damage(str(recording), clip.damage)
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
    """A csv or jsonl file of recordings' tags, which several runs can extend.

    It keeps what earlier runs wrote, also about recordings that this run does not tag.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file, and remove the tags whose writing was interrupted.

        Raises:
            InputError: the suffix is unknown; the file holds no tags, or cannot be written.
        """
        if path.suffix not in (".csv", ".jsonl"):
            raise InputError(f"{path}: name a file that ends in .csv or .jsonl")
        self.path, self._is_csv = path, path.suffix == ".csv"
        make_folder(path.parent)
        rows, incomplete = self._read()
        texts: dict[str, str] = {}
        for name, text in rows:
            texts[name] = texts.get(name, "") + text
        last = rows[-1][0] if rows else ""
        last_text = texts.pop(last, "")
        if incomplete and incomplete.startswith(self._begin(last)[: len(incomplete)]):
            last_text = ""
        self.done = set(texts)
        """`key` of each recording that need not be tagged again."""
        before = (_csv_text([COLUMNS]) if self._is_csv else "") + "".join(texts.values())
        write_text(path, before + last_text)
        # The last recording may lack rows, though all its lines are whole. If it is tagged again,
        # its rows, which are these bytes of the file, are replaced.
        self._last, start = last, len(before.encode())
        self._last_bytes = slice(start, start + len(last_text.encode()))

    @staticmethod
    def key(recording: str) -> str:
        """Return the name by which a recording is compared with the names in the file."""
        return printable(str(Path(recording)))

    def _read(self) -> tuple[list[tuple[str, str]], str]:
        """Return the key and the text of each row of tags, and the text of an incomplete row."""
        content = self.path.read_bytes() if exists(self.path) else b""
        whole, newline, cut = content.rpartition(b"\n")
        try:
            # Rows end with "\n" only: names may hold other line separators.
            lines = [f"{line}\n" for line in whole.decode().split("\n")] if newline else []
            if self._is_csv:
                names, texts, unclosed = _split_csv(lines)
            else:
                names, texts, unclosed = [json.loads(line)["file"] for line in lines], lines, ""
            keys, rest = [self.key(name) for name in names], unclosed + cut.decode(errors="replace")
            begin = ",".join(COLUMNS) if self._is_csv else '{"file": '
            if not lines and not rest.startswith(begin[: len(rest)]):
                raise ValueError("no row of tags")
        except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
            raise InputError(
                f"{self.path}: holds something else than tags; name another file"
            ) from error
        return list(zip(keys, texts, strict=True)), rest

    def _begin(self, recording: str) -> str:
        """Return the text with which all rows of a recording begin."""
        if self._is_csv:
            return _csv_text([(recording, "")])[:-1]
        return json.dumps({"file": recording}, ensure_ascii=False)[:-1]

    def write(self, recording: str, windows: Sequence[Window]) -> None:
        """Write the tags of all windows of a recording.

        If the recording was last in the file when it was opened, its rows are replaced: some may be
        missing.
        """
        if self._is_csv:
            rows = ((w, tag, probability) for w in windows for tag, probability in w.tags)
            text = _csv_text((recording, w.start, w.end, tag, f"{p:.6f}") for w, tag, p in rows)
        else:
            objects = (window.to_json(recording) for window in windows)
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
        written = printable(text).encode()
        if self.key(recording) == self._last:
            content = self.path.read_bytes()
            others = content[: self._last_bytes.start] + content[self._last_bytes.stop :]
            write_atomic(self.path, lambda partial: partial.write_bytes(others + written))
            self._last = ""
        else:
            with self.path.open("ab") as file:
                file.write(written)
        self.done.add(self.key(recording))


def _csv_text(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    for row in rows:
        # Python 3.11 leaves a "\r" without quotes, and then reads it as the end of a row.
        quoting = csv.QUOTE_ALL if any("\r" in str(cell) for cell in row) else csv.QUOTE_MINIMAL
        csv.writer(out, lineterminator="\n", quoting=quoting).writerow(row)
    return out.getvalue()


def _split_csv(lines: Sequence[str]) -> tuple[list[str], list[str], str]:
    """Split a csv of tags into rows; a name with a line break makes a row span several lines.

    Returns the recording of each row, the text of each row, and the text of an incomplete last row.
    Raises `ValueError` or `csv.Error` if the lines are no csv of tags.
    """
    if lines and next(csv.reader(lines)) != list(COLUMNS):
        raise ValueError("no table of tags")
    names, texts, start = list[str](), list[str](), 1
    reader = csv.reader(lines, strict=True)
    try:
        next(reader, None)
        for row in reader:
            if len(row) != len(COLUMNS):
                raise ValueError("no row of tags")
            names.append(row[0])
            texts.append("".join(lines[start : reader.line_num]))
            start = reader.line_num
    except csv.Error as error:
        if str(error) != "unexpected end of data":  # a quote that is not closed
            raise
    return names, texts, "".join(lines[start:])


def check_window(seconds: float, hop: float, top: int) -> None:
    """Raise `InputError` if the window's length, the hop or the number of tags is too small."""
    for name, value in (("window", seconds), ("hop", hop)):
        if not value >= MIN_SECONDS:
            raise InputError(f"{name} is {value}; give {MIN_SECONDS} seconds or more")
    if top < 1:
        raise InputError(f"top is {top}; give 1 or more")
