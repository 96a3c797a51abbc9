"""Format the tables and warnings of a report as text, before they become HTML or Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tinymu_jax.evaluation.report.compare import Group, MergedRadar, union
from tinymu_jax.evaluation.report.text import without_folders
from tinymu_jax.evaluation.results import Confusion, Metric, Reliability, Table
from tinymu_jax.utils.numbers import NOT_AVAILABLE, number, percent

LEGEND = "Fractions are in percent, with 95 % confidence intervals in brackets."
DIFFERENCE_LEGEND = "A difference is the second checkpoint minus the first."
MAX_MISTAKES = 30
"""Maximum number of mistakes that are listed for a large confusion matrix."""


class Cell(NamedTuple):
    """A table cell with a formatted metric."""

    text: str
    interval: str = ""
    count: str = ""
    note: int | None = None
    """Number of the cell's footnote, from 1."""
    unit: str = ""
    """Unit, shown only if the cell is outside a table."""


class Grid(NamedTuple):
    """A table of formatted cells."""

    columns: Sequence[tuple[str, Sequence[str]]]
    """Name of each column, and the names of its subcolumns, if any."""
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = ()
    """Footnotes, in the order of their numbers."""
    remarks: Sequence[str] = ()
    """Paragraphs below the table."""


def legend(groups: Sequence[Group]) -> str:
    """Return the sentences that explain how to read the numbers of a report."""
    pair = any(len(group.names) == 2 for group in groups)
    return f"{LEGEND} {DIFFERENCE_LEGEND}" if pair else LEGEND


def notices(groups: Sequence[Group]) -> list[str]:
    """Return all warnings; name the evaluation and checkpoint if the report has several."""
    lines = []
    for group in groups:
        for name, result in zip(group.names, group.results, strict=True):
            about = [group.title] if len(groups) > 1 else []
            about += [name] if group.is_comparison else []
            prefix = f"{', '.join(about)}: " if about else ""
            lines += [prefix + without_folders(text) for text in result.notices]
    return lines


def _format(value: float | None, is_fraction: bool, signed: bool = False) -> str:
    return percent(value, signed=signed) if is_fraction else number(value, signed)


def metric_cell(metric: Metric | None, notes: list[str], with_count: bool = False) -> Cell:
    """Format a metric as a table cell; None gives an empty cell.

    `notes` has the table's footnotes so far; the metric's note is appended if it is new.
    `with_count` adds the number of questions to the cell.
    """
    if metric is None:
        return Cell("")
    text, interval, note = _format(metric.value, metric.is_fraction), "", None
    if metric.low is not None and metric.high is not None and text != NOT_AVAILABLE:
        low, high = (_format(bound, metric.is_fraction) for bound in (metric.low, metric.high))
        interval = f"[{low}, {high}]"
    if metric.note:
        words = without_folders(metric.note)
        if words not in notes:
            notes.append(words)
        note = notes.index(words) + 1
    count = f"n = {metric.count:,}" if with_count and metric.count is not None else ""
    unit = "%" if metric.is_fraction and text != NOT_AVAILABLE else ""
    return Cell(text, interval, count, note, unit)


def _difference(first: Metric | None, second: Metric | None) -> Cell:
    """Format the second metric minus the first; the cell is empty if either is not available."""
    if first is None or second is None or first.is_fraction != second.is_fraction:
        return Cell("")
    if not all(m.value is not None and math.isfinite(m.value) for m in (first, second)):
        return Cell("")
    text = _format(second.value - first.value, first.is_fraction, signed=True)
    # A difference that rounds to zero is printed without a sign.
    return Cell(text if text.strip("+-0.") else text[1:])


def align_tables(tables: Sequence[Table]) -> tuple[list[str], dict[str, list[list[Metric | None]]]]:
    """Align tables by the names of their rows and columns.

    Return the names of all columns, and the metrics by row name: a list per column, which has the
    metric of each table, or None for a table without it.
    """
    columns = union(table.columns for table in tables)
    by_row = [
        {row: dict(zip(table.columns, cells, strict=True)) for row, cells in table.rows.items()}
        for table in tables
    ]
    return columns, {
        row: [[rows.get(row, {}).get(column) for rows in by_row] for column in columns]
        for row in union(table.rows for table in tables)
    }


def merge_tables(tables: Sequence[tuple[str, Table]], is_comparison: bool) -> Grid:
    """Format tables with the same title as one table.

    `tables` are pairs (checkpoint's name, table). With `is_comparison`, each column gets one
    subcolumn per checkpoint and, for two checkpoints, one for the difference. The number of
    questions gets its own column if the metrics of each row agree on it.
    """
    columns, rows = align_tables([table for _, table in tables])
    subcolumns = [name for name, _ in tables] if is_comparison else []
    is_pair = len(subcolumns) == 2
    subcolumns += ["difference"] if is_pair else []
    counts = _count_cells({row: [m for part in parts for m in part] for row, parts in rows.items()})
    notes, printed = list[str](), []
    for row, parts in rows.items():
        cells = []
        for metrics in parts:
            cells += [metric_cell(metric, notes, with_count=counts is None) for metric in metrics]
            cells += [_difference(*metrics)] if is_pair else []
        printed.append((without_folders(row), [*cells, counts[row]] if counts else cells))
    heads = [(column, subcolumns) for column in columns] + ([("n", [])] if counts else [])
    remarks = union([without_folders(table.note)] for _, table in tables if table.note)
    return Grid(heads, printed, notes, remarks)


