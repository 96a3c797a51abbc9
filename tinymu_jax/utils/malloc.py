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
"""Largest temporary memory of a training step, in bytes, that malloc keeps after `trim_heap`."""
_ACCELERATORS = ("nvidia[0-9]*", "kfd", "dxg", "accel[0-9]*", "vfio/[0-9]*")
"""Patterns of files in /dev that show NVIDIA or AMD GPUs (dxg: under WSL), or TPUs."""


def keep_heap() -> bool:
    """Make glibc's malloc keep freed memory for reuse; call it before threads start.

    By default, the kernel clears the pages of a training step's temporary arrays anew at each step.
    The clearing takes up to half the time of a small step (`tests/benchmarks/heap.py`).

    Returns:
        Whether the settings were applied. Nothing changes on machines with an accelerator, with
        another C library, or if the environment configures malloc (`MALLOC_ARENA_MAX` etc.).
    """
    return _is_configurable() and _set(_KEEP)


def trim_heap(step_bytes: int) -> None:
    """Return freed memory to the system; call it after compilation, which frees up to half a GB.

    `step_bytes` is the size of a training step's temporary arrays. Above 512 MiB, malloc also stops
    keeping them for reuse, since two overlapping steps would hold them twice.
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
