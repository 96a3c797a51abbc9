"""Pictures of a report: lengths, places and shades are the numbers."""

import math

import pytest
from report_cases import findings, written

from tinymu_jax.evaluation.report.charts import bars, confusion, radar, reliability
from tinymu_jax.evaluation.report.compare import Ring
from tinymu_jax.evaluation.results import Confusion, Metric, Radar, Reliability, Table


def classed(picture, tag, kind):
    """Returns the elements of a name that have a class."""
    return [one for one in picture.iter(tag) if kind in (one.get("class") or "").split()]


def points(path):
    """Returns the points of a path or polygon."""
    text = path.get("d") or path.get("points")
    return [
        tuple(map(float, pair.split(",")))
        for pair in text.replace("M", "").replace("L", "").split()
    ]


def texts(picture):
    return ["".join(one.itertext()) for one in picture.iter("text")]


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


def test_a_radar_reaches_as_far_as_the_share():
    picture = radar("R", "abcd", [Ring("m", (0.8, 0.4, 0.2, 0.0), False)])
    outer = points(classed(picture, "polygon", "grid")[-1])
    centre = (outer[0][0], outer[1][1])
    full = centre[1] - outer[0][1]
    (path,) = classed(picture, "path", "stroke")
    found = points(path)
    # The outermost line is at 80 %: up, right, down, left.
    expected = [(0, -full), (full / 2, 0), (0, full / 4), (0, 0), (0, -full)]
    for point, (right, down) in zip(found, expected, strict=True):
        assert point == pytest.approx((centre[0] + right, centre[1] + down), abs=0.11)
    assert {"80 %", "40 %", "a", "b", "c", "d", "m"} <= set(texts(picture))


def test_a_radar_has_a_gap_where_nothing_was_asked():
    picture = radar("R", "abcd", [Ring("m", (0.8, math.nan, 0.2, 0.4), False)])
    (path,) = classed(picture, "path", "stroke")
    assert path.get("d").count("M") == 2
    assert len(points(path)) == 4
    assert not classed(picture, "path", "filled")


def test_a_baseline_is_dashed_and_no_checkpoint():
    rings = [Ring("m", (0.1, 0.2, 0.3), False), Ring("blind", (0.3, 0.3, 0.3), True)]
    own, baseline = classed(radar("R", "abc", rings), "path", "stroke")
    assert own.get("stroke-dasharray") is None
    assert baseline.get("stroke-dasharray")
    assert "base" in baseline.get("class").split()


def test_labels_of_a_radar_stay_in_the_picture_and_apart():
    axes = [f"a category of some length {n}" for n in range(16)]
    picture = radar("R", axes, [Ring("m", (0.5,) * 16, False)])
    width, height = map(float, picture.get("viewBox").split()[2:])
    boxes = []
    for one in picture.iter("text"):
        if one.get("class"):
            continue
        (x, y), wide = numbers(one, "x", "y"), 6.2 * len(one.text)
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[one.get("text-anchor")]
        assert left >= 0
        assert left + wide <= width
        assert 10 <= y <= height
        boxes.append((left, left + wide, y - 10, y))
    for number, (left, right, top, bottom) in enumerate(boxes):
        for other in boxes[:number]:
            apart = right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
            assert apart


def test_bars_are_as_long_as_the_share_and_show_the_interval():
    rows = [("whole", [Metric(1.0)]), ("half", [Metric(0.5, 0.25, 0.75)]), ("none", [None])]
    picture = bars("B", rows, ["m"])
    whole, half = (numbers(bar, "x", "width") for bar in classed(picture, "rect", "bar"))
    assert half == pytest.approx([whole[0], whole[1] / 2])
    ends = numbers(classed(picture, "line", "whisker")[0], "x1", "x2")
    assert ends == pytest.approx([whole[0] + whole[1] / 4, whole[0] + whole[1] * 3 / 4], abs=0.1)
    assert "50.0" in texts(picture)


def test_a_confusion_is_shaded_by_share_of_its_row():
    picture = confusion(Confusion("C", ("rock", "jazz"), ((3, 1), (0, 0))))
    shades = [one.get("fill-opacity") for one in classed(picture, "rect", "heat")]
    assert shades == ["0.75", "0.25", "0.00", "0.00"]
    assert [one.text for one in classed(picture, "text", "count")] == ["3", "1"]
    told = ["".join(one.itertext()) for one in classed(picture, "rect", "heat")]
    assert told[1] == "rock taken for jazz: 1 of 4"


def test_a_reliability_has_bars_of_its_accuracy_and_its_error():
    picture = reliability(Reliability("R", (0.25, 0.75), (0.5, 1.0), (10, 40), 0.125))
    half, whole = (numbers(bar, "height")[0] for bar in classed(picture, "rect", "bar"))
    assert half == pytest.approx(whole / 2)
    few, many = (numbers(bar, "height")[0] for bar in classed(picture, "rect", "many"))
    assert few == pytest.approx(many / 4)
    assert "ECE 12.5 %" in texts(picture)
    start, end = (classed(picture, "line", "diagonal")[0].get(key) for key in ("x1", "x2"))
    assert float(end) - float(start) == pytest.approx(whole, abs=0.1)


def test_nothing_answered_is_an_empty_picture():
    assert not classed(reliability(Reliability("R", (), (), (), math.nan)), "rect", "bar")


def test_large_confusions_are_listed(tmp_path):
    labels = [f"label {n}" for n in range(41)]
    counts = [[int(row == column) for column in range(41)] for row in range(41)]
    counts[3][5] = 7
    page, text = written(tmp_path, findings(confusions=(Confusion("Large", labels, counts),)))
    assert "label 3 taken for label 57" in page.texts("tr")
    assert "| label 3 taken for label 5 | 7 |" in text
    assert "The first 1 of 1; all are in report.json." in page.texts("p", "note")


def test_a_radar_of_two_axes_is_drawn_as_bars(tmp_path):
    two = Radar("Two", ("a", "b"), {"m": (0.25, math.nan), "blind": (0.5, 0.75)})
    page, _ = written(tmp_path, findings(radars=(two,)))
    assert "a: m 25.0, blind 50.0; b: m not available, blind 75.0" in page.texts("desc")


def test_figures_of_their_own_scale_are_not_drawn_as_shares(tmp_path):
    rows = {name: (Metric(12.0, is_fraction=False),) for name in ("a", "b", "c")}
    page, _ = written(tmp_path, findings(tables=(Table("Scores", ("x",), rows),)))
    assert "Scores" not in page.texts("title")
