"""A report as one HTML page: styles, charts and sounds are embedded, and no script runs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tinymu_jax.evaluation.report import charts
from tinymu_jax.evaluation.report.compare import Group, by_title, merge_radars
from tinymu_jax.evaluation.report.examples import Sound, marked_options
from tinymu_jax.evaluation.report.tables import (
    Grid,
    align_tables,
    headline_grid,
    legend,
    merge_tables,
    mistakes_grid,
    notices,
    settings_grid,
)
from tinymu_jax.evaluation.report.text import file_name, printable
from tinymu_jax.evaluation.results import Confusion, Example, Metric, Table
from tinymu_jax.utils.numbers import NOT_AVAILABLE, number

FOLDER = Path(__file__).parent

BAR_ROWS = range(2, 41)
"""Numbers of rows that a table's bar chart is drawn with."""

MAX_BAR_COLUMNS = 4


class Panel(NamedTuple):
    """A titled part of the page: a table, a chart or both."""

    title: str
    grid: Grid | None = None
    grid_class: str = ""
    chart: Markup | None = None
    caption: str = ""
    is_wide: bool = False
    """Whether the chart scrolls sideways instead of shrinking to fit."""


def render_page(groups: Sequence[Group], sounds: Mapping[str, Sound]) -> str:
    """Returns the page of a report.

    Args:
        groups: what to show.
        sounds: the recording of each shown answer, by its path.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_control_characters,
    )
    environment.globals |= {
        "NOT_AVAILABLE": NOT_AVAILABLE,
        "file_name": file_name,
        "number": number,
        "marked_options": marked_options,
        "sounds": sounds,
    }
    draw = _ChartWriter()
    page = environment.get_template("report.html.jinja").render(
        title=" · ".join(group.title for group in groups),
        names=", ".join(dict.fromkeys(name for group in groups for name in group.names)),
        style=Markup((FOLDER / "report.css").read_text("utf-8")),
        notices=notices(groups),
        legend=legend(groups),
        sections=[_section(group, draw) for group in groups],
    )
    return page.lstrip() + "\n"


def _without_control_characters(value: Any) -> Any:
    return printable(value) if type(value) is str else value


class _ChartWriter:
    """Writes charts as SVG, each with ids of its own."""

    def __init__(self) -> None:
        self.numbers = count()

    def __call__(self, chart: charts.Chart) -> Markup:
        return charts.to_svg(chart, f"chart {next(self.numbers)}")


def _section(group: Group, draw: _ChartWriter) -> dict[str, Any]:
    """Returns the template's variables for one evaluation: headline, rows of panels, answers."""
    headline = headline_grid(group)
    rows = [_radars(group, draw)]
    if group.is_comparison and headline.rows:
        metrics = [(n, [one.headline.get(n) for one in group.results]) for n, _ in headline.rows]
        chart = _bars("Headline", metrics, group.names, draw)
        rows.insert(0, [chart._replace(title=headline.title, grid=headline, grid_class="beside")])
    rows += [
        [_table(tables, group.is_comparison, draw)]
        for tables in by_title(group, [result.tables for result in group.results])
    ]
    rows += _diagrams(group, draw)
    worst: list[tuple[str, Sequence[Example]]] = [
        (f"Worst answers of {name}" if group.is_comparison else "Worst answers", result.worst)
        for name, result in zip(group.names, group.results, strict=True)
        if result.worst
    ]
    has_settings = any(result.settings for result in group.results)
    return {
        "title": group.title,
        # Cards show one checkpoint, a table compares several.
        "headline": None if group.is_comparison or not headline.rows else headline,
        "rows": [row for row in rows if row],
        "worst": worst,
        "settings": Panel("Settings", settings_grid(group), "words") if has_settings else None,
    }


def _table(tables: Sequence[tuple[str, Table]], is_comparison: bool, draw: _ChartWriter) -> Panel:
    """Returns tables of one title as one, with a bar chart."""
    grid = merge_tables(tables, is_comparison)
    columns, rows = align_tables([table for _, table in tables])
    if is_comparison:
        # The chart shows one column of several checkpoints, or several columns of one.
        title, series = f"{grid.title}: {''.join(columns[:1])}", [name for name, _ in tables]
        metrics = [(row, cells[0]) for row, cells in rows.items() if cells]
    else:
        title, series = grid.title, columns[:MAX_BAR_COLUMNS]
        metrics = [(row, [m for (m,) in cells[:MAX_BAR_COLUMNS]]) for row, cells in rows.items()]
    chart = _bars(title, metrics, series, draw)
    return chart._replace(title=grid.title, grid=grid, grid_class="beside" if is_comparison else "")


def _bars(
    title: str,
    rows: Sequence[tuple[str, Sequence[Metric | None]]],
    series: Sequence[str],
    draw: _ChartWriter,
) -> Panel:
    """Returns a bar chart of the fractions among metrics; none for too few or too many."""
    fractions = [
        (name, [m if m and m.is_fraction and m.value is not None else None for m in metrics])
        for name, metrics in rows
    ]
    drawn = [(name, metrics) for name, metrics in fractions if any(metrics)]
    if len(drawn) not in BAR_ROWS or len(series) > len(charts.SERIES_COLOURS):
        return Panel(title)
    chart = draw(charts.bars(title, drawn, series))
    return Panel(title, chart=chart, caption=f"{title}, percent, with 95 % intervals")


def _radars(group: Group, draw: _ChartWriter) -> list[Panel]:
    """Returns radars; those of too few or too many axes as bars."""
    panels = []
    for title, axes, series in merge_radars(group):
        if len(axes) in charts.RADAR_AXES:
            chart = draw(charts.radar(title, axes, series))
            panels.append(Panel(title, chart=chart, caption="Percent, 0 at the centre"))
        else:
            rows = [(a, [Metric(line.values[n]) for line in series]) for n, a in enumerate(axes)]
            panels.append(_bars(title, rows, [line.name for line in series], draw))
    return panels


def _diagrams(group: Group, draw: _ChartWriter) -> Iterator[list[Panel]]:
    """Yields the confusion matrices and reliability diagrams of each checkpoint."""
    for name, result in zip(group.names, group.results, strict=True):
        suffix = f" ({name})" if group.is_comparison else ""
        panels = [_confusion(matrix, draw) for matrix in result.confusions]
        panels += [
            Panel(
                diagram.title,
                chart=draw(charts.reliability(diagram)),
                caption="Accuracy by confidence",
            )
            for diagram in result.reliabilities
        ]
        yield [panel._replace(title=panel.title + suffix) for panel in panels]


def _confusion(matrix: Confusion, draw: _ChartWriter) -> Panel:
    if len(matrix.labels) > charts.MAX_CONFUSION_LABELS:
        return Panel(matrix.title, mistakes_grid(matrix))
    caption = "Answers: rows are true labels, columns predicted ones; shaded by fraction of the row"
    chart = draw(charts.confusion(matrix))
    return Panel(matrix.title, chart=chart, caption=caption, is_wide=True)
