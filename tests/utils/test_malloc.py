"""Memory that is kept between steps: counted by the pages that the kernel has to give again."""

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

def ask_again():
    for _ in range({tries}):
        bytearray({size})

thread = threading.Thread(target=ask_again)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread.start()
thread.join()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_given(*arguments, **variables):
    """Returns what keep_heap said, and how many pages were given to a thread that asks again."""
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
    reason="glibc's heap, where processors compute",
)
def test_what_is_freed_is_kept_for_what_is_asked_for_next():
    once = BYTES // os.sysconf("SC_PAGESIZE")
    assert pages_given()[1] > 0.9 * TRIES * once
    said, pages = pages_given("keep")
    assert said == "True"
    assert pages < 2 * once
    assert pages_given("keep", "large")[1] > 0.9 * TRIES * once


def test_settings_of_the_environment_stay():
    assert pages_given("keep", MALLOC_ARENA_MAX="4")[0] == "False"
    assert pages_given("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] == "False"


def test_where_an_accelerator_computes_the_heap_is_left_alone(monkeypatch):
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
def test_what_is_left_over_is_given_back_when_asked():
    done = subprocess.run(
        [sys.executable, "-c", LEFT],
        env=dict(os.environ, PYTHONMALLOC="malloc"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) * os.sysconf("SC_PAGESIZE") > 150e6