def _count_cells(rows: Mapping[str, Sequence[Metric | None]]) -> dict[str, Cell] | None:
    """Return each row's number of questions as a cell; None if unknown or not unique in a row."""
    counts = {
        row: {metric.count for metric in metrics if metric and metric.count is not None}
        for row, metrics in rows.items()
    }
    if not any(counts.values()) or any(len(numbers) > 1 for numbers in counts.values()):
        return None
    return {row: Cell("".join(f"{n:,}" for n in numbers)) for row, numbers in counts.items()}


def headline_grid(group: Group) -> Grid:
    """Format the main metrics as a table, with a column per checkpoint and the published values."""
    results, notes, rows = group.results, list[str](), []
    names = union([*(one.headline for one in results), *(one.published for one in results)])
    metrics_of = {name: [one.headline.get(name) for one in results] for name in names}
    counts = _count_cells(metrics_of)
    for name, metrics in metrics_of.items():
        cells = [metric_cell(metric, notes, with_count=counts is None) for metric in metrics]
        cells += [_difference(*metrics)] if len(metrics) == 2 else []
        cells += [counts[name]] if counts else []
        rows.append((name, [*cells, _published_cell(group, name, notes)]))
    columns = [*group.names] if group.is_comparison else ["value"]
    columns += ["difference"] if len(group.names) == 2 else []
    columns += ["n", "published"] if counts else ["published"]
    return Grid([(column, ()) for column in columns], rows, notes)


def _published_cell(group: Group, name: str, notes: list[str]) -> Cell:
    """Format the published value of a metric as a cell; join different values by slashes."""
    known = [one.published[name] for one in group.results if name in one.published]
    cells = union([metric_cell(metric, notes)] for metric in known)
    if len(cells) < 2:
        return cells[0] if cells else Cell("")
    return Cell(" / ".join(f"{c.text} {c.interval}".strip() for c in cells), note=cells[0].note)


def settings_grid(group: Group) -> Grid:
    """Format the settings as a table, a row for each setting, a column for each checkpoint."""
    rows = []
    for name in union(result.settings for result in group.results):
        values = [result.settings.get(name) for result in group.results]
        cells = [Cell("" if value is None else without_folders(value)) for value in values]
        cells += [Cell("differs" if len(set(values)) > 1 else "")] if group.is_comparison else []
        rows.append((name, cells))
    columns = [*group.names, ""] if group.is_comparison else ["value"]
    return Grid([(column, ()) for column in columns], rows)


def radar_grid(radar: MergedRadar) -> Grid:
    """Format a radar chart as a table, a row for each axis, a column for each of its lines."""
    rows = [
        (axis, [Cell(percent(line.values[number])) for line in radar.series])
        for number, axis in enumerate(radar.axes)
    ]
    return Grid([(line.name, ()) for line in radar.series], rows)


def confusion_grid(matrix: Confusion) -> Grid:
    """Format a confusion matrix as a table, a row for each true label."""
    rows = [
        (label, [Cell(f"{count:,}") for count in counts])
        for label, counts in zip(matrix.labels, matrix.counts, strict=True)
    ]
    remark = "Rows are the true labels, columns the predicted ones."
    return Grid([(label, ()) for label in matrix.labels], rows, remarks=[remark])


def mistakes_grid(matrix: Confusion) -> Grid:
    """Format the most frequent mistakes of a confusion matrix as a table, one mistake per row."""
    mistakes = sorted(
        (-count, row, column)
        for row, counts in enumerate(matrix.counts)
        for column, count in enumerate(counts)
        if count and row != column
    )
    rows = [
        (f"{matrix.labels[row]} taken for {matrix.labels[column]}", [Cell(f"{-count:,}")])
        for count, row, column in mistakes[:MAX_MISTAKES]
    ]
    remark = f"The {len(rows)} most frequent of {len(mistakes)} mistakes; all are in report.json."
    return Grid([("answers", ())], rows, remarks=[remark])


def reliability_grid(diagram: Reliability) -> Grid:
    """Format a reliability diagram as a table, a row for each bin of confidence."""
    rows = [
        (percent(confidence), [Cell(percent(accuracy)), Cell(f"{count:,}")])
        for confidence, accuracy, count in zip(
            diagram.confidence, diagram.accuracy, diagram.counts, strict=True
        )
    ]
    remark = f"By confidence in percent. Expected calibration error: {percent(diagram.ece)} %."
    return Grid([("right", ()), ("answers", ())], rows, remarks=[remark])
