"""Several processes as one run: TPU pods, SLURM, or processes that are told where to meet."""

import inspect
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.agreement import agree
from tinymu_jax.errors import InputError, reason_of

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
