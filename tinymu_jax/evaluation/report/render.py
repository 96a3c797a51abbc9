"""Render a report as one HTML page and as Markdown, with the jinja2 templates of this folder.

The HTML page embeds its styles, charts and audio; it runs no scripts and loads no other files.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tinymu_jax.evaluation.results import Metric, Table
from tinymu_jax.utils.numbers import NOT_AVAILABLE, number

FOLDER = Path(__file__).parent
BAR_ROWS = range(2, 41)
"""Numbers of rows that a table with a bar chart may have."""
MAX_BAR_COLUMNS = 4
MAX_MATRIX_LABELS = 12
"""Maximum number of labels of a confusion matrix that is printed as a table."""
MARKDOWN_CHARACTERS = re.compile(r"([\\`*_\[\]|~])")
Rows = Sequence[tuple[str, Sequence[Metric | None]]]
"""Rows of a bar chart: a name, and one metric per series."""
Draw = Callable[[charts.Chart], Markup]
"""Function that converts a chart to an SVG element."""


class Panel(NamedTuple):
    """A titled part of a report that shows a table, a chart or both."""

    title: str
    grid: Grid
    grid_class: str = ""
    chart: Markup | None = None
    caption: str = ""
    chart_only: bool = False
    """Whether the HTML page shows the chart instead of the table; Markdown shows the table."""
    is_wide: bool = False
    """Whether a wide chart scrolls sideways instead of shrinking to the width of the page."""


def render(groups: Sequence[Group], sounds: Mapping[str, Sound]) -> tuple[str, str]:
    """Return a report as the text of an HTML page and as Markdown, with one section per group.

    `sounds` has the audio of each recording whose answer is shown, by the recording's path.
    """
    numbers = count()

    def draw(chart: charts.Chart) -> Markup:
        return charts.to_svg(chart, f"chart {next(numbers)}")

    view = {
        "title": " · ".join(group.title for group in groups),
        "names": ", ".join(dict.fromkeys(name for group in groups for name in group.names)),
        "style": Markup((FOLDER / "report.css").read_text("utf-8")),
        "notices": notices(groups),
        "legend": legend(groups),
        "sounds": sounds,
        "sections": [_section(group, draw) for group in groups],
    }
    page = _template("report.html.jinja", _printable, autoescape=True).render(view)
    text = _template("report.md.jinja", _escape_markdown, autoescape=False).render(view)
    return page.strip() + "\n", re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _template(name: str, finalize: Any, autoescape: bool) -> Any:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.globals |= {
        "NOT_AVAILABLE": NOT_AVAILABLE,
        "code": _code,
        "file_name": file_name,
        "marked_options": marked_options,
        "number": number,
    }
    return environment.get_template(name)


def _printable(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def _escape_markdown(value: Any) -> Any:
    """Put a text on one line and escape Markdown and HTML; return other types unchanged."""
    if type(value) is not str:
        return value
    escaped = html.escape(" ".join(printable(value).split()), quote=False)
    return MARKDOWN_CHARACTERS.sub(r"\\\1", escaped)


def _code(text: str) -> Markup:
    """Return a text on one line as Markdown's inline code."""
    words = " ".join(printable(text).split()) or "(nothing)"
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    space = " " if "`" in words else ""
    return Markup(f"{fence}{space}{words}{space}{fence}")


def _section(group: Group, draw: Draw) -> dict[str, Any]:
    """Return the template variables of a report's section, which shows one evaluation."""
    headline, settings = _headline(group, draw), Panel("Settings", settings_grid(group), "words")
    tables = by_title(group, [result.tables for result in group.results])
    rows = [_radars(group, draw)]
    rows += [[_table(titled, group.is_comparison, draw)] for titled in tables]
    rows += _diagrams(group, draw)
    worst = [
        (f"Worst answers of {name}" if group.is_comparison else "Worst answers", result.worst)
        for name, result in zip(group.names, group.results, strict=True)
        if result.worst
    ]
    return {
        "title": group.title,
        # The headline is shown as cards for one checkpoint, as a table for several.
        "has_cards": not group.is_comparison,
        "headline": headline if headline.grid.rows else None,
        "rows": [row for row in rows if row],
        "worst": worst,
        "settings": settings if settings.grid.rows else None,
    }


