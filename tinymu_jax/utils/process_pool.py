"""Processes that work side by side, and one sentence where one of them ends."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from tinymu_jax.errors import InputError

SPAWN = multiprocessing.get_context("spawn")
"""How they begin: a fork would copy the threads' locks of jax."""


@contextmanager
def worker_pool(
    workers: int, start: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Gives processes; after a fault or Ctrl-C, what has not begun is not begun.

    Args:
        workers: how many.
        start: called first in each.
        arguments: of `start`.

    Raises:
        InputError: one of them ended.
    """
    pool = ProcessPoolExecutor(workers, SPAWN, start, arguments)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise InputError(
            "a process that works beside this one ended: out of memory, or begun by a script that "
            "does not stand below `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
