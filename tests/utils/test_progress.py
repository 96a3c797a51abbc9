"""The progress display off a terminal and on one."""

import io

import pytest

from tinymu_jax.utils import progress
from tinymu_jax.utils.progress import show_progress


@pytest.fixture
def clock(monkeypatch):
    """Returns a clock to set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_half_minute_with_speed_and_time_left(clock, capsys):
    with show_progress("preparing") as show:
        for done in range(0, 101, 10):
            show(done, 100)
            clock[0] += 10
    assert capsys.readouterr().err.splitlines() == [
        "preparing 30/100  1.0/s  0:01:10 left",
        "preparing 60/100  1.0/s  0:00:40 left",
        "preparing 90/100  1.0/s  0:00:10 left",
        "preparing 100/100",
    ]


def test_short_work_prints_nothing_and_work_done_before_is_no_speed(clock, capsys):
    with show_progress("preparing") as show:
        show(0, 2)
        show(2, 2)
    assert capsys.readouterr().err == ""
    with show_progress("step", 1000, 500, first_line=True) as show:
        show(501, note="loss 2.0")
        clock[0] += 100
        show(511, note="loss 1.0")
    assert capsys.readouterr().err.splitlines() == [
        "step 501/1000  loss 2.0",
        "step 511/1000  loss 1.0  10.0 s each  1:21:30 left",
    ]


def test_quiet_prints_nothing(capsys):
    with show_progress("step", 2, first_line=True, quiet=True) as show:
        show(1)
        show.print("text")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with show_progress("asking") as show:
        show(1, 4)
        show.print("a [note]")
        show(4, 4, "done")
    text = terminal.getvalue()
    for part in ("a [note]", "asking", "4/4", "done"):
        assert part in text
