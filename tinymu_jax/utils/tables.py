"""Reads csv and tsv tables strictly, as rows of typed fields; errors name the file and line."""

import ast
import csv
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_content
from tinymu_jax.utils.text import open_text

TAB = "\t"
TABLE_SUFFIXES = (".csv", ".tsv")
SEPARATORS = (",", ";", TAB, "|")
"""Separators of cells that the first line of a table may have."""
_SEPARATORS = re.escape("".join(SEPARATORS))
FILE_COLUMNS = ("file", "file_name")
"""Names of the column of recordings in a user's tables."""
LABEL_SEPARATORS = re.compile(r"[;|]")
MISSING = frozenset(
    (
        *("#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "n/a", "None", "NULL", "null"),
        *("NaN", "nan", "NAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
    )
)
"""Texts by which programs write an empty cell, as `pandas.read_csv` knows them."""
_MISSING_IN_ANY_CASE = frozenset(("null", "n/a", "#n/a", "<na>"))
_FORMULA_ERROR = re.compile(r"#((REF|VALUE|NUM|NULL|DIV/0|SPILL|CALC|ERROR)!|NAME\?)")
"""What spreadsheets write in place of a formula's value."""
_INVISIBLE = "\ufeff\u200b\u2060"
"""Characters without width, as between two files with byte order marks that were joined."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters but tabs and line feeds."""
Lines = Iterator[tuple[int, list[str]]]
"""Number of each row's first line in the file, from 1, and the row's cells."""
_SEPARATOR_HINT = re.compile(r'"?sep=(.)"?\s*')
"""First line of a csv by which Excel is told the separator."""


def strip(text: str) -> str:
    """Return a text without spaces and invisible characters at its ends."""
    return text.strip().strip(_INVISIBLE).strip()


def is_missing(text: str) -> bool:
    """Return whether a text stands for an empty cell, or for an error of a formula."""
    return (
        text in MISSING
        or text.casefold() in _MISSING_IN_ANY_CASE
        or _FORMULA_ERROR.fullmatch(text) is not None
    )


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
        return strip(self.fields.get(column, ""))

    def filled(self, column: str) -> str:
        """Return the stripped text in a column; raise `InputError` if it is empty or `MISSING`."""
        text = self.text(column)
        if not text:
            raise self.fault(f"has an empty {column}; fill it in or take the line out")
        self._check_not_missing(text, column)
        return text

    def name(self, column: str) -> str:
        """Return the file name or label in a column; raise `InputError` unless it is one line.

        A line break in such a cell is the work of a stray quote, which merges rows.
        """
        text = self.filled(column)
        self._check_one_line(text, column)
        return text

    def names(self, column: str) -> tuple[str, ...]:
        """Return the labels in a column, separated there by ";" or "|"; empty ones are left out."""
        text = self.text(column)
        self._check_one_line(text, column)
        labels = tuple(filter(None, map(strip, LABEL_SEPARATORS.split(text))))
        for label in labels:
            self._check_not_missing(label, column)
        return labels

    def _check_not_missing(self, text: str, column: str) -> None:
        if is_missing(text):
            raise self.fault(f"has {text!r} as {column}, as for an empty cell; fill it in")

    def _check_one_line(self, text: str, column: str) -> None:
        if "\n" in text or "\r" in text:
            raise self.fault(f"has a {column} of several lines; look for a stray quote there")
        if _CONTROL.search(text):
            raise self.fault(f"has a control character in its {column} ({text!r}); correct it")

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


def read_lines(
    path: Path,
    remedy: str,
    delimiter: str | None = None,
    columns: Sequence[str] = (),
    content: str | None = None,
) -> Lines:
    """Yield the line number and the cells of each non-empty row of a csv or tsv table.

    A row of several lines has the number of its first line.

    Args:
        path: path of the table; see `tinymu_jax.utils.text.open_text` for encodings.
        remedy: advice that ends error messages.
        delimiter: separator of the cells; None: find it, see `_find_separator`. If a tab is given,
            quotes are removed only where they enclose a whole cell, as in published tsv files.
        columns: names of columns that the first line should have.
        content: text of the table if it has been read, as from a pipe; None: read it.

    Raises:
        InputError: the file cannot be read, is not text, or has a quote that is not closed or that
            ends inside a cell.
    """
    quoting = csv.QUOTE_NONE if delimiter == TAB else csv.QUOTE_MINIMAL
    line = 1
    try:
        with _open_table(path, remedy, content) as file:
            head = _first_lines(file)
            if delimiter is None:
                delimiter, head = _find_separator(head, columns)
            rows = csv.reader(
                itertools.chain(head, file),
                delimiter=delimiter,
                quoting=quoting,
                skipinitialspace=True,
                strict=True,
            )
            for cells in rows:
                if any(cells):
                    yield line, [*map(_unquote, cells)] if quoting == csv.QUOTE_NONE else cells
                line = rows.line_num + 1
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except csv.Error as error:
        reason = f"{error}: look for a stray quote"
        raise InputError(f"{path}: line {line} is malformed ({reason}); {remedy}") from error


def _open_table(
    path: Path, remedy: str, content: str | None
) -> AbstractContextManager[Iterable[str]]:
    """Open a table, or its text `content` if that is not None."""
    if content is not None:
        return io.StringIO(content, newline="")
    check_content(path, may_be_empty=True)
    return open_text(path, remedy, newline="")


def _first_lines(file: Iterable[str]) -> list[str]:
    """Return the lines of an open table up to the first that is not empty."""
    head = []
    for text in file:
        head.append(text)
        if text.strip():
            break
    return head


def _find_separator(head: list[str], columns: Sequence[str]) -> tuple[str, list[str]]:
    """Return the separator of a table, and its first lines `head` without Excel's line "sep=;".

    Without that line, it is the one of `SEPARATORS` that splits the last line of `head` into most
    names of `columns`, and then into most cells.
    """
    first = head[-1] if head else ""
    hint = _SEPARATOR_HINT.fullmatch(first)
    if hint is not None:
        return hint[1], [*head[:-1], "\n"]

    def fit(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        names = {strip(cell).casefold() for cell in cells}
        return len(names & {name.casefold() for name in columns}), len(cells)

    return max(SEPARATORS, key=fit), head


def _unquote(cell: str) -> str:
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def read_rows(
    path: Path,
    columns: Sequence[str],
    remedy: str,
    delimiter: str | None = None,
    optional: Sequence[str] = (),
    group: Sequence[str] = (),
    content: str | None = None,
) -> Iterator[TableRow]:
    """Yield the rows of a table, below a first line that names the columns.

    Names that differ from those of `columns`, `FILE_COLUMNS`, `optional` (further columns that may
    be there) and `group` (columns of which one is read) only in upper and lower case are spelled as
    these; but not if the table has another column of `FILE_COLUMNS` or of `group`, spelled exactly.
    See `read_lines` and `to_rows` for other arguments and errors.

    Raises:
        InputError: the names of two columns that may be read differ in case alone.
    """
    known = (*columns, *FILE_COLUMNS, *optional, *group)
    lines = read_lines(path, remedy, delimiter, known, content)
    head = [strip(name) for name in next(lines, (1, []))[1]]
    exact = set(head) & set(known)
    for names in (FILE_COLUMNS, group):
        if not exact.isdisjoint(names):
            exact.update(name for name in names if name not in columns)
    spellings = {name.casefold(): name for name in known}
    spellings = {key: name for key, name in spellings.items() if name not in exact}
    for key in spellings:
        alike = [name for name in head if name.casefold() == key]
        if len(alike) > 1:
            raise InputError(
                f"{path}: has columns {' and '.join(map(repr, alike))} in its first line; call the "
                f"one to read {spellings[key]!r}"
            )
    head = [name if name in known else spellings.get(name.casefold(), name) for name in head]
    return to_rows(path, lines, head, columns, remedy)


def to_rows(
    path: Path, lines: Lines, head: Sequence[str], columns: Sequence[str], remedy: str
) -> Iterator[TableRow]:
    """Yield each row of a table as a `TableRow`, with its cells by column name.

    `lines` come from `read_lines`. `head` names all columns in order, and `columns` the required
    columns. `remedy` is advice that ends error messages. Empty cells to the right of the last
    column are dropped, and so are row numbers in a first column without a name.

    Raises:
        InputError: a column is missing or occurs twice; a row has too many or too few fields, text
            in a column without a name, or a quoted field that spans other rows.
    """
    if any("\n" in name or "\r" in name for name in head):
        raise InputError(f"{path}: names a column in several lines; look for a stray quote there")
    missing = [name for name in columns if name not in head]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; {remedy}")
    repeated = next((name for name in head if name and head.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path}: has two columns {repeated!r} in its first line; {remedy}")
    length = max((number for number, name in enumerate(head, 1) if name), default=0)
    unnamed = [number for number, name in enumerate(head) if not name]
    for line, cells in lines:
        if len(cells) < length or any(map(str.strip, cells[len(head) :])):
            raise InputError(
                f"{path}: line {line} has {len(cells)} fields where there are {length} columns; "
                f"{remedy}, or repair the line"
            )
        row = TableRow(path, line, {k: v for k, v in zip(head, cells, strict=False) if k})
        for number in unnamed:
            text = "".join(cells[number : number + 1]).strip()
            if text and not (number == 0 and text.isdecimal()):
                raise row.fault(f"has {text!r} in a column without a name; name the column")
        _check_quotes(row)
        yield row


def _check_quotes(row: TableRow) -> None:
    """Raise `InputError` if a field holds other rows' file names, as after a stray quote."""
    long = {name: text for name, text in row.fields.items() if "\n" in text or "\r" in text}
    if not long:
        return
    suffixes = {Path(row.text(name)).suffix for name in FILE_COLUMNS} - {""}
    for name, suffix in itertools.product(long, suffixes):
        if re.search(rf"{re.escape(suffix)}\"?\s*([{_SEPARATORS}\r\n]|$)", long[name]):
            raise row.fault(f"has other rows inside its {name}; look for a stray quote there")
