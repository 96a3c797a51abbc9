"""Settings of glibc's malloc for training on CPUs."""

import ctypes
import os
import platform
from pathlib import Path

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8

_KEEP = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 1 << 26}

_MMAP_LARGE = {_MMAP_MAX: 1 << 16, _MMAP_THRESHOLD: 32 << 20}

_LARGE_STEP = 512 << 20
"""Temporary memory of a step, in bytes, above which it is not kept on the heap."""

_ACCELERATORS = ("nvidia[0-9]*", "kfd", "dxg", "accel[0-9]*", "vfio/[0-9]*")
"""Device files of NVIDIA and AMD GPUs (dxg: under WSL) and of TPUs."""


def keep_heap() -> bool:
    """Makes malloc keep freed memory for reuse; call it before threads start.

    XLA allocates a step's temporary arrays at each step. By default glibc returns them to the
    system afterwards, and the kernel clears every page again, which takes up to half the time of
    a small step (`tests/benchmarks/heap.py`).

    Returns:
        Whether the settings were applied. They are not if there is an accelerator, if the C
        library is not glibc, or if the environment configures malloc (`MALLOC_ARENA_MAX` etc.).
    """
    return _is_configurable() and _set(_KEEP)


def trim_heap(step_bytes: int) -> None:
    """Returns freed memory to the system once: compilation leaves up to half a GB behind.

    Args:
        step_bytes: temporary memory of a training step. That of a large step is not kept from
            then on: two steps overlap, so it would be held twice, for little gain.
    """
    if not _is_configurable():
        return
    ctypes.CDLL(None).malloc_trim(0)
    if step_bytes > _LARGE_STEP:
        _set(_MMAP_LARGE)


def _is_configurable() -> bool:
    if any(any(Path("/dev").glob(pattern)) for pattern in _ACCELERATORS):
        return False
    return (
        platform.libc_ver()[0] == "glibc"
        and "malloc" not in os.environ.get("GLIBC_TUNABLES", "")
        and not any(name.startswith("MALLOC_") for name in os.environ)
    )


def _set(settings: dict[int, int]) -> bool:
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(name, value) for name, value in settings.items()]
    return all(accepted)
