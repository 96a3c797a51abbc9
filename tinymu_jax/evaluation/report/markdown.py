"""A report in Markdown, for a repository or an issue."""

import html
import re
from collections.abc import Iterator, Sequence

from tinymu_jax.evaluation.report.compare import Group, by_title, merge_radars
from tinymu_jax.evaluation.report.examples import marked_options
from tinymu_jax.evaluation.report.tables import (
    Cell,
    Grid,
    confusion_grid,
    headline_grid,
    legend,
    merge_tables,
    mistakes_grid,
    notices,
    radar_grid,
    reliability_grid,
    settings_grid,
)
from tinymu_jax.evaluation.report.text import file_name, printable
from tinymu_jax.evaluation.results import Example
from tinymu_jax.utils.numbers import number

SPECIAL = re.compile(r"([\\`*_\[\]|~])")
"""Characters with a meaning in Markdown."""

MAX_MATRIX_LABELS = 12
"""Larger confusion matrices are printed as their most frequent mistakes."""


def render_markdown(groups: Sequence[Group]) -> str:
    """Returns the text of a report; notices stand right below its title."""
    title = " · ".join(_escape(group.title) for group in groups)
    names = list(dict.fromkeys(name for group in groups for name in group.names))
    lines = [f"> * {_escape(text)}" for text in notices(groups)]
    warning = "\n".join(["> **Read first**", ">", *lines]) if lines else ""
    parts = [f"# {title}", warning, ", ".join(map(_escape, names)), legend(groups)]
    for group in groups:
        if len(groups) > 1:
            parts.append(f"## {_escape(group.title)}")
        parts += _section(group, "###" if len(groups) > 1 else "##")
    return "\n\n".join(filter(None, parts)) + "\n"


def _escape(text: str) -> str:
    """Returns a text as one line without markup."""
    escaped = html.escape(" ".join(printable(text).split()), quote=False)
    return SPECIAL.sub(r"\\\1", escaped)


def _code(text: str) -> str:
    """Returns a text as one line of inline code."""
    words = " ".join(printable(text).split()) or "(nothing)"
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    space = " " if "`" in words else ""
    return f"{fence}{space}{words}{space}{fence}"


def _section(group: Group, heading: str) -> Iterator[str]:
    """Yields the parts of one evaluation."""
    headline = headline_grid(group)
    if headline.rows:
        yield _table(headline, heading)
    for tables in by_title(group, [result.tables for result in group.results]):
        yield _table(merge_tables(tables, group.is_comparison), heading)
    for radar in merge_radars(group):
        yield _table(radar_grid(radar), heading)
    for name, result in zip(group.names, group.results, strict=True):
        grids = [
            mistakes_grid(matrix)
            if len(matrix.labels) > MAX_MATRIX_LABELS
            else confusion_grid(matrix)
            for matrix in result.confusions
        ]
        grids += map(reliability_grid, result.reliabilities)
        suffix = f" ({name})" if group.is_comparison else ""
        for grid in grids:
            yield _table(grid._replace(title=grid.title + suffix), heading)
        if result.worst:
            yield f"{heading} Worst answers{_escape(suffix)}"
            yield "\n".join(_example(example) for example in result.worst)
    if any(result.settings for result in group.results):
        yield _table(settings_grid(group), heading)


def _table(grid: Grid, heading: str) -> str:
    """Returns a table with its title, footnotes and remarks."""
    columns = [
        f"{name}: {sub}" if sub else name for name, subs in grid.columns for sub in subs or ("",)
    ]
    lines = [["", *map(_escape, columns)], ["---", *("---:" for _ in columns)]]
    lines += [[_escape(name), *map(_cell, cells)] for name, cells in grid.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines) if grid.rows else "No rows."
    notes = "\n".join(f"{n}. {_escape(note)}" for n, note in enumerate(grid.notes, 1))
    parts = [f"{heading} {_escape(grid.title)}", table, notes, *map(_escape, grid.remarks)]
    return "\n\n".join(filter(None, parts))


def _cell(cell: Cell) -> str:
    count = f"({cell.count})" if cell.count else ""
    note = f"<sup>{cell.note}</sup>" if cell.note else ""
    return " ".join(filter(None, (*map(_escape, (cell.text, cell.interval, count)), note)))


def _example(example: Example) -> str:
    """Returns a question and its answer as an item of a list."""
    score = "" if example.score is None else f", score {number(example.score)}"
    lines = [f"1. {_code(file_name(example.audio) or 'no recording')}{score}"]
    lines.append(f"   * question: {_code(example.question)}")
    for option in marked_options(example):
        marks = f" **({', '.join(option.marks)})**" if option.marks else ""
        lines.append(f"   * option: {_code(option.text)}{marks}")
    lines.append(f"   * expected: {_code(example.expected)}")
    lines.append(f"   * predicted: {_code(example.predicted)}")
    return "\n".join(lines)
