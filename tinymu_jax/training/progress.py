"""How far a run is, on a terminal as a bar, elsewhere as a line now and then."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

LINE_EVERY = 30.0
"""Seconds from one line to the next, where there is no terminal."""


class Show(Protocol):
    """What shows the run."""

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the numbers after a step."""

    def say(self, text: str) -> None:
        """Prints a line beside the bar."""


class _Bar:
    """rich's bar: step, numbers, time left."""

    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task = bar, task

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.bar.update(self.task, completed=step, numbers=in_words(metrics))

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


class _Lines:
    """A line for the first step, the last, and now and then between."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.start: int | None = None
        self.shown = -math.inf

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self.shown < LINE_EVERY and step != self.total:
            return
        self.shown = now
        line = f"step {step}/{self.total}  {in_words(metrics)}"
        # The first step took its compilation's time: those after it say how long a step is.
        if self.start is None:
            self.start, self.began = step, now
        elif step < self.total:
            left = (now - self.began) / (step - self.start) * (self.total - step)
            line += f"  {in_time(left)} left"
        self.say(line)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Silence:
    """All processes but the first."""

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def in_words(metrics: Mapping[str, float]) -> str:
    """Returns the numbers that a reader follows, those that there are."""
    shown = (
        ("loss", "loss {:.4f}"),
        ("validation_loss", "validation {:.4f}"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("questions_per_second", "{:,.1f} questions/s"),
        ("crops_per_second", "{:,.1f} crops/s"),
        ("clips_per_second", "{:,.1f} clips/s"),
        ("mfu", "MFU {:.1%}"),
    )
    return "  ".join(words.format(metrics[name]) for name, words in shown if name in metrics)


def in_time(seconds: float) -> str:
    """Returns hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextmanager
def showing(total: int, start: int, first_process: bool) -> Iterator[Show]:
    """Yields what shows the steps of a run.

    Args:
        total: steps of the run.
        start: steps done before.
        first_process: the only one that shows anything.
    """
    if not first_process:
        yield _Silence()
        return
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # The speed of the last minutes says when the end comes, not that of the last seconds.
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        speed_estimate_period=300,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("training", total=total, completed=start, numbers="compiling ...")
        yield _Bar(bar, task)
