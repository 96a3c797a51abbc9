"""What the readers of sources share: rows of tables with their lines, and one clip for each id."""

import ast
import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.errors import InputError

TAB = "\t"


class Source(NamedTuple):
    """A source and what it says of its recordings."""

    name: str
    clips: list[AnnotatedClip]
    unusable: tuple[str, ...] = ()
    """Recordings that cannot be read."""
    no_music: int = 0
    """Rows about other sounds than music, which give no clips."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table."""

    path: Path
    line: int
    """The first of the row's lines, from 1."""
    fields: Mapping[str, str]
    """By the names of the columns."""

    def fault(self, problem: str) -> InputError:
        """Returns the error that says what is wrong with the row."""
        return InputError(f"{self.path}: line {self.line} {problem}")

    def text(self, column: str) -> str:
        """Returns a field without the blanks around it; "" also where there is no such column."""
        return self.fields.get(column, "").strip()

    def filled(self, column: str) -> str:
        """Returns a field that must not be empty.

        Raises:
            InputError: it is.
        """
        found = self.text(column)
        if not found:
            raise self.fault(f"has an empty {column}; fill it in or take the line out")
        return found

    def truth(self, column: str) -> bool:
        """Returns a field that says True or False.

        Raises:
            InputError: it says something else.
        """
        found = {"true": True, "false": False}.get(self.text(column).lower())
        if found is None:
            raise self.fault(f"has {self.text(column)!r} as {column}; give True or False")
        return found

    def listed(self, column: str, kind: type) -> list[Any]:
        """Returns a field that holds a list as Python writes it.

        Args:
            column: of the field.
            kind: of everything in the list.

        Raises:
            InputError: it holds something else.
        """
        text = self.text(column)
        try:
            found = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
            example = [kind(1), kind(2)]
            raise self.fault(f"has {text[:40]!r} as {column}; give a list like {example}")
        return found

    def span(self, start: str, end: str) -> tuple[float | None, float | None]:
        """Returns the two fields that say from when to when, in seconds; None where one is empty.

        Raises:
            InputError: one is no number from 0 on, or the end is not after the start.
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
            found = float(text)
        except ValueError:
            found = math.nan
        if not 0 <= found < math.inf:
            raise self.fault(f"has {text!r} as {column}; give seconds, from 0 on")
        return found


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """Returns the labels of a field in small letters, without blanks around them."""
    return tuple(part.strip().lower() for part in text.split(separator) if part.strip())


def read_lines(path: Path, remedy: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a table with the number of their first line; empty lines are left out.

    Rows are read as they are wanted: the tables of the large sources have hundreds of megabytes.

    Args:
        path: of the table.
        remedy: what to do if it is none.
        delimiter: between fields; between tabs a quote mark is a letter like others, and only a
            pair around a whole field is taken off.

    Raises:
        InputError: it cannot be read, is no text, or a quote mark has no partner.
    """
    tabs = delimiter == TAB
    quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(
                file, delimiter=delimiter, quoting=quoting, skipinitialspace=True, strict=True
            )
            for cells in rows:
                if any(cells):
                    yield line, [_unquoted(cell) for cell in cells] if tabs else cells
                line = rows.line_num + 1
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text; {remedy}") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {line} is no row of a table ({error}); {remedy}") from error


def _unquoted(cell: str) -> str:
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def make_row(path: Path, line: int, head: Sequence[str], cells: Sequence[str]) -> TableRow:
    """Returns a row.

    Raises:
        InputError: it has another number of fields than there are columns.
    """
    if len(cells) != len(head):
        raise InputError(
            f"{path}: line {line} has {len(cells)} fields where there are {len(head)} columns; "
            "repair it"
        )
    return TableRow(path, line, dict(zip(head, cells, strict=True)))


def check_columns(path: Path, head: Sequence[str], wanted: Sequence[str], remedy: str) -> None:
    """Refuses a table that does not have the columns of its source, or one of them twice.

    Raises:
        InputError: the message names those that are missing.
    """
    missing = [name for name in wanted if name not in head]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; {remedy}")
    twice = next((name for name in head if head.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: has two columns {twice!r}; {remedy}")


def read_rows(
    path: Path, columns: Sequence[str], remedy: str, delimiter: str = ","
) -> Iterator[TableRow]:
    """Yields the rows of a table whose first line names the columns.

    Args:
        path: of the table.
        columns: that it has to have.
        remedy: what to do if it is another one.
        delimiter: between fields.

    Raises:
        InputError: as `read_lines`; a column is missing; a row has more or fewer fields.
    """
    lines = read_lines(path, remedy, delimiter)
    head = [name.strip() for name in next(lines, (1, []))[1]]
    check_columns(path, head, columns, remedy)
    for line, cells in lines:
        yield make_row(path, line, head, cells)


def unique_clips(path: Path, found: Iterable[tuple[int, AnnotatedClip]]) -> list[AnnotatedClip]:
    """Returns the clips of a table, which are to have names and files of their own.

    Args:
        path: of the table.
        found: its clips, each with its line.

    Raises:
        InputError: two have the same identifier or file; the message names both lines.
    """
    seen: dict[tuple[str, str], int] = {}
    clips = []
    for line, clip in found:
        for what, name in (("clip", clip.clip), ("file", clip.file)):
            first = seen.setdefault((what, name), line)
            if first != line:
                raise InputError(
                    f"{path}: line {line} is about the {what} {name!r} of line {first}; keep one "
                    "line of each recording"
                )
        clips.append(clip)
    return clips
