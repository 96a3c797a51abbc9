"""Several processes of one run: all are there, and all run the same.

They meet before jax joins them, at the address where jax's own service will be, since

* jax does not say which process is missing: the other ones are aborted when its time is over;
* processes with different versions of jax need not understand each other's jax;
* what is compared over jax's devices comes too late, and its key-value store is private.

Process 0 listens; each of the others sends one line of json and is answered with one: what is
wrong, or that nothing is. A process that goes away meanwhile is found by its silence.
"""

import hashlib
import json
import platform
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.sharding import flatten
from tinymu_jax.training.config import RunConfig

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
PACKAGE = Path(__file__).parent
PLACES = ("output", *(f"data/{name}" for name in ("train", "validation", "labels", "classes")))
"""Fields that may differ: where a machine has the data, and sees the run's folder."""
GREETING = "tinymu"
"""Marks our lines: the port may be found by programs that have nothing to do with the run."""
LONGEST = 1 << 20
"""Bytes of a line."""
SILENCE = 5.0
"""Seconds that one connection may keep the others waiting."""

Facts = dict[str, Any]


def facts_of(config: RunConfig, resume: bool, package: Path = PACKAGE) -> Facts:
    """Returns what has to be alike in all processes of a run, by the names that users know.

    Args:
        config: of the run.
        resume: whether it is to go on.
        package: whose code runs.
    """
    fields = flatten(json.loads(json.dumps(asdict(config), default=str)))
    options = {
        f"--{name.replace('/', '.').replace('_', '-')}": value
        for name, value in fields
        if name not in PLACES
    }
    return {
        "commit": _commit(package),
        "package files": _fingerprint(package),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "a config of type": type(config).__name__,
        "--resume": resume,
        **options,
    }


def agree(address: str, processes: int, process: int, facts: Facts, wait: float) -> None:
    """Returns when all processes are there and run the same; every process calls it.

    Args:
        address: "host:port" of process 0.
        processes: how many there are.
        process: which of them this is, from 0.
        facts: see `facts_of`.
        wait: seconds after which a process that has not come is missing.

    Raises:
        InputError: in every process that is there: one is missing, or runs something else.
    """
    facts = {"--processes": processes, **facts}
    if process == 0:
        wrong = _gather(address, processes, facts, wait)
    else:
        wrong = _ask(address, processes, process, facts, wait)
    if wrong:
        raise InputError(wrong)


def difference(mine: Mapping[str, Any], others: Mapping[int, Mapping[str, Any]]) -> str:
    """Returns a sentence about what other processes run unlike process 0; "" where all is alike.

    Args:
        mine: facts of process 0.
        others: facts of the others by their numbers.
    """
    found: dict[tuple[str, str, str], list[int]] = {}
    for number, theirs in sorted(others.items()):
        for name, here, there in _differing(mine, theirs):
            found.setdefault((name, there, here), []).append(number)
    clauses = [
        f"{_counted(numbers)} {'runs' if len(numbers) == 1 else 'run'} with {name} {there}, "
        f"process 0 with {here}"
        for (name, there, here), numbers in found.items()
    ]
    if not clauses:
        return ""
    options = all(name.startswith(("--", "a config")) for name, _, _ in found)
    remedy = "start all with the same command" if options else "install the same everywhere"
    more = f"; {len(clauses) - 5} more differences" if len(clauses) > 5 else ""
    return f"{'; '.join(clauses[:5])}{more}; {remedy}"


def _differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields the names of what differs, with this process's value and the other one's."""
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        here, there = mine.get(name), theirs.get(name)
        if here == there:
            continue
        if name == "commit" and None in (here, there):
            continue  # no clone, or no git there: the files say it
        if name == "package files" and len({mine.get("commit"), theirs.get("commit")} - {None}) > 1:
            continue  # as is to be expected of another commit
        yield name, _shown(here), _shown(there)


def _shown(value: Any) -> str:
    """Returns a value as it is given on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _counted(numbers: list[int]) -> str:
    """Returns "process 2", "processes 1 and 2", or "processes 1, 2 and 5"."""
    *before, last = map(str, numbers)
    return f"processes {', '.join(before)} and {last}" if before else f"process {last}"


# --- the meeting -------------------------------------------------------------------------------


