"""Several processes as one run: TPU pods, SLURM, or processes that are told where to meet."""

#
# They meet before jax joins them, at the address where jax's own service will be, since
#
# * jax does not say which process is missing: the other ones are aborted when its time is over;
# * processes with different versions of jax need not understand each other's jax;
# * what is compared over jax's devices comes too late, and its key-value store is private.
#
# Process 0 listens; each of the others sends one line of json and is answered with one: what is
# wrong, or that nothing is. A process that goes away meanwhile is found by its silence.
#
import hashlib
import inspect
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.errors import InputError, reason_of
from tinymu_jax.training.config import RunConfig
from tinymu_jax.utils.tree import flatten

WAIT = 300.0
"""Seconds after which a process that has not come is missing."""


class Meeting(NamedTuple):
    """Where the processes of a run meet, and who this one is."""

    coordinator: str
    """"host:port" of process 0."""
    processes: int
    process: int


def join_processes(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    wait: float = WAIT,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Joins the other processes of this run, if there are any; call it before anything of jax.

    What is named counts. Else SLURM's and a TPU pod's own variables say who the others are.

    Args:
        coordinator: "host:port" of the first process, at which all meet.
        processes: how many there are.
        process: which of them this is, from 0.
        wait: seconds after which a process that has not come is missing.
        facts: what has to be alike in all of them; see `agreement.facts_of`.

    Raises:
        InputError: some of the three are missing or out of range, a process did not come, or one
            runs something else.
    """
    if wait <= 0:
        raise InputError(f"--wait {wait:g}: give the seconds, more than 0")
    named = (coordinator, processes, process)
    if any(value is not None for value in named):
        meeting = _named_meeting(*named)
    elif _of_several_in_slurm() or _has_tpu():
        meeting = _found_meeting(wait)
    else:
        return
    if meeting is None or (coordinator is None and meeting.processes == 1):
        return  # one machine, of which nobody knows of others
    agree(*meeting, dict(facts or {}), wait)
    import jax

    try:
        # All were there a moment ago: it takes as long as the slowest needs to load jax.
        jax.distributed.initialize(
            *meeting, local_device_ids=_local_devices(), initialization_timeout=max(60, int(wait))
        )
    except (RuntimeError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(
            f"the processes of this run did not meet at {meeting.coordinator} ({reason}); start "
            "all of them, with the same coordinator"
        ) from error


def _named_meeting(
    coordinator: str | None, processes: int | None, process: int | None
) -> Meeting | None:
    """Returns the meeting that the options name."""
    if coordinator is None or processes is None or process is None:
        raise InputError(
            "--coordinator, --processes and --process go together; give all three, or none "
            "on SLURM and TPU pods"
        )
    if not 0 <= process < processes:
        raise InputError(f"--process {process} of {processes}: give 0 to {processes - 1}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--coordinator {coordinator}: give it as host:port")
    return Meeting(coordinator, processes, process)


def _found_meeting(wait: float) -> Meeting | None:
    """Returns the meeting that SLURM's or the pod's variables name; None where they name none.

    jax has no public way to ask for it, and ours has to be the one that it goes to afterwards.
    """
    from jax._src.clusters import ClusterEnv

    kinds = (kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method)
    found = next((kind for kind in kinds if kind.is_env_present()), None)
    if found is None:
        return None
    # jax 0.7 knows the first of them alone.
    options = {
        "timeout_secs": int(wait),
        "override_coordinator_port": os.environ.get("JAX_COORDINATOR_PORT"),
    }
    known = inspect.signature(found.get_coordinator_address).parameters
    options = {name: value for name, value in options.items() if name in known}
    try:
        processes = found.get_process_count()
        if processes == 1:
            return None
        coordinator = found.get_coordinator_address(**options)
        return Meeting(coordinator, processes, found.get_process_id())
    except (RuntimeError, ValueError, KeyError) as error:
        reason = reason_of(error)
        raise InputError(
            f"what this machine says of the other processes cannot be read ({reason}); name them "
            "with --coordinator, --processes and --process"
        ) from error


def _local_devices() -> list[int] | None:
    """Returns the GPUs of this process; None: all that it sees.

    Left to itself jax gives every task of SLURM one GPU, the one with the task's number on its
    node: wrong where one task has the whole node, and where SLURM shows each task its GPU alone
    (--gpus-per-task, --gpu-bind), which is number 0 there.
    """
    if not _of_several_in_slurm() or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    own = int(os.environ.get("SLURM_LOCALID", "0"))
    several_here = tasks > int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
    if several_here:
        alone = "SLURM_GPUS_PER_TASK" in os.environ or own >= len(visible) or len(visible) == 1
        return list(range(len(visible))) if visible[0] and alone else [own]
    return list(range(len(visible))) if visible[0] else _gpus_of_node()


def _gpus_of_node() -> list[int] | None:
    """Returns the GPUs that SLURM gave us on this node, if it says how many."""
    count = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return list(range(int(count))) if count.isdigit() and int(count) else None


def _of_several_in_slurm() -> bool:
    """Tells a task of `srun` with more than one; a shell of `salloc` has no task of its own."""
    return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _has_tpu() -> bool:
    """Tells a machine with TPU chips: jax asks the cloud whether it is one of several."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) and find_spec("libtpu") is not None


LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

PACKAGE = Path(__file__).parents[1]

PLACES = ("output", *(f"data/{name}" for name in ("train", "validation", "labels", "classes")))
"""Fields that may differ: where a machine has the data, and sees the run's folder."""

GREETING = "tinymu"
"""Marks our lines: the port may be found by programs that have nothing to do with the run."""

LONGEST = 1 << 20
"""Bytes of a line."""

SILENCE = 5.0
"""Seconds that one connection may keep the others waiting."""

HostFacts = dict[str, Any]


def facts_of(config: RunConfig, resume: bool, package: Path = PACKAGE) -> HostFacts:
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


def agree(address: str, processes: int, process: int, facts: HostFacts, wait: float) -> None:
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


def _gather(address: str, processes: int, facts: HostFacts, wait: float) -> str:
    """Waits for the others, tells them what is wrong, and returns it."""
    end = time.monotonic() + wait
    port = int(address.rpartition(":")[2])
    came: dict[int, socket.socket] = {}
    told: dict[int, HostFacts] = {}
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
    facts: HostFacts,
    told: Mapping[int, HostFacts],
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


def _ask(address: str, processes: int, process: int, facts: HostFacts, wait: float) -> str:
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
