"""Draw a report's charts with matplotlib, and convert them to SVG for the HTML page.

Colours become CSS variables of report.css, so that charts follow the page's light or dark theme.
Text is not converted to outlines. The same chart always gives the same SVG.
"""

import io
import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from tinymu_jax.evaluation.report.compare import RadarSeries
from tinymu_jax.evaluation.report.text import printable
from tinymu_jax.evaluation.results import Confusion, Metric, Reliability
from tinymu_jax.utils.numbers import percent

SERIES_COLOURS = ("#0b62a8", "#c24e00", "#00795a", "#96407c", "#7a6200", "#4a4fb5")
"""Colours of a chart's lines or bars; further lines repeat the colours with other dashes."""
INK, QUIET, RULE, BASELINE = "#1b1e23", "#555c66", "#d5d9df", "#70757d"
HEAT, CARD, PAPER = "#6aa6de", "#f5f6f8", "#fefefe"
CSS_VARIABLES = {colour: f"var(--s{number})" for number, colour in enumerate(SERIES_COLOURS)} | {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    RULE: "var(--rule)",
    BASELINE: "var(--base)",
    HEAT: "var(--heat)",
    CARD: "var(--card)",
    PAPER: "var(--paper)",
}
"""CSS variable that replaces each colour in the SVG."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "grid.color": RULE,
    "grid.linewidth": 0.75,
    "legend.borderaxespad": 1.2,
    "legend.borderpad": 0,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
}
DASHES = ("-", (0, (4, 2)), (0, (1.5, 2)), (0, (5, 2, 1.5, 2)))
LINE_HEIGHT = 10.5
"""Distance from one line of text to the next, in points."""
RADAR_AXES = range(3, 17)
"""Numbers of axes that a radar chart may have; the labels of more axes would overlap."""
MAX_CONFUSION_LABELS = 40
TOOLTIP = "tooltip:"
"""Prefix of an artist's id (`gid`); the rest of the id becomes a tooltip in the SVG."""


class Chart(NamedTuple):
    """A figure, with its title and description for screen readers."""

    figure: Figure
    title: str
    description: str
    """All numbers of the chart as text."""


