"""Stands in for SLURM in tests: `srun` starts tasks, `scancel` signals them.

    python tests/launch/fake_slurm.py srun --nodes=1 --ntasks=2 ... command arguments
    python tests/launch/fake_slurm.py scancel --signal=TERM 17
    python tests/launch/fake_slurm.py scontrol requeue 17

As srun does it kills its tasks on SIGTERM, ends the others when one ends badly, and returns the
highest exit code. CALLS names the file that calls are noted in.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

VARIABLES = ("SLURM_", "TINYMU_", "XLA_", "JAX_", "CUDA_")
"""Beginnings of what a test sets itself."""


def outside():
    """Returns this process's environment without what a test sets itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}


def install(folder, calls):
    """Writes both commands into a folder; returns the environment that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("srun", "scancel", "scontrol"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}


def called(calls):
    """Returns what was called, each as a list of its words."""
    return [json.loads(line) for line in Path(calls).read_text().splitlines()]


def tasks_file():
    """Returns the file that holds the numbers of the tasks."""
    return Path(os.environ["CALLS"] + ".tasks")


def scancel(arguments):
    """Sends a signal to the tasks, once all have begun; returns the exit code."""
    option, _ = arguments
    while not tasks_file().exists():
        time.sleep(0.05)
    for task in map(int, tasks_file().read_text().split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(task, signal.Signals["SIG" + option.removeprefix("--signal=")])
    return 0


def srun(arguments):
    """Runs the tasks; returns the exit code."""
    tasks_file().unlink(missing_ok=True)
    options = {}
    while arguments[0].startswith("--"):
        name, _, value = arguments.pop(0).partition("=")
        options[name] = value
    count = int(options["--ntasks"])
    tasks = []
    signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])
    for number in range(count):
        variables = {
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_NODES": "1",
            "SLURM_STEP_NUM_TASKS": str(count),
            "SLURM_NTASKS": str(count),
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
        }
        tasks.append(subprocess.Popen(arguments, env=os.environ | variables))
    whole = tasks_file().with_suffix(".new")
    whole.write_text(" ".join(str(task.pid) for task in tasks))
    whole.replace(tasks_file())
    while any(task.poll() is None for task in tasks):
        if "--kill-on-bad-exit" in options and any(task.poll() not in (None, 0) for task in tasks):
            # A moment for the others to say what they have to say, as on a cluster.
            time.sleep(1)
            for task in tasks:
                task.kill()
        time.sleep(0.05)
    return max(code if code >= 0 else 128 - code for code in (task.returncode for task in tasks))


if __name__ == "__main__":
    with open(os.environ["CALLS"], "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    commands = {"srun": srun, "scancel": scancel, "scontrol": lambda _: 0}
    sys.exit(commands[sys.argv[1]](sys.argv[2:]))
