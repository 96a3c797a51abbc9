"""Join the processes of a distributed run on a TPU pod, on SLURM, or at a given address.

All processes then compare commit, code, options and library versions, and stop if any differ.
"""

import hashlib
import inspect
import json
import os
import platform
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.errors import InputError, reason_of, translate
from tinymu_jax.training.config import RunConfig
from tinymu_jax.utils.tree import flatten

JOIN_TIMEOUT = 300.0
"""Default number of seconds within which all processes must join."""
GRACE = 5.0
"""Extra seconds that process 0 waits, because it hosts jax's coordination service. If that service
ended first, jax would abort the other processes without a message."""
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
PACKAGE = Path(__file__).parents[1]
LOCAL_FIELDS = (
    "output",
    *(f"data/{name}" for name in ("train", "validation", "labels", "classes")),
)
"""Config fields that may differ between hosts: paths of the data and of the run's folder."""
HostFacts = dict[str, Any]
"""Values that must be equal on all hosts, by name: versions of code and libraries, options."""


class Cluster(NamedTuple):
    """Arguments of `jax.distributed.initialize` that identify a run and this process."""

    coordinator: str
    """Address of process 0, as "host:port"."""
    num_processes: int
    process_id: int


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = JOIN_TIMEOUT,
    facts: HostFacts | None = None,
) -> None:
    """Join the other processes of this run, if there are any; call this before using jax.

    Without `coordinator`, `num_processes` and `process_id`, the processes are detected on SLURM and
    on TPU pods; elsewhere the function does nothing.

    Args:
        coordinator: "host:port" of process 0.
        num_processes: total number of processes.
        process_id: index of this process, from 0.
        timeout: seconds within which all processes must join.
        facts: values of this process that must be equal in all processes; see `facts_of`.

    Raises:
        InputError: an argument is wrong, a process did not join, or `facts` differ.
    """
    if timeout <= 0:
        raise InputError(f"--join-timeout {timeout:g}: give the seconds, more than 0")
    arguments = (coordinator, num_processes, process_id)
    if any(value is not None for value in arguments):
        cluster = _named_cluster(*arguments)
    elif _in_slurm_step() or _has_tpu():
        cluster = _detect_cluster(timeout)
    else:
        return
    if cluster is None:
        return
    _initialize(cluster, timeout)
    difference = find_differences(
        _gather({"--num-processes": cluster.num_processes} | (facts or {}))
    )
    if difference:
        raise InputError(difference)


def _initialize(cluster: Cluster, timeout: float) -> None:
    """Run `jax.distributed.initialize`; raise `InputError` if it fails or exceeds the timeout."""
    import jax

    if cluster.process_id == 0:
        _check_port(cluster.coordinator)
    errors: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                *cluster,
                local_device_ids=_local_devices(),
                initialization_timeout=int(timeout + 12 * GRACE),
            )
        except Exception as error:
            errors.append(error)

    # jax's own timeout aborts the process from C++: join in a thread, and give up earlier.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(timeout + (GRACE if cluster.process_id == 0 else 0.0))
    where = f"process {cluster.process_id} of {cluster.num_processes} at {cluster.coordinator}"
    if thread.is_alive():
        raise InputError(
            f"{where}: not all processes joined within {timeout:g} s; see the output of each "
            "for one that failed, never started or has the --process-id of another, check that "
            "all hosts can reach the coordinator's address, and start all of them together"
        )
    if errors:
        raise InputError(
            f"{where}: cannot join the run ({reason_of(errors[0])}); start all processes with the "
            "same coordinator"
        ) from errors[0]


