"""Several processes as one run: TPU pods, SLURM, or processes that are told where to meet."""

import os
from importlib.util import find_spec
from pathlib import Path

from tinymu_jax.errors import InputError


def join_processes(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes of this run, if there are any; call it before anything of jax.

    What is named counts. Else SLURM's and a TPU pod's own variables say who the others are.

    Args:
        coordinator: "host:port" of the first process, at which all meet.
        processes: how many there are.
        process: which of them this is, from 0.

    Raises:
        InputError: some of the three are missing or out of range, or the others were not met.
    """
    named = (coordinator, processes, process)
    if any(value is not None for value in named):
        if any(value is None for value in named):
            raise InputError(
                "--coordinator, --processes and --process go together; give all three, or none "
                "on SLURM and TPU pods"
            )
        if not 0 <= process < processes:
            raise InputError(f"--process {process} of {processes}: give 0 to {processes - 1}")
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"--coordinator {coordinator}: give it as host:port")
    elif not (_of_several_in_slurm() or _has_tpu()):
        return
    import jax

    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        if coordinator is None and not _of_several_in_slurm() and jax.process_count() == 1:
            return  # one TPU machine, of which nobody knows of others
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the processes of this run did not meet at {coordinator or 'their coordinator'} "
            f"({reason}); start all of them, with the same coordinator"
        ) from error


def _of_several_in_slurm() -> bool:
    """Tells a task of `srun` with more than one; a shell of `salloc` has no task of its own."""
    return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _has_tpu() -> bool:
    """Tells a machine with TPU chips: jax asks the cloud whether it is one of several."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) and find_spec("libtpu") is not None
