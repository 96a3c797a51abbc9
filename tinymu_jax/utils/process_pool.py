"""A pool of worker processes."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from tinymu_jax.errors import InputError

SPAWN = multiprocessing.get_context("spawn")
"""Context that starts new processes; a fork would copy the locks of JAX's threads."""


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Opens a pool of worker processes; an error or Ctrl-C cancels the tasks not yet started.

    Args:
        workers: number of processes.
        initializer: function that each process calls first.
        arguments: arguments of `initializer`.

    Raises:
        InputError: a worker process died.
    """
    pool = ProcessPoolExecutor(workers, SPAWN, initializer, arguments)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died: it ran out of memory, or the script that started it is not "
            "guarded by `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
