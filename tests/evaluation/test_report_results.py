"""Results survive report.json unchanged, and checkpoints are compared side by side."""

import json
import math

import numpy as np
import pytest
from helpers import refusal
from report_cases import Page, answer, eval_result, written

from tinymu_jax.evaluation.report.build import compare_reports, read_report, write_report
from tinymu_jax.evaluation.results import Confusion, Metric, Radar, Table


def test_json_gives_back_the_results(tmp_path):
    result = [eval_result(worst=(answer("ü\udcff.wav", score=1 / 3),)), eval_result(kind="list")]
    write_report(result, tmp_path)
    assert read_report(tmp_path / "report.json") == result == read_report(tmp_path)


def test_numbers_of_numpy_are_numbers_in_json(tmp_path):
    heat = Confusion("C", ("a", "b"), np.array([[1, 2], [3, 4]]))
    headline = {"accuracy": Metric(np.float32(0.5), count=np.int64(3))}
    write_report([eval_result(headline=headline, confusions=(heat,))], tmp_path)
    (back,) = read_report(tmp_path)
    assert back.headline == {"accuracy": Metric(0.5, count=3)}
    assert back.confusions[0].counts == ((1, 2), (3, 4))


def test_nan_and_infinity_are_null(tmp_path):
    radar = Radar("R", ("a", "b", "c"), {"m": (math.nan, 0.5, math.inf)})
    headline = {"accuracy": Metric(math.nan)}
    write_report([eval_result(radars=(radar,), headline=headline)], tmp_path)

    def refuse(name):
        raise AssertionError(name)

    text = (tmp_path / "report.json").read_text()
    (content,) = json.loads(text, parse_constant=refuse)["results"]
    assert content["radars"][0]["series"]["m"] == [None, 0.5, None]
    (back,) = read_report(tmp_path)
    assert back.headline["accuracy"].value is None
    assert [math.isnan(share) for share in back.radars[0].series["m"]] == [True, False, True]


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("format",), 7, "format 7"),
        (("results",), None, "results is NoneType"),
        (("results", 0, "kind"), 3, "results[0].kind is int, not str"),
        (("results", 0, "odd"), 3, "results[0] has an unknown 'odd'"),
        (("results", 0, "headline", "accuracy", "count"), 1.5, "['accuracy'].count is float"),
        (("results", 0, "tables", 0, "columns"), ["official"], "row 'all' has 2 values"),
        (("results", 0, "tables", 0, "columns"), ["x", "x"], "'x' twice"),
        (("results", 0, "confusions", 0, "labels"), ["rock"], "the matrix has 2 values"),
    ],
)
def test_a_broken_report_is_refused_by_its_key(tmp_path, keys, value, said):
    write_report([eval_result()], tmp_path)
    path = tmp_path / "report.json"
    content = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(content))
    message = refusal(read_report, path)
    assert str(path) in message
    assert said in message


def test_a_report_that_lacks_a_field_or_is_missing_is_refused(tmp_path):
    write_report([eval_result()], tmp_path)
    path = tmp_path / "report.json"
    content = json.loads(path.read_text())
    del content["results"][0]["checkpoint"]
    path.write_text(json.dumps(content))
    assert "results[0] lacks 'checkpoint'" in refusal(read_report, path)
    assert "cannot be read" in refusal(read_report, tmp_path / "none.json")


def test_no_results_and_rows_of_another_length_are_refused(tmp_path):
    assert "no results" in refusal(write_report, [], tmp_path)
    short = Table("T", ("a", "b"), {"row": (Metric(0.5),)})
    assert "row 'row' has 1 values where 2" in refusal(
        write_report, [eval_result(tables=(short,))], tmp_path
    )


def test_two_checkpoints_stand_side_by_side_with_their_difference(tmp_path):
    second = eval_result(
        checkpoint="other/model",
        notices=(),
        headline={"accuracy": Metric(0.606, count=1185)},
        tables=(
            Table("By rule", ("official",), {"all": (Metric(0.5),), "mood": (Metric(0.1),)}),
            Table("Only here", ("a",), {"x": (Metric(0.25),)}),
        ),
        settings={"questions": "/elsewhere/questions.csv", "seed": "4"},
    )
    write_report([eval_result()], tmp_path / "a")
    write_report([second], tmp_path / "b")
    path = compare_reports([tmp_path / "a", tmp_path / "b" / "report.json"], tmp_path / "out")
    assert read_report(path.parent) == [eval_result(), second]
    page, text = Page(path.read_text("utf-8")), (path.parent / "report.md").read_text("utf-8")
    rows = page.texts("tr")
    assert rows[0] == "sft/checkpoints/1200 other/model difference published"
    assert rows[1] == "accuracy 58.6 [55.8, 61.4] n = 1,187 60.6 n = 1,185 +2.0 59.01"
    assert "| all | 58.6 \\[55.8, 61.4\\] | 50.0 | -8.6 | 50.0 |  |  | 1,187 |" in text
    assert "| mood |  | 10.0 |  |  |  |  |  |" in text
    assert "| x | 25.0 |" in text
    assert "| seed | 3 | 4 | differs |" in text
    assert page.texts("aside")[0].startswith("Read first sft/checkpoints/1200: 2 questions")


def test_radars_are_overlaid_and_a_baseline_of_both_is_drawn_once(tmp_path):
    page, _ = written(tmp_path, eval_result(checkpoint="one"), eval_result(checkpoint="two"))
    (reported,) = [text for text in page.texts("desc") if "melody" in text]
    assert reported == (
        "one: melody 80.0, mood 40.0, lyrics 20.0; two: melody 80.0, mood 40.0, lyrics 20.0; "
        "blind: melody 30.0, mood 30.0, lyrics 30.0"
    )


def test_several_rings_of_several_checkpoints_are_compared_by_their_names(tmp_path):
    axes = ("melody", "mood", "lyrics")
    rings = {"official": (0.1,) * 3, "strict": (0.2,) * 3, "blind, shortest": (0.3,) * 3}
    radars = (Radar("Tags", axes, rings),)
    both = [eval_result(checkpoint=name, radars=radars) for name in ("one", "two")]
    page, _ = written(tmp_path, *both)
    titles = [title for title in page.texts("title") if title.startswith("Tags")]
    assert titles == ["Tags: official", "Tags: strict"]
    assert [
        reported.count("blind, shortest") for reported in page.texts("desc") if "mood" in reported
    ] == [1, 1]


def test_checkpoints_of_the_same_name_are_numbered(tmp_path):
    page, _ = written(tmp_path, eval_result(checkpoint="m"), eval_result(checkpoint="m"))
    assert page.texts("tr")[0] == "m (1) m (2) difference n published"


def test_a_comparison_does_not_replace_a_report(tmp_path):
    write_report([eval_result()], tmp_path / "a")
    assert "name another folder" in refusal(compare_reports, [tmp_path / "a"], tmp_path / "a")


def test_published_values_that_differ_stand_beside_each_other(tmp_path):
    other = eval_result(checkpoint="b", published={"accuracy": Metric(0.6)})
    _, text = written(tmp_path, eval_result(), other)
    assert "59.0 / 60.0" in text
