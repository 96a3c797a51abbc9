"""What a report prints, before it is HTML or Markdown: measures as figures, tables as grids."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tinymu_jax.evaluation.report.compare import Group, union
from tinymu_jax.evaluation.report.markup import without_folders
from tinymu_jax.evaluation.results import Confusion, Metric, Table

LEGEND = "Shares are in percent; what stands in brackets is the 95 % interval."

DIFFERENCE = "A difference is what the second checkpoint has more than the first."

MISSING = "not available"

MISTAKES = 30
"""Listed of a confusion that is too large to be drawn."""


class Cell(NamedTuple):
    """A measure as it is printed."""

    text: str
    interval: str = ""
    count: str = ""
    note: int | None = None
    """Number of the note that explains it, from 1."""
    unit: str = ""
    """For where it stands alone."""


class Grid(NamedTuple):
    """A table as it is printed."""

    title: str
    heads: Sequence[tuple[str, Sequence[str]]]
    """Columns, and what each is divided into; () where it is one."""
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()
    """Stand below it."""


def legend(groups: Sequence[Group]) -> str:
    """Returns how the figures of a report are read."""
    two = any(len(group.names) == 2 for group in groups)
    return f"{LEGEND} {DIFFERENCE}" if two else LEGEND


def figure(value: float | None, share: bool = True, signed: bool = False) -> str:
    """Returns a number as it is printed: shares in percent with one decimal."""
    if value is None or not math.isfinite(value):
        return MISSING
    sign = "+" if signed else ""
    if share:
        return f"{100 * value:{sign}.1f}"
    size = abs(value)
    decimals = 0 if value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:{sign},.{decimals}f}"


def cell(measure: Metric | None, notes: list[str], count: bool = False) -> Cell:
    """Returns how a measure is printed.

    Args:
        measure: None gives an empty cell.
        notes: get the measure's, unless it is there.
        count: whether the number of questions stands in the cell.
    """
    if measure is None:
        return Cell("")
    text, bounds, number = figure(measure.value, measure.is_fraction), "", None
    if measure.low is not None and measure.high is not None and text != MISSING:
        low, high = (figure(end, measure.is_fraction) for end in (measure.low, measure.high))
        bounds = f"[{low}, {high}]"
    if measure.note:
        note = without_folders(measure.note)
        if note not in notes:
            notes.append(note)
        number = notes.index(note) + 1
    many = f"n = {measure.count:,}" if count and measure.count is not None else ""
    unit = "%" if measure.is_fraction and text != MISSING else ""
    return Cell(text, bounds, many, number, unit)


def _difference(first: Metric | None, second: Metric | None) -> Cell:
    """Returns how much the second is above the first; empty where one is not there."""
    if first is None or second is None or first.is_fraction != second.is_fraction:
        return Cell("")
    if MISSING in (figure(first.value), figure(second.value)):
        return Cell("")
    text = figure(second.value - first.value, first.is_fraction, signed=True)
    return Cell(text if text.strip("+-0.") else text[1:])


def aligned(tables: Sequence[Table]) -> tuple[list[str], dict[str, list[list[Metric | None]]]]:
    """Returns the columns of tables, and by row what each table has in each of them."""
    columns = union(table.columns for table in tables)
    own = [
        {row: dict(zip(table.columns, cells, strict=True)) for row, cells in table.rows.items()}
        for table in tables
    ]
    return columns, {
        row: [[table.get(row, {}).get(column) for table in own] for column in columns]
        for row in union(table.rows for table in tables)
    }


def side_by_side(tables: Sequence[tuple[str, Table]], several: bool) -> Grid:
    """Returns tables of the same title as one; of two, with their difference.

    The number of questions is a column of its own where a row has one number.

    Args:
        tables: with the names of their checkpoints.
        several: whether names are printed.
    """
    columns, rows = aligned([table for _, table in tables])
    below = [name for name, _ in tables] if several else []
    two = len(below) == 2
    heads = [(column, [*below, "difference"] if two else below) for column in columns]
    many = _counts({row: [m for part in parts for m in part] for row, parts in rows.items()})
    notes, printed = list[str](), []
    for row, parts in rows.items():
        cells = []
        for part in parts:
            cells += [cell(measure, notes, count=many is None) for measure in part]
            cells += [_difference(*part)] if two else []
        printed.append((without_folders(row), [*cells, many[row]] if many else cells))
    heads += [("n", ())] if many else []
    remarks = union([without_folders(table.note)] for _, table in tables if table.note)
    return Grid(tables[0][1].title, heads, printed, notes, remarks)


def _counts(rows: Mapping[str, Sequence[Metric | None]]) -> dict[str, Cell] | None:
    """Returns the number of questions of each row; None where a row has several."""
    counts = {
        row: {m.count for m in measures if m is not None and m.count is not None}
        for row, measures in rows.items()
    }
    if not any(counts.values()) or any(len(found) > 1 for found in counts.values()):
        return None
    return {row: Cell("".join(f"{count:,}" for count in found)) for row, found in counts.items()}


def headline(group: Group) -> Grid:
    """Returns the few numbers of each checkpoint, beside what is published."""
    names = union([*(f.headline for f in group.findings), *(f.published for f in group.findings)])
    own = {name: [one.headline.get(name) for one in group.findings] for name in names}
    many, notes, rows = _counts(own), list[str](), []
    for name, measures in own.items():
        cells = [cell(measure, notes, count=many is None) for measure in measures]
        cells += [_difference(*measures)] if len(measures) == 2 else []
        cells += [many[name]] if many else []
        rows.append((name, [*cells, _published(group, name, notes)]))
    heads = [*group.names] if group.several else ["value"]
    heads += ["difference"] if len(group.names) == 2 else []
    heads += ["n", "published"] if many else ["published"]
    return Grid("Headline", [(head, ()) for head in heads], rows, notes)


def _published(group: Group, name: str, notes: list[str]) -> Cell:
    """Returns what papers report under a name; two reports may know of different values."""
    known = [one.published[name] for one in group.findings if name in one.published]
    cells = union([cell(measure, notes)] for measure in known)
    if len(cells) < 2:
        return cells[0] if cells else Cell("")
    return Cell(" / ".join(f"{c.text} {c.interval}".strip() for c in cells), note=cells[0].note)


def settings(group: Group) -> Grid:
    """Returns what the numbers depend on, a column for each checkpoint."""
    rows = []
    for name in union(one.settings for one in group.findings):
        values = [one.settings.get(name) for one in group.findings]
        cells = [Cell("" if v is None else without_folders(v)) for v in values]
        cells += [Cell("differs" if len(set(values)) > 1 else "")] if group.several else []
        rows.append((name, cells))
    heads = [(name, ()) for name in group.names] if group.several else [("value", ())]
    return Grid("Settings", [*heads, ("", ())] if group.several else heads, rows)


def mistakes(found: Confusion) -> Grid:
    """Returns what was most often taken for something else, the most frequent first."""
    pairs = sorted(
        (-count, row, column)
        for row, counts in enumerate(found.counts)
        for column, count in enumerate(counts)
        if count and row != column
    )
    rows = [
        (f"{found.labels[row]} taken for {found.labels[column]}", [Cell(f"{-count:,}")])
        for count, row, column in pairs[:MISTAKES]
    ]
    remark = f"The first {len(rows)} of {len(pairs)}; all are in report.json."
    return Grid(f"{found.title}: most frequent", [("answers", ())], rows, remarks=[remark])
