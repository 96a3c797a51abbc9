"""Stops a run cleanly on SIGTERM (preemption) or Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax


class StopRequest:
    """Whether a signal has asked the run to stop; all processes agree on the step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def receive(self, number: int, frame: Any = None) -> None:
        """Handles a signal; a second Ctrl-C does not wait for the end of the step."""
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def reached(self, step: int) -> bool:
        """Returns whether to stop after this step; every process calls it after every step."""
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handles SIGTERM and Ctrl-C while the run lasts.

    With several processes jax handles SIGTERM, and Ctrl-C ends the process at once. Outside the
    main thread no signal can be handled.
    """
    request = StopRequest()
    able = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if able else ()
    previous = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
