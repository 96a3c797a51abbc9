"""Processes that start together: all of them there, all running the same."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from fake_slurm import VARIABLES
from helpers import ROOT, free_port
from test_kills import config_file, ended  # noqa: F401

from tinymu_jax.errors import InputError
from tinymu_jax.training.config import DataConfig, OptimConfig, TrainConfig
from tinymu_jax.training.distributed import (
    Meeting,
    _found_meeting,
    _local_devices,
    _read,
    agree,
    difference,
    facts_of,
)


def meet(facts, processes=None, wait=20.0, port=None):
    """Lets processes (threads here) meet; returns what each was refused with, None if it was not.

    Args:
        facts: by the number of the process.
        processes: how many each of them counts.
        wait: as in `agree`.
        port: where they meet.
    """
    address, said = f"localhost:{port or free_port()}", dict.fromkeys(facts)

    def one(number):
        try:
            agree(address, processes or len(facts), number, facts[number], wait)
        except InputError as error:
            said[number] = str(error).replace(address, "HERE")

    threads = [threading.Thread(target=one, args=[number]) for number in facts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_processes_that_run_the_same_agree_and_leave_the_port_free():
    port = free_port()
    facts = facts_of(TrainConfig(), False)
    assert meet(dict.fromkeys(range(5), facts), port=port) == dict.fromkeys(range(5))
    # jax's service comes to the same port at once.
    with socket.create_server(("", port)):
        pass


def test_every_process_is_told_who_differs_in_what():
    one = facts_of(TrainConfig(optim=OptimConfig(learning_rate=5e-5)), True)
    other = facts_of(TrainConfig(optim=OptimConfig(learning_rate=1e-4)), True)
    said = meet({0: one, 1: one, 2: other, 3: other})
    assert set(said.values()) == {
        "processes 2 and 3 run with --optim.learning-rate 0.0001, process 0 with 5e-05; start all "
        "with the same command"
    }


def test_every_process_is_told_who_is_missing():
    said = meet({0: {}, 1: {}, 4: {}}, processes=5, wait=5.0)
    assert set(said.values()) == {
        "processes 2 and 3 of 5 did not come to HERE within 5 s; see what was said there, and "
        "start all together"
    }
    assert meet({1: {}}, processes=2, wait=0.5)[1].startswith(
        "process 0 of 2 did not answer process 1 at HERE within 0.5 s ("
    )


def test_whoever_has_nothing_to_do_with_the_run_is_not_counted():
    port, found = free_port(), {}
    meeting = threading.Thread(target=lambda: found.update(meet({0: {}}, 2, 3.0, port)))
    meeting.start()
    lines = [
        b"GET / HTTP/1.1\n",
        b'{"process": 1, "facts": {}}\n',
        b'{"tinymu": 1, "process": 7, "facts": {}}\n',
        b'{"tinymu": 1, "process": true, "facts": {}}\n',
    ]
    sent = 0
    while meeting.is_alive():
        try:
            with socket.create_connection(("localhost", port), timeout=1) as stranger:
                stranger.sendall(lines[sent % len(lines)])
                sent += 1
        except OSError:
            time.sleep(0.05)
    assert sent >= len(lines)
    assert found[0].startswith("process 1 of 2 did not come")


def test_a_line_that_drips_is_not_waited_for():
    ours, theirs = socket.socketpair()
    stopped = threading.Event()

    def drip():
        while not stopped.wait(0.02):
            theirs.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    begun = time.monotonic()
    assert _read(ours, 0.3) == {}
    taken = time.monotonic() - begun
    stopped.set()
    dripping.join()
    assert 0.3 <= taken < 30  # 1 MB would take hours


def test_machines_may_have_the_data_in_other_places():
    here, there = (
        facts_of(TrainConfig(output=place, data=DataConfig(train=place)), False)
        for place in ("/a", "/b")
    )
    assert here == there


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert "process 0 cannot listen there (" in meet({0: {}}, 2, 1.0, port)[0]


@pytest.mark.parametrize(
    ("theirs", "wanted"),
    [
        ({"jax": "0.9"}, "process 1 runs with jax 0.9, process 0 with 0.10; install the same "),
        ({"commit": "b with changes"}, "process 1 runs with commit b with changes, process 0 with"),
        ({"commit": None}, ""),
        ({"commit": "b", "package files": "2"}, "process 1 runs with commit b, process 0 with a;"),
        ({"commit": None, "package files": "2"}, "process 1 runs with package files 2, process 0 "),
        ({"--lora.rank": 8}, "process 1 runs with --lora.rank 8, process 0 with null; start all "),
    ],
)
def test_what_counts_as_another_installation(theirs, wanted):
    mine = {"commit": "a", "package files": "1", "jax": "0.10"}
    found = difference(mine, {1: mine | theirs})
    assert found.startswith(wanted)
    assert bool(found) == bool(wanted)


@pytest.fixture
def copy(tmp_path):
    """A clone of the package with a commit of its own."""
    tree = tmp_path / "clone"
    shutil.copytree(
        ROOT / "tinymu_jax",
        tree / "tinymu_jax",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    return tree


def test_facts_tell_commit_changes_and_code(copy):
    package, config = copy / "tinymu_jax", TrainConfig()
    clean = facts_of(config, False, package)
    assert len(clean["commit"]) == 12
    assert clean == facts_of(config, False, package)
    assert clean["package files"] == facts_of(config, False)["package files"]
    (package / "files.py").write_text((package / "files.py").read_text() + "# more\n")
    changed = facts_of(config, False, package)
    assert changed["commit"] == f"{clean['commit']} with changes"
    assert changed["package files"] != clean["package files"]
    shutil.rmtree(copy / ".git")
    assert facts_of(config, False, package) == changed | {"commit": None}


def begin_here(place, config, output, port, number, *options):
    """Begins one of two processes that runs the package of a place."""
    command = [sys.executable, "-m", "tinymu_jax", "train"]
    meet_at = [f"--coordinator=localhost:{port}", "--processes=2", f"--process={number}"]
    return subprocess.Popen(
        [*command, f"--config={config}", f"--output={output}", *meet_at, *options],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("differing", ["config", "commit"])
def test_another_config_or_commit_stops_the_start(differing, config_file, copy, tmp_path):  # noqa: F811
    port, output = free_port(), tmp_path / "run"
    (copy / "tinymu_jax" / "files.py").open("a").write("# other\n")
    place = copy if differing == "commit" else ROOT
    options = ["--optim.learning-rate=2e-4"] if differing == "config" else []
    processes = [
        begin_here(ROOT, config_file, output, port, 0),
        begin_here(place, config_file, output, port, 1, *options),
    ]
    wanted = {
        "config": ["process 1 runs with --optim.learning-rate 0.0002, process 0 with 0.001"],
        # Whether the tests themselves lie in a clone.
        "commit": ["process 1 runs with commit", "process 1 runs with package files"],
    }[differing]
    for process in processes:
        said = ended(process, 2)
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert any(words in said for words in wanted), said
    assert not output.exists()


# --- SLURM -------------------------------------------------------------------------------------


def in_slurm(monkeypatch, **more):
    """Sets the variables of task 5 of 8 on two nodes."""
    variables = {
        "SLURM_JOB_ID": "4097",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "node[003,007]",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_NTASKS": "8",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
    }
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)
    for name, value in (variables | more).items():
        monkeypatch.setenv(name, value)


def test_slurm_says_where_they_meet(monkeypatch):
    in_slurm(monkeypatch)
    # 61440 and what the job's number leaves of 4096.
    assert _found_meeting(10) == Meeting("node003:61441", 8, 5)


@pytest.mark.parametrize(
    ("more", "devices"),
    [
        ({}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, [0]),  # --gpus-per-task
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_PER_TASK": "2"}, [0, 1]),
        ({"SLURM_STEP_NUM_TASKS": "2", "CUDA_VISIBLE_DEVICES": "2,3"}, [0, 1]),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_GPUS_ON_NODE": "4"}, [0, 1, 2, 3]),
        ({"JAX_LOCAL_DEVICE_IDS": "2"}, None),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
    ],
)
def test_gpus_of_a_task(monkeypatch, more, devices):
    in_slurm(monkeypatch, **more)
    assert _local_devices() == devices
