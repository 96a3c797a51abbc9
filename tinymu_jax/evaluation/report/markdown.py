"""A report in Markdown, for a repository or an issue."""

import html
import re
from collections.abc import Sequence

from tinymu_jax.evaluation.report.compare import Group, file_name, overlaid, same_titles
from tinymu_jax.evaluation.report.examples import marked
from tinymu_jax.evaluation.report.markup import shown, without_folders
from tinymu_jax.evaluation.report.tables import (
    Cell,
    Grid,
    cell,
    figure,
    headline,
    legend,
    mistakes,
    settings,
    side_by_side,
)
from tinymu_jax.evaluation.results import Confusion, Example, Metric, Reliability

SIGNS = re.compile(r"([\\`*_\[\]|~])")
"""What Markdown reads as more than a sign."""

MATRIX_LABELS = 12
"""Rows that a confusion is printed with, at most."""


def markdown(groups: Sequence[Group]) -> str:
    """Returns the report's text; notices stand right below its title."""
    title = " · ".join(_plain(group.title) for group in groups)
    names = list(dict.fromkeys(name for group in groups for name in group.names))
    parts = [f"# {title}", _notices(groups), ", ".join(map(_plain, names)), legend(groups)]
    for group in groups:
        level = 3 if len(groups) > 1 else 2
        if len(groups) > 1:
            parts.append(f"## {_plain(group.title)}")
        parts += _part(group, "#" * level)
    return "\n\n".join(filter(None, parts)) + "\n"


def _plain(text: str) -> str:
    """Returns a text in one line, whose signs are read as signs."""
    escaped = html.escape(" ".join(shown(text).split()), quote=False)
    return SIGNS.sub(r"\\\1", escaped)


def _verbatim(text: str) -> str:
    """Returns a text in one line as code: nothing in it is read, no name is called."""
    words = " ".join(shown(text).split()) or "(nothing)"
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    space = " " if "`" in words else ""
    return f"{fence}{space}{words}{space}{fence}"


def _notices(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        for name, one in zip(group.names, group.findings, strict=True):
            before = [group.title] if len(groups) > 1 else []
            before += [name] if group.several else []
            opening = f"{', '.join(before)}: " if before else ""
            lines += [f"> * {_plain(opening + without_folders(text))}" for text in one.notices]
    return "\n".join(["> **Read first**", ">", *lines]) if lines else ""


def _part(group: Group, sign: str) -> list[str]:
    """Returns the parts of what was found in one evaluation."""
    first = headline(group)
    parts = _grid(first, sign) if first.rows else []
    for tables in same_titles(group, [one.tables for one in group.findings]):
        parts += _grid(side_by_side(tables, group.several), sign)
    for radars in same_titles(group, [one.radars for one in group.findings]):
        for title, axes, rings in overlaid(radars, group.several):
            rows = [
                (a, [Cell(figure(ring.values[n])) for ring in rings]) for n, a in enumerate(axes)
            ]
            parts += _grid(Grid(title, [(ring.name, ()) for ring in rings], rows), sign)
    for name, one in zip(group.names, group.findings, strict=True):
        own = f" ({name})" if group.several else ""
        for found in one.confusions:
            grid = _confusion(found)
            parts += _grid(grid._replace(title=grid.title + own), sign)
        for found in one.reliabilities:
            grid = _reliability(found)
            parts += _grid(grid._replace(title=grid.title + own), sign)
        if one.worst:
            parts.append(f"{sign} Worst answers{_plain(own)}")
            parts.append("\n".join(_answer(answer) for answer in one.worst))
    if any(one.settings for one in group.findings):
        parts += _grid(settings(group), sign)
    return parts


def _grid(grid: Grid, sign: str) -> list[str]:
    """Returns a table below its title, and what stands below it."""
    columns = [
        f"{name}: {part}" if part else name for name, below in grid.heads for part in below or ("",)
    ]
    lines = [["", *map(_plain, columns)], ["---", *("---:" for _ in columns)]]
    lines += [[_plain(name), *map(_cell, cells)] for name, cells in grid.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines) if grid.rows else "No rows."
    notes = "\n".join(f"{n}. {_plain(note)}" for n, note in enumerate(grid.notes, 1))
    return [f"{sign} {_plain(grid.title)}", table, notes, *map(_plain, grid.remarks)]


def _cell(printed: Cell) -> str:
    many = f"({printed.count})" if printed.count else ""
    note = f"<sup>{printed.note}</sup>" if printed.note else ""
    return " ".join(filter(None, (*map(_plain, (printed.text, printed.interval, many)), note)))


def _confusion(found: Confusion) -> Grid:
    """Returns a confusion, or what is most frequent in it."""
    if len(found.labels) > MATRIX_LABELS:
        return mistakes(found)
    rows = [
        (label, [Cell(f"{count:,}") for count in counts])
        for label, counts in zip(found.labels, found.counts, strict=True)
    ]
    remark = "A row is the right label, a column what was said."
    return Grid(found.title, [(label, ()) for label in found.labels], rows, remarks=[remark])


def _reliability(found: Reliability) -> Grid:
    rows = [
        (figure(sure), [cell(Metric(right), []), Cell(f"{count:,}")])
        for sure, right, count in zip(found.confidence, found.accuracy, found.counts, strict=True)
    ]
    remark = f"By confidence in percent. Expected calibration error: {figure(found.ece)} %."
    return Grid(found.title, [("right", ()), ("answers", ())], rows, remarks=[remark])


def _answer(answer: Example) -> str:
    """Returns a question and what was answered as a point of a list."""
    score = "" if answer.score is None else f", score {figure(answer.score, share=False)}"
    lines = [f"1. {_verbatim(file_name(answer.audio) or 'no recording')}{score}"]
    lines.append(f"   * question: {_verbatim(answer.question)}")
    for option in marked(answer):
        words = [word for word, is_so in (("right", option.right), ("said", option.said)) if is_so]
        about = f" **({', '.join(words)})**" if words else ""
        lines.append(f"   * option: {_verbatim(option.text)}{about}")
    lines.append(f"   * wanted: {_verbatim(answer.expected)}")
    lines.append(f"   * said: {_verbatim(answer.predicted)}")
    return "\n".join(lines)
