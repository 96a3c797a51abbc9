"""Reads mutated inputs one after the other, and prints what came of each as a line of JSON.

    python fuzz_worker.py CORPUS FINDS KIND FIRST END

A case that hangs or kills this process is the one that follows the last line.
"""

import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz_cases import KINDS, Seed
from fuzz_mutations import CANARY

from tinymu_jax.checkpoints import checkpoint
from tinymu_jax.checkpoints.pytorch import matpac, matpac_ssl, smollm2, tinymu
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tree import flatten, unflatten

MAX_SECONDS = 10
MAX_BYTES = 2**30
MAX_MESSAGE = 2_000
"""Characters of a message of one line."""
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}
RUNS |= {"pickle.find_class", "ctypes.dlopen"}
WRITES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod"}
ELSEWHERE = (os.devnull, "/proc/self/")
"""What may be written to outside the working folder."""


class Watch:
    """Notes the events of Python's audit hooks that reading a file must not cause."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events = str(folder), list[str]()
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or set(str(mode)) & set("wax+")
            if writes and not self._inside(path):
                self.events.append(f"writes {path!r}")
        elif event in RUNS or (event in WRITES and not self._inside(args[0])):
            self.events.append(f"{event} {args!r}")

    def _inside(self, path: Any) -> bool:
        inside = str(path).startswith((self.folder, *ELSEWHERE))
        return isinstance(path, int) or inside or "__pycache__" in str(path)


def peak_bytes() -> int:
    """Return the peak of this process's resident memory since `forget_peak`."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def forget_peak() -> int:
    """Start the peak anew, and return the resident memory."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def problem_of(seed: Seed, path: Path) -> tuple[str, str]:
    """Read a file; return "accepted" or "refused", and what is wrong with that, or ""."""
    before = forget_peak()
    outcome, problem = "accepted", ""
    try:
        seed.read(path)
    except InputError as error:
        outcome, problem = "refused", _fault(error, path)
    except BaseException as error:
        outcome, problem = "refused", f"{type(error).__module__}.{type(error).__name__}: {error}"
    peak = peak_bytes() - before
    if not problem and peak > MAX_BYTES:
        problem = f"takes {peak // 2**20} MB"
    return outcome, problem


def _fault(error: BaseException, path: Path) -> str:
    """Return what is wrong with a refusal: its text, or a cause that says of too much memory."""
    message, causes = str(error), [error]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    if len(message.splitlines()) != 1:
        return f"is not one line: {message[:200]!r}"
    if len(message) > MAX_MESSAGE:
        return f"has {len(message)} characters: {message[:200]!r}"
    if str(path.parent) not in message:
        return f"names no file: {message!r}"
    if any(isinstance(cause, MemoryError) for cause in causes):
        return f"asks for more than {MAX_BYTES} bytes: {message}"
    return ""


def trace_shapes_once() -> None:
    """Cache the shapes of a config's parameters, whose tracing takes most of the time."""
    shapes = lru_cache(maxsize=100)(checkpoint.expected_shapes)
    for module in (checkpoint, matpac, matpac_ssl, smollm2, tinymu):
        module.expected_shapes = lambda config: unflatten(dict(flatten(shapes(config))))


def main(corpus: Path, finds: Path, kind: str, first: int, end: int) -> None:
    """Read the cases `first` to `end` - 1 of a kind."""
    seeds = KINDS[kind][1]
    trace_shapes_once()
    work = Path(tempfile.mkdtemp(dir=corpus.parent))
    os.chdir(work)
    for seed in seeds:
        shutil.copytree(
            corpus / Path(seed.file).parent, (work / seed.file).parent, dirs_exist_ok=True
        )
        content = (path := work / seed.file).read_bytes()
        # What is imported for damaged files only is not to be counted either.
        for part in (content[:20], content[: len(content) // 2], content):
            path.write_bytes(part)
            outcome, problem = problem_of(seed, path)
        assert (outcome, problem) == ("accepted", "") or "1.6" in kind, (seed.file, problem)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_BYTES, -1))
    watch = Watch(work)
    for number in range(first, end):
        draw = Random(f"{kind} {number}")
        seed = draw.choice(seeds)
        original = (corpus / seed.file).read_bytes()
        content = seed.mutate(draw, original)
        path = work / seed.file
        path.write_bytes(content)
        (finds / "last").write_bytes(content)  # for the case that this process dies
        watch.events.clear()
        faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
        outcome, problem = problem_of(seed, path)
        faulthandler.cancel_dump_traceback_later()
        problem = problem or "; ".join(watch.events[:3])
        if (work / CANARY).exists() or list(work.rglob(CANARY)):
            problem = f"code was run; {problem}"
        if problem:
            (finds / f"{kind.split()[0].strip('.,')}-{number}-{path.name}").write_bytes(content)
        print(json.dumps({"file": seed.file, "outcome": outcome, "problem": problem}), flush=True)
        path.write_bytes(original)
    shutil.rmtree(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
