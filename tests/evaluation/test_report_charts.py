"""Charts of a report: lengths, positions and shades follow the numbers; SVG is safe and stable."""

import math
import re
from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_hex
from report_cases import eval_result, written

from tinymu_jax.evaluation.report import charts
from tinymu_jax.evaluation.report.charts import bars, confusion, radar, reliability, to_svg
from tinymu_jax.evaluation.report.compare import RadarSeries
from tinymu_jax.evaluation.results import Confusion, Metric, Radar, Reliability, Table

EVIL = "<script>alert('x')</script>--> $\\frac{a}{b}$ \x1b"


def texts(chart):
    """Returns the texts of a chart as they stand in its SVG."""
    root = ElementTree.fromstring(to_svg(chart, ""))
    return ["".join(one.itertext()) for one in root.iter() if one.tag.endswith("text")]


def tooltips(chart):
    """Returns the titles of the shapes in a chart's SVG."""
    root = ElementTree.fromstring(to_svg(chart, ""))
    return [one.text for one in root.iter() if one.tag.endswith("title")][1:]


def test_a_radar_reaches_as_far_as_the_fraction():
    chart = radar("R", "abcd", [RadarSeries("m", (0.8, 0.4, 0.2, 0.0), False)])
    (polar,) = chart.figure.axes
    (line,) = polar.lines
    assert line.get_ydata() == pytest.approx([0.8, 0.4, 0.2, 0.0, 0.8])
    # Clockwise from the top; the outermost circle is at 80 %.
    centre, outer = polar.transData.transform([(0, 0), (0, 0.8)])
    up, right = polar.transData.transform([(0, 0.8), (math.pi / 2, 0.4)])
    assert up == pytest.approx(outer)
    assert right == pytest.approx((centre[0] + (outer[1] - centre[1]) / 2, centre[1]))
    assert polar.get_ylim() == (0, 0.8)
    assert {"80 %", "40 %", "a", "b", "c", "d", "m"} <= set(texts(chart))


def test_a_radar_has_a_gap_where_nothing_was_asked():
    chart = radar("R", "abcd", [RadarSeries("m", (0.8, math.nan, 0.2, 0.4), False)])
    (polar,) = chart.figure.axes
    assert math.isnan(polar.lines[0].get_ydata()[1])
    # The line is not filled.
    assert not polar.patches
    path, _ = re.findall(r'<path d="([^"]*)"[^>]*var\(--s0\)', to_svg(chart, ""))
    assert path.count("M") == 2


def test_the_only_series_is_filled():
    chart = radar("R", "abc", [RadarSeries("m", (0.8, 0.2, 0.4), False)])
    assert len(chart.figure.axes[0].patches) == 1


def test_a_baseline_is_dashed_and_grey():
    series = [RadarSeries("m", (0.1, 0.2, 0.3), False), RadarSeries("blind", (0.3, 0.3, 0.3), True)]
    line, baseline = radar("R", "abc", series).figure.axes[0].lines
    assert not line.is_dashed()
    assert baseline.is_dashed()
    assert baseline.get_color() == charts.BASELINE


def test_labels_of_a_radar_do_not_overlap():
    axes = [f"a category of some length {n}" for n in range(16)]
    figure = radar("R", axes, [RadarSeries("m", (0.5,) * 16, False)]).figure
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 16
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_bars_are_as_long_as_the_fraction_and_show_the_interval():
    rows = [("full", [Metric(1.0)]), ("half", [Metric(0.5, 0.25, 0.75)]), ("none", [None])]
    chart = bars("B", rows, ["m"])
    (axes,) = chart.figure.axes
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5]
    assert axes.get_xlim() == (0, 1)
    (whisker,) = axes.lines
    assert list(whisker.get_xdata()) == [0.25, 0.75]
    assert {"100.0", "50.0", "full", "half", "none"} <= set(texts(chart))


def test_a_confusion_is_shaded_by_fraction_of_its_row():
    chart = confusion(Confusion("C", ("rock", "jazz"), ((3, 1), (0, 0))))
    (axes,) = chart.figure.axes
    background, *cells = axes.patches
    assert [(cell.get_xy(), cell.get_alpha() or cell.get_facecolor()[3]) for cell in cells] == [
        ((-0.5, -0.5), 0.75),
        ((0.5, -0.5), 0.25),
    ]
    assert to_hex(background.get_facecolor()) == charts.CARD
    assert [text.get_text() for text in axes.texts] == ["3", "1"]
    assert tooltips(chart) == ["rock taken for rock: 3 of 4", "rock taken for jazz: 1 of 4"]


def test_a_reliability_diagram_has_bars_of_its_accuracy_and_its_error():
    chart = reliability(Reliability("R", (0.25, 0.75), (0.5, 1.0), (10, 40), 0.125))
    upper, lower = chart.figure.axes
    assert [bar.get_height() for bar in upper.patches] == [0.5, -0.25, 1.0, -0.25]
    assert [bar.get_height() for bar in lower.patches] == [10, 40]
    assert "ECE 12.5 %" in texts(chart)
    diagonal = upper.lines[0]
    assert [*diagonal.get_xdata(), *diagonal.get_ydata()] == [0, 1, 0, 1]
    assert tooltips(chart)[1] == "confidence 75.0: 100.0 right of 40"


def test_no_answers_give_an_empty_chart():
    upper, lower = reliability(Reliability("R", (), (), (), math.nan)).figure.axes
    assert not upper.patches
    assert not lower.patches


def test_text_in_a_chart_is_only_text():
    chart = confusion(Confusion(EVIL, (EVIL, "b"), ((1, 0), (0, 1))))
    svg = to_svg(chart, "")
    root = ElementTree.fromstring(svg)
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    assert root[0].text == root[1].text.split(":")[0] == EVIL.replace("\x1b", "\\x1b")
    assert any("$\\frac{a}{b}$" in text for text in tooltips(chart))


def test_a_chart_is_the_same_each_time_and_follows_the_theme():
    def draw():
        return to_svg(bars("B", [("a", [Metric(0.5, 0.4, 0.6)])], ["m"]), "chart 1")

    assert draw() == draw()
    assert "var(--s0)" in draw()
    assert "var(--ink)" in draw()
    assert not re.findall(r"(?:fill|stroke): #(?!fff)", draw())
    assert "http://" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", draw())


def test_large_confusions_are_listed(tmp_path):
    labels = [f"label {n}" for n in range(41)]
    counts = [[int(row == column) for column in range(41)] for row in range(41)]
    counts[3][5] = 7
    page, text = written(tmp_path, eval_result(confusions=(Confusion("Large", labels, counts),)))
    assert "label 3 taken for label 5 7" in page.texts("tr")
    assert "| label 3 taken for label 5 | 7 |" in text
    assert "The 1 most frequent of 1 mistakes; all are in report.json." in page.texts("p", "note")


def test_a_radar_of_two_axes_is_drawn_as_bars(tmp_path):
    two = Radar("Two", ("a", "b"), {"m": (0.25, math.nan), "blind": (0.5, 0.75)})
    page, _ = written(tmp_path, eval_result(radars=(two,)))
    assert "a: m 25.0, blind 50.0; b: m not available, blind 75.0" in page.texts("desc")


def test_metrics_on_other_scales_are_not_drawn_as_fractions(tmp_path):
    rows = {name: (Metric(12.0, is_fraction=False),) for name in ("a", "b", "c")}
    page, _ = written(tmp_path, eval_result(tables=(Table("Scores", ("x",), rows),)))
    assert "Scores" not in page.texts("title")
