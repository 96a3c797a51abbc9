"""A run that is asked to stop: by SIGTERM, as before a machine is taken away, or by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax


class Stopping:
    """Whether the run has been asked to stop, alike in all its processes."""

    def __init__(self) -> None:
        self.asked_by: int | None = None

    def ask(self, number: int, frame: Any = None) -> None:
        """Notes the signal; a second Ctrl-C does not wait for the step."""
        if self.asked_by == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.asked_by = number

    def reached(self, step: int) -> bool:
        """Returns whether to stop after this step; every process asks it after every step.

        A signal to one of several processes goes to all, which agree on the step; jax does that.
        """
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked_by is not None


@contextmanager
def stopping_on_signals() -> Iterator[Stopping]:
    """Listens to SIGTERM and Ctrl-C while the run lasts.

    With several processes SIGTERM is jax's own affair, and Ctrl-C ends the process at once. A
    thread beside the main one cannot listen.
    """
    stopping = Stopping()
    able = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if able else ()
    before = {number: signal.signal(number, stopping.ask) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
