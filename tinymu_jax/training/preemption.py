"""Turn SIGTERM (preemption) and Ctrl-C into a request to stop after the current step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax


class StopRequest:
    """Records whether a signal asked the run to stop; all processes stop after the same step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def receive(self, number: int, frame: Any = None) -> None:
        """Record a signal; on a second Ctrl-C, raise `KeyboardInterrupt` to stop at once."""
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def reached(self, step: int) -> bool:
        """Return whether to stop after this step; every process must call it after every step."""
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Yield a `StopRequest` that receives SIGTERM and Ctrl-C inside the context.

    With several processes, jax handles SIGTERM instead, and Ctrl-C ends the process at once.
    Outside the main thread, no signal is received.
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