def _gather(address: str, processes: int, facts: Facts, wait: float) -> str:
    """Waits for the others, tells them what is wrong, and returns it."""
    end = time.monotonic() + wait
    port = int(address.rpartition(":")[2])
    came: dict[int, socket.socket] = {}
    told: dict[int, Facts] = {}
    twice: list[int] = []
    with _listening(address, port) as server:
        while len(came) < processes - 1 and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                other, _ = server.accept()
            except TimeoutError:
                break
            line = _read(other, min(SILENCE, left))
            number = line.get("process")
            facts_there = isinstance(line.get("facts"), dict)
            if number not in range(1, processes) or isinstance(number, bool) or not facts_there:
                other.close()
                continue
            if number in came:
                twice.append(number)
                came.pop(number).close()
            came[number], told[number] = other, line["facts"]
        wrong = _verdict(address, processes, facts, told, twice, wait)
        for other in came.values():
            _send(other, {"wrong": wrong})
        end = time.monotonic() + SILENCE
        for other in came.values():
            # They close first: the port is then free at once for jax's service.
            _read(other, end - time.monotonic())
            other.close()
    return wrong


def _verdict(
    address: str,
    processes: int,
    facts: Facts,
    told: Mapping[int, Facts],
    twice: list[int],
    wait: float,
) -> str:
    """Returns what is wrong with those that came; "" if nothing is."""
    missing = [number for number in range(1, processes) if number not in told]
    sentence = difference(facts, told)
    if missing:
        again = f" while {_counted(twice)} came twice" if twice else ""
        absent = (
            f"{_counted(missing)} of {processes} did not come to {address} within {wait:g} s"
            f"{again}; see what was said there, and start all together"
        )
        return f"{absent}; and {sentence}" if sentence else absent
    return sentence


def _listening(address: str, port: int) -> socket.socket:
    """Returns a socket of process 0 that the others come to."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"{address}: process 0 cannot listen there ({error.strerror or error}); name another "
            "port, or end what has it"
        ) from error


def _ask(address: str, processes: int, process: int, facts: Facts, wait: float) -> str:
    """Reports to process 0 and returns what it finds wrong; tries until it is there."""
    host, _, port = address.rpartition(":")
    place, reason = (host.strip("[]"), int(port)), ""
    end = time.monotonic() + wait
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=min(SILENCE, left)) as other:
                _send(other, {"process": process, "facts": facts})
                # Process 0 may have come later, and waits as long for the rest.
                answer = _read(other, wait + 2 * SILENCE)
            if "wrong" in answer:
                return str(answer["wrong"])
            reason = "it said nothing that is ours"
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(min(0.2, max(0.0, end - time.monotonic())))
    return (
        f"process 0 of {processes} did not answer process {process} at {address} within "
        f"{wait:g} s ({reason}); see what was said there, and start all together"
    )


def _send(other: socket.socket, content: Mapping[str, Any]) -> None:
    """Sends one of our lines; whoever has gone away does not hinder the others."""
    with suppress(OSError):
        other.sendall(json.dumps({GREETING: 1, **content}).encode() + b"\n")


def _read(other: socket.socket, seconds: float) -> dict[str, Any]:
    """Reads one of our lines; empty if none comes in time."""
    end, read = time.monotonic() + seconds, b""
    try:
        while not read.endswith(b"\n") and len(read) < LONGEST:
            other.settimeout(max(0.01, end - time.monotonic()))
            if read and time.monotonic() > end:
                return {}
            more = other.recv(1 << 16)
            if not more:
                break
            read += more
        line = json.loads(read)
    except (OSError, ValueError):
        return {}
    return line if isinstance(line, dict) and GREETING in line else {}


# --- what runs ---------------------------------------------------------------------------------


def _fingerprint(package: Path) -> str:
    """Returns what tells the package's code from any other, as twelve digits."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _commit(package: Path) -> str | None:
    """Returns the commit that the package is of; None where it does not lie in a clone."""
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(package, "rev-parse", "--short=12", "HEAD")
    if tracked is None or commit is None:
        return None
    changes = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit} with changes" if changes else commit


def _git(package: Path, *arguments: str) -> str | None:
    """Returns what git says; None where it cannot."""
    command = ["git", "-C", str(package), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str:
    """Returns the installed version of a library."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