def _check_port(coordinator: str) -> None:
    """Raise an `InputError` if process 0 cannot listen at its port, which would crash jax."""
    port = int(coordinator.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise InputError(
            f"{coordinator}: process 0 cannot listen there ({error.strerror or error}); name "
            "another port, or end the program that uses it"
        ) from error


def _named_cluster(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Cluster:
    """Check the options --coordinator, --num-processes and --process-id; return the cluster."""
    if coordinator is None or num_processes is None or process_id is None:
        raise InputError(
            "--coordinator, --num-processes and --process-id go together; give all three, or none "
            "on SLURM and TPU pods"
        )
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process-id {process_id} of {num_processes}: give 0 to {num_processes - 1}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--coordinator {coordinator}: give it as host:port")
    return Cluster(coordinator, num_processes, process_id)


def _detect_cluster(timeout: float) -> Cluster | None:
    """Detect the cluster on SLURM or a TPU pod; return None for a single process."""
    # jax has no public function that returns the cluster before joining it.
    from jax._src.clusters import ClusterEnv

    kinds = (kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method)
    environment = next((kind for kind in kinds if kind.is_env_present()), None)
    if environment is None:
        return None
    # jax 0.7 knows only the first of these options.
    options = {
        "timeout_secs": int(timeout),
        "override_coordinator_port": os.environ.get("JAX_COORDINATOR_PORT"),
    }
    known = inspect.signature(environment.get_coordinator_address).parameters
    options = {name: value for name, value in options.items() if name in known}
    with translate(
        "the other processes cannot be detected ({reason}); name them with --coordinator, "
        "--num-processes and --process-id"
    ):
        num_processes = environment.get_process_count()
        if num_processes == 1:
            return None
        coordinator = environment.get_coordinator_address(**options)
        return Cluster(coordinator, num_processes, environment.get_process_id())


def _local_devices() -> list[int] | None:
    """Return the indices of the GPUs that this process should use, or None to let jax choose.

    On SLURM, jax would choose a single GPU for each task, even if the task has several.
    """
    if not _in_slurm_step() or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    tasks = _slurm_number("SLURM_STEP_NUM_TASKS", "1")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    local_id = _slurm_number("SLURM_LOCALID", "0")
    if tasks > _slurm_number("SLURM_STEP_NUM_NODES", "1"):
        sees_only_its_gpus = (
            "SLURM_GPUS_PER_TASK" in os.environ or local_id >= len(visible) or len(visible) == 1
        )
        return list(range(len(visible))) if visible[0] and sees_only_its_gpus else [local_id]
    return list(range(len(visible))) if visible[0] else _gpus_of_node()


def _gpus_of_node() -> list[int] | None:
    count = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return list(range(int(count))) if count.isdigit() and int(count) else None


def _in_slurm_step() -> bool:
    """Return whether this process is one of several tasks that `srun` started."""
    return "SLURM_STEP_ID" in os.environ and _slurm_number("SLURM_STEP_NUM_TASKS", "1") > 1


def _slurm_number(name: str, default: str) -> int:
    """Return the number in one of SLURM's environment variables."""
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise InputError(f"{name}={value}: is not a number; start the run with srun, or unset it")
    return int(value)


def _has_tpu() -> bool:
    """Return whether this host has TPU chips and an installed libtpu."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) and find_spec("libtpu") is not None


def facts_of(config: RunConfig, resume: bool, package: Path = PACKAGE) -> HostFacts:
    """Return the values that must be equal in all processes: code, library versions and options.

    `resume` is the option --resume; `package` is the folder whose .py files are compared.
    """
    fields = flatten(json.loads(json.dumps(asdict(config), default=str)))
    options = {
        f"--{name.replace('/', '.').replace('_', '-')}": value
        for name, value in fields
        if name not in LOCAL_FIELDS
    }
    return {
        "commit": _commit(package),
        "package files": _code_digest(package),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "a config of type": type(config).__name__,
        "--resume": resume,
        **options,
    }


def _gather(facts: HostFacts) -> list[HostFacts]:
    """Gather the `HostFacts` of all processes, in order of process id."""
    from jax.experimental.multihost_utils import process_allgather

    data = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    # An all-gather needs equal shapes: the lengths are gathered first, then the padded texts.
    lengths = process_allgather(np.int32(len(data))).reshape(-1)
    rows = process_allgather(np.pad(data, (0, lengths.max() - len(data))))
    rows = rows.reshape(len(lengths), -1)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def find_differences(hosts: Sequence[HostFacts]) -> str:
    """Describe where `hosts[i]`, the facts of process i, differ from `hosts[0]`; "" if nowhere."""
    reference = hosts[0]
    differing: dict[tuple[str, str, str], list[int]] = {}
    for process_id, facts in enumerate(hosts):
        for name, expected, value in _differing(reference, facts):
            differing.setdefault((name, value, expected), []).append(process_id)
    clauses = [
        f"{_processes(ids)} {'runs' if len(ids) == 1 else 'run'} with {name} {value}, "
        f"process 0 with {expected}"
        for (name, value, expected), ids in differing.items()
    ]
    if not clauses:
        return ""
    only_options = all(name.startswith(("--", "a config")) for name, _, _ in differing)
    remedy = "start all with the same command" if only_options else "install the same everywhere"
    more = f"; {len(clauses) - 5} more differences" if len(clauses) > 5 else ""
    return f"{'; '.join(clauses[:5])}{more}; {remedy}"


def _differing(reference: HostFacts, facts: HostFacts) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value in `reference`, value in `facts`) for each value that differs."""
    for name in reference | facts:
        expected, value = reference.get(name), facts.get(name)
        if expected == value:
            continue
        if name == "commit" and None in (expected, value):
            continue  # one host has no clone or no git: compare only the package files
        commits = {reference.get("commit"), facts.get("commit")} - {None}
        if name == "package files" and len(commits) > 1:
            continue  # different commits explain different files
        yield name, _shown(expected), _shown(value)


def _shown(value: Any) -> str:
    """Format a value for a message: a string unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _processes(ids: list[int]) -> str:
    """Format process ids as "process 2", "processes 1 and 2", or "processes 1, 2 and 5"."""
    *others, last = map(str, ids)
    return f"processes {', '.join(others)} and {last}" if others else f"process {last}"


def _code_digest(package: Path) -> str:
    """Return 12 hex digits of a SHA-256 over paths and contents of a package's .py files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _commit(package: Path) -> str | None:
    """Return a package's git commit, marked if tracked files changed; None outside a clone."""
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(package, "rev-parse", "--short=12", "HEAD")
    if tracked is None or commit is None:
        return None
    changes = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit} with changes" if changes else commit


def _git(package: Path, *arguments: str) -> str | None:
    """Run git in a folder and return its output; None if git fails or takes over 20 s."""
    command = ["git", "-C", str(package), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str:
    """Return the installed version of a library; "none" if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
