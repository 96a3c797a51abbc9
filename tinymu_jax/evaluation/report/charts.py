"""Pictures of a report as SVG elements, drawn here: a page shows them without any other file.

Colours are classes of report.css (`s0` to `s5` are series, `base` is a baseline), so that they
follow the page's light or dark mode. Each picture says in its `desc` the numbers that it shows.
"""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from tinymu_jax.evaluation.report.compare import Ring
from tinymu_jax.evaluation.report.markup import element
from tinymu_jax.evaluation.report.tables import figure
from tinymu_jax.evaluation.results import Confusion, Metric, Reliability

COLOURS = 6
"""Series that differ in colour; further ones are drawn in other dashes."""

DASHES = (None, "7 3", "2 3", "9 3 2 3")

LINE = 14
"""Height of a line of text."""

LETTER = 6.6
"""Width of a letter, about."""

RADAR_AXES = range(3, 17)
"""How many axes a radar can have: labels of more lie over each other."""

HEAT_LABELS = 40
"""Rows that a confusion is drawn with, at most."""


def _svg(width: float, height: float, title: str, numbers: str, *content: Element) -> Element:
    """Returns a picture with what is read to those who do not see it."""
    told = element("title", title), element("desc", numbers)
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}"}
    return element("svg", *told, *content, role="img", height=f"{height:.0f}", **size)


def _text(x: float, y: float, text: str, anchor: str = "start", **attributes: object) -> Element:
    """Returns a line of text; y is its base line."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text_anchor": anchor}
    return element("text", text, **place, **attributes)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", class_=kind, **{name: f"{end:.1f}" for name, end in ends.items()})


def _box(x: float, y: float, width: float, height: float, kind: str, *inside: Element) -> Element:
    sides = {"x": x, "y": y, "width": width, "height": height}
    named = {name: f"{side:.1f}" for name, side in sides.items()}
    return element("rect", *inside, class_=kind, **named)


def _wrapped(text: str, letters: int, lines: int) -> list[str]:
    """Returns the lines of a label; what has no place is left to the picture's `desc`."""
    return textwrap.wrap(text, letters, max_lines=lines, placeholder=" …") or [""]


