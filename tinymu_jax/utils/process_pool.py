"""A pool of worker processes."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from tinymu_jax.errors import InputError

SPAWN = multiprocessing.get_context("spawn")
"""Context that starts fresh processes; forked processes would copy the locks of JAX's threads."""


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of `workers` processes, each of which first calls `initializer(*arguments)`.

    An error or Ctrl-C in the context cancels the tasks that have not started. If a worker process
    dies, the context raises `InputError`.
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
