"""Freed memory stays on the heap, measured by page faults."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from tinymu_jax.utils import malloc

TRIES, BYTES = 10, 48 << 20
PAGES = """
import resource, sys, threading
from tinymu_jax.utils.malloc import trim_heap, keep_heap

kept = keep_heap() if "keep" in sys.argv else None
if "large" in sys.argv:
    trim_heap(1 << 30)

def allocate_again():
    for _ in range({tries}):
        bytearray({size})

thread = threading.Thread(target=allocate_again)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread.start()
thread.join()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_given(*arguments, **variables):
    """Returns the result of keep_heap, and the page faults of a thread that allocates again."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    code = PAGES.format(tries=TRIES, size=BYTES)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=clean | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    said, pages = done.stdout.split()
    return said, int(pages)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or any(any(Path("/dev").glob(x)) for x in malloc._ACCELERATORS),
    reason="needs glibc and no accelerator",
)
def test_freed_memory_is_reused():
    once = BYTES // os.sysconf("SC_PAGESIZE")
    assert pages_given()[1] > 0.9 * TRIES * once
    said, pages = pages_given("keep")
    assert said == "True"
    assert pages < 2 * once
    assert pages_given("keep", "large")[1] > 0.9 * TRIES * once


def test_environment_settings_take_precedence():
    assert pages_given("keep", MALLOC_ARENA_MAX="4")[0] == "False"
    assert pages_given("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] == "False"


def test_nothing_is_set_with_an_accelerator(monkeypatch):
    monkeypatch.setattr(malloc, "_ACCELERATORS", ("nul[a-z]",))
    assert malloc.keep_heap() is False


LEFT = """
from pathlib import Path
from tinymu_jax.utils.malloc import trim_heap, keep_heap

def held():
    return int(Path("/proc/self/statm").read_text().split()[1])

keep_heap()
there = [bytes(1000) for _ in range(200_000)]
end = bytes(1000)
del there
before = held()
trim_heap(0)
print(before - held())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/proc/self/statm").exists(),
    reason="glibc's heap, and Linux's count of pages",
)
def test_trim_heap_returns_memory():
    done = subprocess.run(
        [sys.executable, "-c", LEFT],
        env=dict(os.environ, PYTHONMALLOC="malloc"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) * os.sysconf("SC_PAGESIZE") > 150e6
