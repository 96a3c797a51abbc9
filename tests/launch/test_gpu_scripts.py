"""The scripts for GPU machines: SLURM with stand-ins for its commands, and one machine."""

import os
import shutil
import signal
import subprocess
import sys

import fake_slurm
import numpy as np
import pytest
from fake_slurm import outside
from helpers import ROOT, free_port
from training.test_kills import begin, config_file, ended, losses, wait_for  # noqa: F401

SCRIPT = ROOT / "launch" / "slurm_gpu.sbatch"
GOLDEN = ROOT / "tests" / "golden" / "launch"


def job(tmp_path, tinymu, **variables):
    """Begins the script as a job whose `tinymu` is a shell script."""
    command = tmp_path / "venv" / "bin" / "tinymu"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f"#!/usr/bin/env bash\n{tinymu}\n")
    command.chmod(0o755)
    variables = {
        "SLURM_JOB_ID": str(free_port()),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "TINYMU_VENV": str(tmp_path / "venv"),
        "OUTPUT": str(tmp_path / "run"),
        **variables,
    }
    # sbatch runs a copy of the script.
    shutil.copy(SCRIPT, tmp_path / "slurm_script")
    return subprocess.Popen(
        ["bash", str(tmp_path / "slurm_script"), *variables.pop("ARGUMENTS", "").split()],
        env=outside() | fake_slurm.install(tmp_path / "bin", tmp_path / "calls") | variables,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output_of(process, code=0):
    """Waits for the end of a job; returns all that it said."""
    said = "".join(process.communicate(timeout=240))
    assert process.returncode == code, said
    return said


@pytest.mark.parametrize("per", ["gpu", "node"])
def test_the_dry_run_prints_the_stored_command(per):
    done = subprocess.run(
        ["bash", str(SCRIPT), "--data.train", "my data", "--mesh.fsdp=2"],
        env=outside() | {"DRY_RUN": "1", "PROCESS_PER": per, "SLURM_JOB_NUM_NODES": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (GOLDEN / f"slurm_gpu_{per}.txt").read_text()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PROCESS_PER": "core"}, "PROCESS_PER=core: give gpu or node"),
        ({"CONFIG": "configs/none.py"}, "configs/none.py: no such config"),
        ({"SLURM_JOB_ID": ""}, "not inside a SLURM job"),
        ({"TINYMU_VENV": "nowhere"}, "nowhere has no tinymu"),
        ({"SLURM_SUBMIT_DIR": "/"}, "/ is not the clone"),
    ],
)
def test_a_job_that_cannot_begin_says_why(tmp_path, variables, named):
    assert f"error: {named}" in output_of(job(tmp_path, "exit 0", **variables), 2)
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    ("tinymu", "code", "queued"),
    [
        ('mkdir -p "$OUTPUT/model"', 0, False),
        ("exit 0", 0, True),  # stopped by a SIGTERM that the script did not see
        ("exit 2", 2, False),
        ('[ "$SLURM_PROCID" = 0 ] || kill -9 $$; exec sleep 60', 137, False),
    ],
)
def test_a_job_is_queued_again_if_it_was_asked_to_stop(tmp_path, tinymu, code, queued):
    process = job(tmp_path, tinymu)
    output_of(process, code)
    calls = fake_slurm.called(tmp_path / "calls")
    assert [call[:2] for call in calls[1:]] == ([["scontrol", "requeue"]] if queued else [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_process_and_queues_the_job_again(tmp_path, number):
    waits = 'trap "kill %1; echo saved $SLURM_PROCID; exit 0" TERM; sleep 60 & echo begun; wait'
    process = job(tmp_path, waits)
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    process.send_signal(number)
    said = output_of(process)
    assert "saved 0" in said
    assert "saved 1" in said
    _, asked, last = fake_slurm.called(tmp_path / "calls")
    assert asked == ["scancel", "--signal=TERM", last[2]]
    assert last[:2] == ["scontrol", "requeue"]
    assert f"job {last[2]} is requeued" in said


@pytest.mark.parametrize(
    ("count", "limit"), [(2, False), pytest.param(4, True, marks=pytest.mark.slow)]
)
def test_a_job_goes_on_after_a_kill_with_the_losses_of_one_process(
    count,
    limit,
    config_file,  # noqa: F811
    tmp_path,
):
    alone, output = tmp_path / "alone", tmp_path / "run"
    options = [f"--step.blocks={count}", "--steps=16"]
    ended(begin(config_file, alone, *options))
    tinymu = f'cd "{ROOT}" && exec "{sys.executable}" -m tinymu_jax "$@"'
    variables = {
        "CONFIG": str(config_file),
        "SLURM_GPUS_ON_NODE": str(count),
        "TINYMU_CACHE": str(config_file.parent / "cache"),
        "JAX_PLATFORMS": "cpu",
        "ARGUMENTS": " ".join(options),
    }
    process = job(tmp_path, tinymu, **variables)
    wait_for(process, output, 4)
    victim = int((tmp_path / "calls.tasks").read_text().split()[-1])
    os.kill(victim, signal.SIGKILL)
    assert "the run failed (exit code 137)" in output_of(process, 137)
    assert not (output / "model").exists()
    if limit:  # of time
        process = job(tmp_path, tinymu, **variables)
        wait_for(process, output, max(losses(output)) + 3)
        process.send_signal(signal.SIGUSR1)
        assert "is requeued" in output_of(process)
    assert "done; the model is" in output_of(job(tmp_path, tinymu, **variables))
    expected, result = losses(alone), losses(output)
    assert list(result) == list(expected) == list(range(1, 17))
    np.testing.assert_allclose(list(result.values()), list(expected.values()), rtol=2e-5)


# --- one machine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "cuda"),
    [
        ("580.65.06, 7.5", "cuda13"),
        ("570.86.10, 9.0", "cuda12"),
        ("590.10, 9.0\n590.10, 7.0", "cuda12"),
        (None, "cuda12"),
    ],
)
def test_the_machine_says_which_cuda(tmp_path, gpus, cuda):
    lines = "exit 9" if gpus is None else f"cat <<'END'\n{gpus}\nEND"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "launch" / "gpu_single.sh"), "--dry-run", "pretrain", "--steps=3"],
        env=outside() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        f"install into .venv with {cuda}\nXLA_CLIENT_MEM_FRACTION=0.9\ntinymu pretrain --steps=3 \n"
    )
