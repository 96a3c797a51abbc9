"""Stands in for SLURM in tests: `srun` starts the tasks here, `scontrol` notes what it was told.

    python tests/fake_slurm.py srun --nodes=1 --ntasks=2 ... command arguments
    python tests/fake_slurm.py scontrol requeue 17

As srun does it hands SIGTERM on to its tasks, ends the others when one ends badly, and returns the
highest exit code. CALLS names the file that calls are noted in.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

VARIABLES = ("SLURM_", "TINYMU_", "XLA_", "JAX_", "CUDA_")
"""Beginnings of what a test sets itself."""


def free_port():
    """Returns a port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def outside():
    """Returns this process's environment without what a test sets itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}


def install(folder, calls):
    """Writes both commands into a folder; returns the environment that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("srun", "scontrol"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}


def called(calls):
    """Returns what was called, each as a list of its words."""
    return [json.loads(line) for line in Path(calls).read_text().splitlines()]


def srun(arguments):
    """Runs the tasks; returns the exit code."""
    options = {}
    while arguments[0].startswith("--"):
        name, _, value = arguments.pop(0).partition("=")
        options[name] = value
    count = int(options["--ntasks"])
    tasks = []
    signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
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
    Path(os.environ["CALLS"] + ".tasks").write_text(" ".join(str(task.pid) for task in tasks))
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
    sys.exit(srun(sys.argv[2:]) if sys.argv[1] == "srun" else 0)
