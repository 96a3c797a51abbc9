"""Numbers as they are printed."""

import math

import pytest

from tinymu_jax.utils.numbers import clock, duration, file_size, number, percent


@pytest.mark.parametrize(
    ("fraction", "options", "printed"),
    [
        (0.5864, {}, "58.6"),
        (1.0, {}, "100.0"),
        (0.5864, {"decimals": 0}, "59"),
        (0.02, {"signed": True}, "+2.0"),
        (None, {}, "not available"),
        (math.nan, {"missing": "-"}, "-"),
    ],
)
def test_percent(fraction, options, printed):
    assert percent(fraction, **options) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (16.94, "16.9"),
        (1187.0, "1,187"),
        (3, "3"),
        (6.254, "6.25"),
        (-0.0123, "-0.012"),
        (None, "not available"),
        (math.inf, "not available"),
    ],
)
def test_number(value, printed):
    assert number(value) == printed


@pytest.mark.parametrize(
    ("seconds", "as_clock", "as_duration"),
    [
        (59.6, "0:01:00", "60 s"),
        (179, "0:02:59", "179 s"),
        (600, "0:10:00", "10 min"),
        (3723, "1:02:03", "1.0 h"),
        (100_000, "27:46:40", "27.8 h"),
    ],
)
def test_times(seconds, as_clock, as_duration):
    assert clock(seconds) == as_clock
    assert duration(seconds) == as_duration


@pytest.mark.parametrize(
    ("num_bytes", "printed"),
    [(999, "999 B"), (1500, "1.5 kB"), (5_240_000, "5.2 MB"), (3 * 10**9, "3.0 GB")],
)
def test_file_size(num_bytes, printed):
    assert file_size(num_bytes) == printed