def _series(number: int, ring: Ring | None = None) -> tuple[str, str | None]:
    """Returns class and dashes of a series."""
    if ring is not None and ring.baseline:
        return "base", DASHES[1 + number % 3]
    return f"s{number % COLOURS}", DASHES[number // COLOURS % len(DASHES)]


def _legend(names: Sequence[str], styles: Sequence[tuple[str, str | None]], y: float) -> list:
    """Returns a line for each series."""
    found = []
    for number, (name, (kind, dashes)) in enumerate(zip(names, styles, strict=True)):
        at = y + (LINE + 4) * number
        mark = _line(12, at - 4, 40, at - 4, f"stroke {kind}")
        if dashes:
            mark.set("stroke-dasharray", dashes)
        found += [mark, _text(48, at, _wrapped(name, 64, 1)[0])]
    return found


def radar(title: str, axes: Sequence[str], rings: Sequence[Ring]) -> Element:
    """Draws shares around a circle, from 0 at its centre.

    Args:
        title: said of the picture.
        axes: what is measured, in the order of the clock, as many as `RADAR_AXES`.
        rings: with a share for each axis; NaN leaves a gap.
    """
    radius, centre, middle = 134.0, 246.0, 188.0
    shares = [share for ring in rings for share in ring.values if math.isfinite(share)]
    outer = max(2, math.ceil(max(shares, default=1) * 10 - 1e-9)) / 10
    turns = [math.tau * number / len(axes) for number in range(len(axes))]

    def place(turn: float, share: float) -> tuple[float, float]:
        reach = radius * share / outer
        return centre + reach * math.sin(turn), middle - reach * math.cos(turn)

    drawn = []
    for step in range(1, 5):
        corners = " ".join("{:.1f},{:.1f}".format(*place(t, outer * step / 4)) for t in turns)
        drawn.append(element("polygon", class_="grid", points=corners))
    drawn += [_line(centre, middle, *place(turn, outer), "grid") for turn in turns]
    styles, alone = [], sum(not ring.baseline for ring in rings) == 1
    for number, ring in enumerate(rings):
        kind, dashes = _series(number, ring)
        styles.append((kind, dashes))
        points = [
            place(t, v) if math.isfinite(v) else None
            for t, v in zip(turns, ring.values, strict=True)
        ]
        drawn += _ring(points, kind, dashes, not ring.baseline, alone)
    for step in (2, 4):
        # On the middle of a side, where no axis is.
        x, y = place(turns[1] / 2, outer * step / 4 * math.cos(turns[1] / 2))
        scale = f"{100 * outer * step / 4:.0f} %"
        drawn.append(_text(x, y + 4, scale, "middle", class_="scale"))
    for axis, turn in zip(axes, turns, strict=True):
        drawn += _axis_label(axis, turn, *place(turn, outer * (1 + 14 / radius)))
    bottom = 2 * middle + 8
    drawn += _legend([ring.name for ring in rings], styles, bottom)
    numbers = "; ".join(
        f"{ring.name}: "
        + ", ".join(f"{a} {figure(v)}" for a, v in zip(axes, ring.values, strict=True))
        for ring in rings
    )
    return _svg(2 * centre, bottom + (LINE + 4) * len(rings), title, numbers, *drawn)


def _ring(
    points: Sequence[tuple[float, float] | None],
    kind: str,
    dashes: str | None,
    marked: bool,
    alone: bool,
) -> list[Element]:
    """Returns a ring's line and marks; without a point there is a gap."""
    steps = []
    for before, point in pairwise([None, *points, points[0]]):
        if point is not None:
            steps.append(f"{'M' if before is None else 'L'}{point[0]:.1f},{point[1]:.1f}")
    filled = " filled" if marked and alone and None not in points else ""
    drawn = [element("path", class_=f"stroke {kind}{filled}", d=" ".join(steps))]
    if dashes:
        drawn[0].set("stroke-dasharray", dashes)
    if marked:
        marks = [point for point in points if point is not None]
        drawn += [
            element("circle", class_=f"fill {kind}", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3)
            for x, y in marks
        ]
    return drawn


def _axis_label(axis: str, turn: float, x: float, y: float) -> list[Element]:
    """Returns the lines beside the end of an axis, outside the circle."""
    lines = _wrapped(axis, 16, 3)
    side, up = math.sin(turn), math.cos(turn)
    anchor = "middle" if abs(side) < 0.15 else "start" if side > 0 else "end"
    # The block of lines stands above the top, below the bottom, and level at the sides.
    top = y - LINE * len(lines) * (1 + up) / 2 + 11
    return [_text(x, top + LINE * n, line, anchor) for n, line in enumerate(lines)]


def bars(
    title: str, rows: Sequence[tuple[str, Sequence[Metric | None]]], series: Sequence[str]
) -> Element:
    """Draws shares as bars with their intervals.

    Args:
        title: said of the picture.
        rows: by their names, a measure for each series; None leaves it out.
        series: names, in a legend where there are several.
    """
    longest = max((len(name) for name, _ in rows), default=0)
    left, wide, thick = min(24, longest) * LETTER + 14, 250.0, 14.0
    drawn, y = [], 24.0
    tops = []
    for name, measures in rows:
        lines = _wrapped(name, 24, 2)
        high = max(thick * len(measures), LINE * len(lines))
        start = y + (high - LINE * len(lines)) / 2 + 11
        drawn += [_text(left - 8, start + LINE * n, line, "end") for n, line in enumerate(lines)]
        tops.append(y + (high - thick * len(measures)) / 2)
        y += high + 8
    grid = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = left + wide * share
        grid += [_line(x, 18, x, y, "grid"), _text(x, 12, f"{100 * share:.0f}", "middle")]
    for (_, measures), top in zip(rows, tops, strict=True):
        for number, measure in enumerate(measures):
            drawn += _bar(left, top + thick * number, wide, thick, measure, number)
    if len(series) > 1:
        drawn += _legend(series, [_series(number) for number in range(len(series))], y + 20)
        y += 12 + (LINE + 4) * len(series)
    numbers = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{own} {figure(m.value)}" for own, m in zip(series, measures, strict=True) if m
        )
        for name, measures in rows
    )
    return _svg(left + wide + 52, y + 10, title, numbers, *grid, *drawn)


def _bar(
    left: float, y: float, wide: float, thick: float, measure: Metric | None, number: int
) -> list[Element]:
    """Returns a bar, its interval, and its number to the right of both."""
    if measure is None or measure.value is None or not math.isfinite(measure.value):
        return []
    kind, _ = _series(number)
    low, end, high = (
        left + wide * min(max(share, 0.0), 1.0)
        for share in (measure.low or 0, measure.value, measure.high or 0)
    )
    drawn = [_box(left, y + 1, end - left, thick - 2, f"bar {kind}")]
    if measure.low is not None and measure.high is not None:
        middle = y + thick / 2
        drawn.append(_line(low, middle, high, middle, "whisker"))
        drawn += [_line(x, middle - 3, x, middle + 3, "whisker") for x in (low, high)]
    return [*drawn, _text(max(end, high) + 5, y + thick - 3, figure(measure.value))]


