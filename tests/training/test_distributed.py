"""Processes that start together: all must join, and run the same code and config."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
from helpers import ROOT, free_port
from launch.fake_slurm import VARIABLES
from test_kills import config_file, ended  # noqa: F401

from tinymu_jax.errors import InputError
from tinymu_jax.training.config import DataConfig, OptimConfig, TrainConfig
from tinymu_jax.training.distributed import (
    Cluster,
    _detect_cluster,
    _local_devices,
    facts_of,
    find_differences,
    join_processes,
)


def test_processes_that_differ_are_named_with_the_difference():
    facts = facts_of(TrainConfig(optim=OptimConfig(learning_rate=5e-5)), True)
    other = facts_of(TrainConfig(optim=OptimConfig(learning_rate=1e-4)), True)
    assert find_differences([facts, facts, other, other]) == (
        "processes 2 and 3 run with --optim.learning-rate 0.0001, process 0 with 5e-05; start all "
        "with the same command"
    )
    assert find_differences([facts] * 5) == ""


def test_data_paths_may_differ_between_hosts():
    here, there = (
        facts_of(TrainConfig(output=place, data=DataConfig(train=place)), False)
        for place in ("/a", "/b")
    )
    assert here == there


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"jax": "0.9"}, "process 1 runs with jax 0.9, process 0 with 0.10; install the same "),
        ({"commit": "b with changes"}, "process 1 runs with commit b with changes, process 0 with"),
        ({"commit": None}, ""),
        ({"commit": "b", "package files": "2"}, "process 1 runs with commit b, process 0 with a;"),
        ({"commit": None, "package files": "2"}, "process 1 runs with package files 2, process 0 "),
        ({"--lora.rank": 8}, "process 1 runs with --lora.rank 8, process 0 with null; start all "),
    ],
)
def test_which_differences_count(reference, expected):
    mine = {"commit": "a", "package files": "1", "jax": "0.10"}
    result = find_differences([mine, mine | reference])
    assert result.startswith(expected)
    assert bool(result) == bool(expected)


@pytest.fixture
def copy(tmp_path):
    """A clone of the package with a commit of its own."""
    tree = tmp_path / "clone"
    shutil.copytree(
        ROOT / "tinymu_jax", tree / "tinymu_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    return tree


def test_facts_include_commit_changes_and_code(copy):
    package, config = copy / "tinymu_jax", TrainConfig()
    clean = facts_of(config, False, package)
    assert len(clean["commit"]) == 12
    assert clean == facts_of(config, False, package)
    assert clean["package files"] == facts_of(config, False)["package files"]
    with (package / "utils" / "files.py").open("a") as file:
        file.write("# more\n")
    changed = facts_of(config, False, package)
    assert changed["commit"] == f"{clean['commit']} with changes"
    assert changed["package files"] != clean["package files"]
    shutil.rmtree(copy / ".git")
    assert facts_of(config, False, package) == changed | {"commit": None}


def begin_here(place, config, output, port, number, *options):
    """Begins one of two processes that runs the package of a place."""
    command = [sys.executable, "-m", "tinymu_jax", "train"]
    meet_at = [f"--coordinator=localhost:{port}", "--num-processes=2", f"--process-id={number}"]
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
    (copy / "tinymu_jax" / "utils" / "files.py").open("a").write("# other\n")
    place = copy if differing == "commit" else ROOT
    options = ["--optim.learning-rate=2e-4"] if differing == "config" else []
    processes = [
        begin_here(ROOT, config_file, output, port, 0),
        begin_here(place, config_file, output, port, 1, *options),
    ]
    expected = {
        "config": ["process 1 runs with --optim.learning-rate 0.0002, process 0 with 0.001"],
        # Whether the tests themselves lie in a clone.
        "commit": ["process 1 runs with commit", "process 1 runs with package files"],
    }[differing]
    for process in processes:
        (said,) = errors_of(ended(process, 2))
        assert any(words in said for words in expected), said
    assert not output.exists()


def errors_of(stderr):
    """Returns the lines that begin with "error: "; jax logs others."""
    return [line for line in stderr.splitlines() if line.startswith("error: ")]


def test_a_missing_process_ends_the_start_with_an_error(config_file, tmp_path):  # noqa: F811
    port, output = free_port(), tmp_path / "run"
    options = ["--num-processes=3", "--join-timeout=10"]
    processes = [begin_here(ROOT, config_file, output, port, i, *options) for i in (0, 1)]
    for process_id, process in enumerate(processes):
        (said,) = errors_of(ended(process, 2))
        assert said.startswith(
            f"error: process {process_id} of 3 at localhost:{port}: not all processes joined "
            "within 10 s; see the output of each"
        )
    assert not output.exists()


def test_a_used_port_is_an_error():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=r"process 0 cannot listen there \("):
            join_processes(f"localhost:{port}", 2, 0)


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


def test_slurm_cluster_is_detected(monkeypatch):
    in_slurm(monkeypatch)
    # 61440 and what the job's number leaves of 4096.
    assert _detect_cluster(10) == Cluster("node003:61441", 8, 5)


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
def test_local_gpus_of_a_slurm_task(monkeypatch, more, devices):
    in_slurm(monkeypatch, **more)
    assert _local_devices() == devices