def to_svg(chart: Chart, salt: str) -> Markup:
    """Convert a chart to an SVG element for an HTML page.

    `salt` must be different for each chart of a page, so that no SVG ids collide.
    """
    file = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context(STYLE | {"svg.hashsalt": salt}):
        chart.figure.savefig(
            file,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.05,
            metadata=metadata,
        )
    svg = file.getvalue()
    # matplotlib's style element would apply to the whole page; report.css has its rule instead.
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(rf'<g id="{TOOLTIP}([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    colours = "|".join(CSS_VARIABLES)
    svg = re.sub(rf"(?<=: )({colours})\b", lambda match: CSS_VARIABLES[match[0]], svg)
    svg = svg.replace("'DejaVu Sans', sans-serif", "system-ui, 'DejaVu Sans', sans-serif")
    title, description = (escape(printable(text)) for text in (chart.title, chart.description))
    opening = f'<svg role="img"><title>{title}</title><desc>{description}</desc>'
    attributes, rest = svg.removeprefix("<svg").split(">", 1)
    return Markup(opening.replace('role="img"', f'role="img"{attributes}', 1) + rest)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure (size in points) and axes that fill it; their labels lie outside of it."""
    figure = Figure(figsize=(width / 72, height / 72))
    return figure, figure.add_axes((0, 0, 1, 1))


def _wrap(text: str, letters: int, lines: int = 1) -> list[str]:
    """Wrap a label to at most `lines` lines of `letters` characters; the rest becomes "…"."""
    wrapped = textwrap.wrap(printable(text), letters) or [""]
    if len(wrapped) > lines:
        wrapped[lines - 1] = wrapped[lines - 1][: letters - 2] + " …"
    return wrapped[:lines]


@rc_context(STYLE)
def radar(title: str, axes: Sequence[str], series: Sequence[RadarSeries]) -> Chart:
    """Draw a radar chart of fractions, with 0 at the centre.

    `axes` has the names of the axes, clockwise from the top; `RADAR_AXES` limits their number. Each
    line in `series` has one fraction per axis; NaN leaves a gap.
    """
    figure = Figure(figsize=(200 / 72, 200 / 72))
    polar: Any = figure.add_axes((0, 0, 1, 1), projection="polar")
    polar.set(theta_zero_location="N", theta_direction=-1)
    finite = [value for line in series for value in line.values if math.isfinite(value)]
    outer = max(2, math.ceil(max(finite, default=1) * 10 - 1e-9)) / 10
    angles = [math.tau * number / len(axes) for number in range(len(axes))]
    polar.set_xticks(angles, [""] * len(axes))
    ticks = [outer * quarter / 4 for quarter in range(1, 5)]
    labels = ["", f"{percent(outer / 2, 0)} %", "", f"{percent(outer, 0)} %"]
    polar.set_yticks(ticks, labels, fontsize=8, color=QUIET)
    polar.set_rlabel_position(180 / len(axes))
    polar.set_ylim(0, outer)
    only_one = sum(not line.is_baseline for line in series) == 1
    for number, line in enumerate(series):
        colour = BASELINE if line.is_baseline else SERIES_COLOURS[number % len(SERIES_COLOURS)]
        dash = 1 + number % 3 if line.is_baseline else number // len(SERIES_COLOURS) % len(DASHES)
        polar.plot(
            [*angles, angles[0]],
            [*line.values, line.values[0]],
            color=colour,
            linestyle=DASHES[dash],
            linewidth=1.3 if line.is_baseline else 1.7,
            marker="" if line.is_baseline else "o",
            markersize=4,
            label=_wrap(line.name, 64)[0],
            clip_on=False,
        )
        if only_one and not line.is_baseline and all(map(math.isfinite, line.values)):
            polar.fill(angles, line.values, color=colour, alpha=0.1)
    for axis, angle in zip(axes, angles, strict=True):
        lines, side, up = _wrap(axis, 16, 3), math.sin(angle), math.cos(angle)
        # Labels stand above the circle at the top, below it at the bottom, beside it at the sides.
        polar.annotate(
            "\n".join(lines),
            (angle, outer),
            (10 * side, (10 + LINE_HEIGHT * len(lines) / 2) * up),
            textcoords="offset points",
            ha="center" if abs(side) < 0.15 else "left" if side > 0 else "right",
            va="center",
        )
    polar.legend(loc="upper left", bbox_to_anchor=(-0.4, -0.16))
    description = "; ".join(
        f"{line.name}: "
        + ", ".join(f"{a} {percent(v)}" for a, v in zip(axes, line.values, strict=True))
        for line in series
    )
    return Chart(figure, title, description)


@rc_context(STYLE)
def bars(
    title: str, rows: Sequence[tuple[str, Sequence[Metric | None]]], series: Sequence[str]
) -> Chart:
    """Draw fractions as horizontal bars with confidence intervals.

    Each row has a name, and one metric for each name in `series`; None gives no bar.
    """
    thickness, labels, middles, y = 10.5, [], [], 6.0
    for name, _ in rows:
        labels.append(_wrap(name, 24, 2))
        height = max(thickness * len(series), LINE_HEIGHT * len(labels[-1]))
        middles.append(y + height / 2)
        y += height + 6
    figure, axes = _figure(190, y)
    axes.set(xlim=(0, 1), ylim=(y, 0))
    axes.set_yticks(middles, ["\n".join(lines) for lines in labels])
    quarters = (0, 0.25, 0.5, 0.75, 1)
    axes.set_xticks(quarters, [percent(fraction, 0) for fraction in quarters])
    axes.xaxis.tick_top()
    axes.grid(axis="x")
    for (_, metrics), middle in zip(rows, middles, strict=True):
        for number, metric in enumerate(metrics):
            if metric is None or metric.value is None or not math.isfinite(metric.value):
                continue
            at = middle + thickness * (number - (len(metrics) - 1) / 2)
            end, low, high = (
                min(max(value or 0.0, 0.0), 1.0)
                for value in (metric.value, metric.low, metric.high)
            )
            axes.barh(at, end, thickness - 1.5, color=SERIES_COLOURS[number], alpha=0.8)
            if metric.low is not None and metric.high is not None:
                whisker = {"color": INK, "linewidth": 0.9, "marker": "|", "markersize": 5}
                axes.plot((low, high), (at, at), clip_on=False, **whisker)
            axes.text(max(end, high) + 0.02, at, percent(metric.value), va="center_baseline")
    if len(series) > 1:
        patches = [
            Patch(color=colour, label=_wrap(name, 64)[0])
            for name, colour in zip(series, SERIES_COLOURS, strict=False)
        ]
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(-0.3, 0))
    description = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{label} {percent(m.value)}" for label, m in zip(series, metrics, strict=True) if m
        )
        for name, metrics in rows
    )
    return Chart(figure, title, description)


@rc_context(STYLE)
def confusion(matrix: Confusion) -> Chart:
    """Draw a confusion matrix as a heat map; shading shows a count's fraction of its row."""
    size = len(matrix.labels)
    side = 30.0 if size <= 12 else 24.0 if size <= 20 else 19.5
    figure, axes = _figure(side * size, side * size)
    names = [_wrap(label, 22)[0] for label in matrix.labels]
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    axes.set_xticks(range(size), names, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.tick_params(top=False, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="predicted", ylabel="true label")
    axes.add_patch(Rectangle((-0.5, -0.5), size, size, facecolor=CARD))
    edges = [number - 0.5 for number in range(size + 1)]
    for draw in (axes.hlines, axes.vlines):
        draw(edges, -0.5, size - 0.5, color=PAPER, linewidth=1, zorder=2)
    for row, counts in enumerate(matrix.counts):
        total = sum(counts)
        for column, count in enumerate(counts):
            if not count:
                continue
            cell = (column - 0.5, row - 0.5)
            patch = Rectangle(cell, 1, 1, facecolor=(HEAT, count / total))
            words = f"{matrix.labels[row]} taken for {matrix.labels[column]}: {count} of {total}"
            patch.set_gid(TOOLTIP + printable(words))
            axes.add_patch(patch)
            axes.text(column, row, count, ha="center", va="center", fontsize=9 if side > 20 else 7)
    description = "; ".join(
        f"{label}: {counts[row]} of {sum(counts)} right"
        for row, (label, counts) in enumerate(zip(matrix.labels, matrix.counts, strict=True))
    )
    return Chart(figure, matrix.title, description)


@rc_context(STYLE)
def reliability(diagram: Reliability) -> Chart:
    """Draw the accuracy in each bin of confidence, and below it the bin's number of answers."""
    figure = Figure(figsize=(210 / 72, 266 / 72))
    upper: Any = figure.add_axes((0, 56 / 266, 1, 210 / 266))
    lower: Any = figure.add_axes((0, 0, 1, 42 / 266), sharex=upper)
    bins = sorted(zip(diagram.confidence, diagram.accuracy, diagram.counts, strict=True))
    # Bins have means but no edges: a bar reaches half way to the next bin, at most 5 points.
    between = [(left[0] + right[0]) / 2 for left, right in pairwise(bins)]
    for number, (confidence, accuracy, count) in enumerate(bins):
        low = max(confidence - 0.05, 0.0, between[number - 1] if number else 0.0)
        high = min(confidence + 0.05, 1.0, between[number] if number < len(between) else 1.0)
        place = {"x": low, "width": max(high - low - 0.003, 0.005), "align": "edge"}
        (bar,) = upper.bar(height=accuracy, color=SERIES_COLOURS[0], alpha=0.8, **place)
        words = f"confidence {percent(confidence)}: {percent(accuracy)} right of {count}"
        bar.set_gid(TOOLTIP + words)
        outline = {"facecolor": "none", "edgecolor": SERIES_COLOURS[1], "linestyle": "--"}
        upper.bar(height=confidence - accuracy, bottom=accuracy, linewidth=0.75, **outline, **place)
        lower.bar(height=count, color=BASELINE, **place)
    upper.plot((0, 1), (0, 1), color=QUIET, linestyle="--", linewidth=1)
    most = max(diagram.counts, default=0)
    ticks = [step / 5 for step in range(6)]
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="right, %")
    upper.set_yticks(ticks, [percent(tick, 0) for tick in ticks])
    upper.tick_params(labelbottom=False)
    upper.grid()
    upper.text(0.03, 0.93, f"ECE {percent(diagram.ece)} %", fontsize=10, weight="bold")
    lower.set(ylim=(0, most or 1), ylabel="answers", xlabel="confidence, %")
    lower.set_xticks(ticks, [percent(tick, 0) for tick in ticks])
    lower.set_yticks([most] if most else [], [f"{most:,}"] if most else [])
    lower.axhline(0, color=RULE)
    numbers = "; ".join(f"confidence {percent(c)}: {percent(a)} right of {n}" for c, a, n in bins)
    description = f"Expected calibration error {percent(diagram.ece)}. {numbers}"
    return Chart(figure, diagram.title, description)
