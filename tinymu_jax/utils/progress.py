"""Shows progress on stderr: a bar on a terminal, else a line every `LINE_EVERY` seconds."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinymu_jax.utils.numbers import clock

LINE_EVERY = 30.0
"""Seconds between lines of progress if stderr is not a terminal."""
Progress = Callable[[int, int], Any]
"""Callback that long-running work calls with the numbers of finished and of all units."""


def no_progress(done: int, total: int) -> None:
    """Do nothing; the default value of `Progress` arguments."""


class ProgressDisplay:
    """Display of finished and total units, speed and time left; this base class shows nothing."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show the numbers of finished and total units, and a `note` such as metrics.

        `done` includes the units that an earlier process finished. `total` may be None if
        `show_progress` was called with the total.
        """

    def print(self, text: str) -> None:
        """Print a line of text without disturbing the display."""


class _Bar(ProgressDisplay):
    """Shows progress as a bar of the library rich."""

    def __init__(self, bar: Any, label: str, done: int, total: int | None, note: str) -> None:
        self.bar, self.label, self.task = bar, label, None
        if total is not None:
            self.task = bar.add_task(label, completed=done, total=total, note=note)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        if self.task is None:
            # Units finished earlier must not raise the speed: the task starts at the first count.
            self.task = self.bar.add_task(self.label, completed=done, total=total, note=note)
        changed = {} if total is None else {"total": total}
        self.bar.update(self.task, completed=done, note=note, **changed)

    def print(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


class _Lines(ProgressDisplay):
    """Prints a line every `LINE_EVERY` seconds, and one at the end if any was printed before."""

    def __init__(self, label: str, total: int | None, first_line: bool) -> None:
        self.label, self.total = label, total
        self.first: tuple[int, float] | None = None
        self.printed_at = -math.inf if first_line else time.monotonic()
        self.printed = False

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        now, total = time.monotonic(), self.total if total is None else total
        # Speed is measured from the first count, as the first training step includes compilation.
        first_done, began = self.first = self.first or (done, now)
        ended = self.printed and done == total
        if now - self.printed_at < LINE_EVERY and not ended:
            return
        self.printed_at, self.printed = now, True
        parts = [f"{self.label} {done}/{total}", note]
        if total is not None and first_done < done < total and now > began:
            seconds = (now - began) / (done - first_done)
            parts += [_speed(1 / seconds), f"{clock(seconds * (total - done))} left"]
        self.print("  ".join(filter(None, parts)))

    def print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def show_progress(
    label: str,
    total: int | None = None,
    done: int = 0,
    *,
    note: str = "",
    first_line: bool = False,
    quiet: bool = False,
) -> Iterator[ProgressDisplay]:
    """Yield a progress display, which the caller calls with (done, total) as work advances.

    Args:
        label: name of the work or of its units, such as "preparing" or "step".
        total: total number of units; None if each call of the display passes it.
        done: number of units that an earlier process finished.
        note: text to show beside the bar until the first call.
        first_line: whether to print a line at the first call, instead of after `LINE_EVERY`
            seconds; without effect on a terminal.
        quiet: whether to show nothing.
    """
    if quiet:
        yield ProgressDisplay()
    elif not sys.stderr.isatty():
        yield _Lines(label, total, first_line)
    else:
        with _rich_bar() as bar:
            yield _Bar(bar, label, done, total, note)


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class SpeedColumn(ProgressColumn):
        def render(self, task: Task) -> str:
            return _speed(task.speed) if task.speed else ""

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        SpeedColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        # Speed is averaged over minutes, since validations and checkpoints take seconds.
        speed_estimate_period=300,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _speed(per_second: float) -> str:
    return f"{per_second:,.1f}/s" if per_second >= 1 else f"{1 / per_second:,.1f} s each"