def confusion(found: Confusion) -> Element:
    """Draws counts as a heat map, shaded by their share of their row."""
    size = len(found.labels)
    side = 40.0 if size <= 12 else 32.0 if size <= 20 else 26.0
    longest = max((min(len(label), 22) for label in found.labels), default=0) * LETTER
    left, top = longest + 34, longest * 0.72 + 40
    drawn = [
        _text(left + side * size / 2, 12, "said", "middle", class_="scale"),
        element("g", _text(0, 0, "right", "middle", class_="scale")),
    ]
    drawn[1].set("transform", f"translate(12 {top + side * size / 2:.1f}) rotate(-90)")
    for number, label in enumerate(found.labels):
        short, middle = _wrapped(label, 22, 1)[0], side * (number + 0.5)
        drawn.append(_text(left - 6, top + middle + 4, short, "end"))
        turned = element("g", _text(0, 0, short))
        turned.set("transform", f"translate({left + middle + 3:.1f} {top - 6:.1f}) rotate(-45)")
        drawn.append(turned)
    small = "" if side > 30 else "small"
    for row, (label, counts) in enumerate(zip(found.labels, found.counts, strict=True)):
        total = sum(counts)
        for column, count in enumerate(counts):
            x, y, share = left + side * column, top + side * row, count / total if total else 0
            said = f"{label} taken for {found.labels[column]}: {count} of {total}"
            heat = _box(x, y, side - 1, side - 1, "heat", element("title", said))
            heat.set("fill-opacity", f"{share:.2f}")
            drawn += [_box(x, y, side - 1, side - 1, "cell"), heat]
            if count:
                middle = x + (side - 1) / 2, y + side / 2 + 4
                drawn.append(_text(*middle, str(count), "middle", class_=f"count {small}".strip()))
    numbers = "; ".join(
        f"{label}: {counts[row]} of {sum(counts)} right"
        for row, (label, counts) in enumerate(zip(found.labels, found.counts, strict=True))
    )
    width, height = left + side * size + longest * 0.72 + 8, top + side * size + 6
    return _svg(width, height, found.title, numbers, *drawn)


def reliability(found: Reliability) -> Element:
    """Draws how often answers of each confidence are right, and how many there are of each."""
    left, top, side, strip = 56.0, 12.0, 280.0, 56.0
    base, foot = top + side, top + side + 14 + strip
    drawn = []
    for step in range(6):
        x, y = left + side * step / 5, base - side * step / 5
        drawn += [_line(left, y, left + side, y, "grid"), _line(x, top, x, base, "grid")]
        drawn.append(_text(left - 6, y + 4, str(20 * step), "end"))
        drawn.append(_text(x, foot + LINE + 2, str(20 * step), "middle"))
    bins = sorted(zip(found.confidence, found.accuracy, found.counts, strict=True))
    # Bins are known by their means alone: a bar reaches half way to the next, 5 points at most.
    between = [(a[0] + b[0]) / 2 for a, b in pairwise(bins)]
    most = max((count for *_, count in bins), default=0) or 1
    for number, (sure, right, count) in enumerate(bins):
        low = max(sure - 0.05, 0.0, between[number - 1] if number else 0.0)
        high = min(sure + 0.05, 1.0, between[number] if number < len(between) else 1.0)
        x, wide = left + side * low + 0.5, max(side * (high - low) - 1, 1.5)
        said = f"confidence {figure(sure)}: {figure(right)} right of {count}"
        drawn.append(_box(x, base - side * right, wide, side * right, "bar s0"))
        drawn[-1].append(element("title", said))
        gap = sorted((right, sure))
        drawn.append(_box(x, base - side * gap[1], wide, side * (gap[1] - gap[0]), "gap"))
        high_count = strip * count / most
        drawn.append(_box(x, foot - high_count, wide, high_count, "many"))
    drawn += [
        _line(left, base, left + side, top, "diagonal"),
        _line(left, foot, left + side, foot, "grid"),
        _text(left + 8, top + 18, f"ECE {figure(found.ece)} %", class_="strong"),
        _text(left + side / 2, foot + 2 * LINE + 8, "confidence, %", "middle", class_="scale"),
        _text(left + side + 6, foot - strip + 10, str(most), class_="scale"),
    ]
    for y, words in (((top + base) / 2, "right, %"), (foot - strip / 2, "answers")):
        turned = element("g", _text(0, 0, words, "middle", class_="scale"))
        turned.set("transform", f"translate(14 {y:.1f}) rotate(-90)")
        drawn.append(turned)
    numbers = "; ".join(f"confidence {figure(c)}: {figure(a)} right of {n}" for c, a, n in bins)
    ece = f"Expected calibration error {figure(found.ece)}. {numbers}"
    return _svg(left + side + 44, foot + 3 * LINE, found.title, ece, *drawn)
