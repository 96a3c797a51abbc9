"""The bootstrap over recordings, against what is known in closed form."""

import numpy as np
import pytest

from tinymu_jax.evaluation.bootstrap import bootstrap, mean_metrics


def test_independent_questions_have_the_binomial_interval():
    marks = np.zeros(800)
    marks[:480] = 1
    result = mean_metrics({"all": marks}, range(800))["all"]
    half = 1.96 * np.sqrt(0.6 * 0.4 / 800)
    assert (result.value, result.count) == (0.6, 800)
    assert result.low == pytest.approx(0.6 - half, abs=0.003)
    assert result.high == pytest.approx(0.6 + half, abs=0.003)


def test_questions_of_one_recording_stand_together():
    marks = (np.arange(400) % 5 < 3).astype(float)
    once = mean_metrics({"all": marks}, range(400))["all"]
    # Four times the questions, all alike within a recording, say nothing more.
    again = mean_metrics({"all": np.repeat(marks, 4)}, np.repeat(np.arange(400), 4))["all"]
    apart = mean_metrics({"all": np.repeat(marks, 4)}, range(1600))["all"]
    assert (again.low, again.high) == pytest.approx((once.low, once.high))
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.1)


def test_recordings_of_unequal_size_have_the_ratio_interval():
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 6, 600)
    groups = np.repeat(np.arange(600), sizes)
    marks = (rng.random(len(groups)) < rng.random(600)[groups]).astype(float)
    result = mean_metrics({"all": marks}, groups)["all"]
    # The linearised variance of a ratio of sums over recordings.
    sums = np.bincount(groups, marks)
    ratio = marks.mean()
    half = 1.96 * np.sqrt(np.sum((sums - ratio * sizes) ** 2)) / len(groups)
    assert result.value == pytest.approx(ratio)
    assert result.low == pytest.approx(ratio - half, abs=0.004)
    assert result.high == pytest.approx(ratio + half, abs=0.004)


def test_two_recordings_by_hand():
    # The mean is 0 or 1 in a quarter of the resamples each.
    low, high = bootstrap(np.array([[0.0], [1.0]]), ["a", "b"])
    assert (low[0], high[0]) == (0, 1)


def test_what_does_not_count_is_left_out():
    nan = np.nan
    marks = {"some": [1, 0, nan, nan], "none": [nan] * 4, "one": [nan, nan, nan, 0.5]}
    result = mean_metrics(marks, list("abcd"))
    assert (result["some"].value, result["some"].count) == (0.5, 2)
    assert (result["some"].low, result["some"].high) == (0, 1)
    assert result["none"].value is None
    assert (result["one"].value, result["one"].low, result["one"].high) == (0.5, None, None)


def test_no_marks_at_all():
    assert mean_metrics({}, []) == {}


def test_seed_and_resamples_decide(monkeypatch):
    marks = {"all": np.random.default_rng(0).random(50)}
    first, again = (mean_metrics(marks, range(50), seed=3) for _ in range(2))
    other = mean_metrics(marks, range(50), seed=4)
    assert first == again
    assert first != other
    # Drawing fewer at once draws the same.
    monkeypatch.setattr("tinymu_jax.evaluation.bootstrap._BLOCK_SIZE", 1000)
    assert mean_metrics(marks, range(50), seed=3) == first
