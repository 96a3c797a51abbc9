"""Memory that a process keeps between the steps of a training on processors."""

import ctypes
import os
import platform
from pathlib import Path

# malloc.h of glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8

_SETTINGS = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 1 << 26}

_LARGE = 512 << 20
"""Bytes of a step's own arrays that are too many to be there twice."""

_ASIDE = {_MMAP_MAX: 1 << 16, _MMAP_THRESHOLD: 32 << 20}

_ACCELERATORS = ("nvidia[0-9]*", "kfd", "dxg", "accel[0-9]*", "vfio/[0-9]*")
"""Devices of NVIDIA's and AMD's cards (dxg: in a Linux under Windows), and of TPUs."""


def keep_heap() -> bool:
    """Keeps what is freed, for what is asked for next; call it before threads begin.

    XLA asks for the memory of a step's arrays at each step. glibc gives it back to the system
    after the step, and the kernel has to clear every page anew: of a small step that is up to half
    of the time (`tests/benchmarks/heap.py`). No number depends on it.

    Returns:
        Whether it was done: not where an accelerator may compute, which leaves the heap to loader
        threads; nor where the C library is another one, nor where the environment has settings of
        its own (`MALLOC_ARENA_MAX` and the like, man mallopt).
    """
    return _may_be_set() and _set(_SETTINGS)


def trim_heap(step_bytes: int) -> None:
    """Gives what is freed back once: XLA's compiler leaves half a GB of a large step.

    Args:
        step_bytes: that each step asks for. A large step's are not kept from then on: the next one
            asks before they are freed, so that they would be kept twice, for little gain.
    """
    if not _may_be_set():
        return
    ctypes.CDLL(None).malloc_trim(0)
    if step_bytes > _LARGE:
        _set(_ASIDE)


def _may_be_set() -> bool:
    if any(any(Path("/dev").glob(pattern)) for pattern in _ACCELERATORS):
        return False
    own = ("malloc" in value for name, value in os.environ.items() if name == "GLIBC_TUNABLES")
    return (
        platform.libc_ver()[0] == "glibc"
        and not any(own)
        and not any(name.startswith("MALLOC_") for name in os.environ)
    )


def _set(settings: dict[int, int]) -> bool:
    library = ctypes.CDLL(None)
    taken = [library.mallopt(name, value) for name, value in settings.items()]
    return all(taken)