def _headline(group: Group, draw: Draw) -> Panel:
    panel = Panel("Headline", headline_grid(group), "beside")
    if not group.is_comparison:
        return panel
    names = [name for name, _ in panel.grid.rows]
    rows = [(name, [result.headline.get(name) for result in group.results]) for name in names]
    return _with_bars(panel, panel.title, rows, group.names, draw)


def _table(tables: Sequence[tuple[str, Table]], is_comparison: bool, draw: Draw) -> Panel:
    """Return a panel with one table, merged from pairs (checkpoint, table), and a bar chart."""
    panel = Panel(tables[0][1].title, merge_tables(tables, is_comparison))
    columns, rows = align_tables([table for _, table in tables])
    if not is_comparison:
        metrics = [(row, [m for (m,) in cells[:MAX_BAR_COLUMNS]]) for row, cells in rows.items()]
        return _with_bars(panel, panel.title, metrics, columns[:MAX_BAR_COLUMNS], draw)
    # The chart compares the checkpoints by the metrics in the table's first column.
    metrics = [(row, cells[0]) for row, cells in rows.items() if cells]
    title = f"{panel.title}: {''.join(columns[:1])}"
    names = [name for name, _ in tables]
    return _with_bars(panel._replace(grid_class="beside"), title, metrics, names, draw)


def _with_bars(panel: Panel, title: str, rows: Rows, series: Sequence[str], draw: Draw) -> Panel:
    """Add a bar chart of the fractions in `rows` to a panel, if neither too few nor too many."""
    fractions = [
        (name, [m if m and m.is_fraction and m.value is not None else None for m in metrics])
        for name, metrics in rows
    ]
    drawn = [(name, metrics) for name, metrics in fractions if any(metrics)]
    if len(drawn) not in BAR_ROWS or len(series) > len(charts.SERIES_COLOURS):
        return panel
    caption = f"{title}, percent, with 95 % intervals"
    return panel._replace(chart=draw(charts.bars(title, drawn, series)), caption=caption)


def _radars(group: Group, draw: Draw) -> list[Panel]:
    """Return a panel per radar chart; one with too few or too many axes becomes a bar chart."""
    panels = []
    for radar in merge_radars(group):
        panel = Panel(radar.title, radar_grid(radar), chart_only=True)
        if len(radar.axes) in charts.RADAR_AXES:
            chart = draw(charts.radar(radar.title, radar.axes, radar.series))
            panel = panel._replace(chart=chart, caption="Percent, 0 at the centre")
        else:
            rows = [
                (axis, [Metric(line.values[number]) for line in radar.series])
                for number, axis in enumerate(radar.axes)
            ]
            names = [line.name for line in radar.series]
            panel = _with_bars(panel, radar.title, rows, names, draw)
        panels.append(panel)
    return panels


def _diagrams(group: Group, draw: Draw) -> Iterator[list[Panel]]:
    """Yield the panels of each checkpoint's confusion matrices and reliability diagrams."""
    for name, result in zip(group.names, group.results, strict=True):
        suffix = f" ({name})" if group.is_comparison else ""
        panels = []
        for matrix in result.confusions:
            size = len(matrix.labels)
            grid = mistakes_grid(matrix) if size > MAX_MATRIX_LABELS else confusion_grid(matrix)
            panel = Panel(matrix.title + suffix, grid, chart_only=True, is_wide=True)
            if size <= charts.MAX_CONFUSION_LABELS:
                caption = "Rows: true labels, columns: predicted ones; shaded by fraction of row"
                panel = panel._replace(chart=draw(charts.confusion(matrix)), caption=caption)
            panels.append(panel)
        for diagram in result.reliabilities:
            chart = draw(charts.reliability(diagram))
            grid, caption = reliability_grid(diagram), "Accuracy by confidence"
            panels.append(Panel(diagram.title + suffix, grid, "", chart, caption, chart_only=True))
        yield panels
