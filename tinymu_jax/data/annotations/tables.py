"""Reads csv and tsv tables as rows of typed fields; error messages name the file and line."""

import ast
import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_content

TAB = "\t"
Lines = Iterator[tuple[int, list[str]]]
"""Number of each row's first line in the file, from 1, and the row's cells."""


class Source(NamedTuple):
    """Annotations read from a public data set or from a user's recordings."""

    name: str
    clips: list[AnnotatedClip]
    unusable: tuple[str, ...] = ()
    """Paths of the recordings that cannot be read."""
    no_music: int = 0
    """Number of skipped table rows, which are not labelled as music."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table, with methods that convert its fields."""

    path: Path
    line: int
    """Number of the row's first line in the file, from 1."""
    fields: Mapping[str, str]
    """Text in each column, by column name."""

    def fault(self, problem: str) -> InputError:
        """Return an error whose message is the file and the row's line, followed by `problem`."""
        return InputError(f"{self.path}: line {self.line} {problem}")

    def text(self, column: str) -> str:
        """Return the stripped text in a column; "" if the table lacks the column."""
        return self.fields.get(column, "").strip()

    def filled(self, column: str) -> str:
        """Return the stripped text in a column; raise `InputError` if it is empty."""
        text = self.text(column)
        if not text:
            raise self.fault(f"has an empty {column}; fill it in or take the line out")
        return text

    def boolean(self, column: str) -> bool:
        """Convert the text True or False in a column; raise `InputError` for any other text."""
        value = {"true": True, "false": False}.get(self.text(column).lower())
        if value is None:
            raise self.fault(f"has {self.text(column)!r} as {column}; give True or False")
        return value

    def python_list(self, column: str, kind: type) -> list[Any]:
        """Parse a Python list in a column; raise `InputError` if any item is not of type `kind`."""
        text = self.text(column)
        try:
            items = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            items = None
        if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
            example = [kind(1), kind(2)]
            raise self.fault(f"has {text[:40]!r} as {column}; give a list like {example}")
        return items

    def time_span(self, start: str, end: str) -> tuple[float | None, float | None]:
        """Return the start and end in seconds from two columns; None for an empty field.

        Raises:
            InputError: a time is not a number from 0 on, or the end is not after the start.
        """
        first, last = self._seconds(start), self._seconds(end)
        if last is not None and last <= (first or 0.0):
            raise self.fault(f"ends at {last:g} s, which is not after its start; correct it")
        return first, last

    def _seconds(self, column: str) -> float | None:
        text = self.text(column)
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise self.fault(f"has {text!r} as {column}; give seconds, from 0 on")
        return seconds


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """Split text at a separator into stripped lower-case labels, without empty labels."""
    return tuple(part.strip().lower() for part in text.split(separator) if part.strip())


def read_lines(path: Path, remedy: str, delimiter: str = ",") -> Lines:
    """Yield the line number and the cells of each non-empty row of a csv or tsv table.

    A row of several lines has the number of its first line. In tables with tabs, quotes are removed
    around a whole cell and kept elsewhere. `remedy` is advice that ends error messages.

    Raises:
        InputError: the file cannot be read, is not text, or has a quote that is not closed.
    """
    tabs = delimiter == TAB
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    line = 1
    check_content(path, may_be_empty=True)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(
                file, delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True
            )
            for cells in rows:
                if any(cells):
                    yield line, [_unquote(cell) for cell in cells] if tabs else cells
                line = rows.line_num + 1
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text; {remedy}") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {line} is malformed ({error}); {remedy}") from error


def _unquote(cell: str) -> str:
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def read_rows(
    path: Path, columns: Sequence[str], remedy: str, delimiter: str = ","
) -> Iterator[TableRow]:
    """Yield the rows of a table, below a first line that names the columns.

    See `read_lines` and `to_rows` for arguments and errors.
    """
    lines = read_lines(path, remedy, delimiter)
    head = [name.strip() for name in next(lines, (1, []))[1]]
    return to_rows(path, lines, head, columns, remedy)


def to_rows(
    path: Path, lines: Lines, head: Sequence[str], columns: Sequence[str], remedy: str
) -> Iterator[TableRow]:
    """Yield each row of a table as a `TableRow`, with its cells by column name.

    `lines` come from `read_lines`. `head` names all columns in order, and `columns` the required
    columns. `remedy` is advice that ends error messages.

    Raises:
        InputError: a column is missing or occurs twice, or a row has too many or too few fields.
    """
    missing = [name for name in columns if name not in head]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; {remedy}")
    repeated = next((name for name in head if head.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path}: has two columns {repeated!r}; {remedy}")
    for line, cells in lines:
        if len(cells) != len(head):
            raise InputError(
                f"{path}: line {line} has {len(cells)} fields where there are {len(head)} columns; "
                f"{remedy}, or repair the line"
            )
        yield TableRow(path, line, dict(zip(head, cells, strict=True)))


def unique_clips(clips: Iterable[tuple[TableRow, AnnotatedClip]]) -> list[AnnotatedClip]:
    """Return the clips; raise `InputError` if two lines have the same clip identifier or file."""
    lines: dict[tuple[str, str], int] = {}
    unique = []
    for row, clip in clips:
        for key in (("clip", clip.clip), ("file", clip.file)):
            first = lines.setdefault(key, row.line)
            if first != row.line:
                raise row.fault(
                    f"is about the {key[0]} {key[1]!r} of line {first}; keep one line of each "
                    "recording"
                )
        unique.append(clip)
    return unique
