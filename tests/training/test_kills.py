"""Runs in processes of their own: killed, stopped, distributed, on a full disk."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, free_port, write_lists
from tokenizer_fixture import tokenizer_text

from tinymu_jax.checkpoints.checkpoint import read_checkpoint
from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.prepare import prepare
from tinymu_jax.training.checkpointing import complete_steps
from tinymu_jax.utils.tree import flatten

STEPS = 40
CONFIG = """
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import *

config = TrainConfig(
    init=InitConfig({model!r}, tokenizer={tokenizer!r}),
    data=DataConfig(
        {data!r},
        packing=PackingConfig(row_length=160, rows=1, max_clips=3, max_labels=80, buffer_size=6),
        epochs=150,
        threads=2,
    ),
    step=StepConfig(remat="none"),
    optim=OptimConfig(learning_rate=1e-3),
    loop=LoopConfig(log_every=1, save_every=3, tensorboard=False),
    steps={steps},
)
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, golden_dir):
    """A run of the golden model on six clips."""
    folder = tmp_path_factory.mktemp("kills")
    path = write_lists(folder, [3.0, 2.2, 0.7, 4.0, 1.5, 2.0])
    text, options = tokenizer_text(), PrepareConfig(FeatureConfig("log_mel"), workers=1)
    prepare([path], [folder], folder / "data", text, options)
    (folder / "tokenizer.json").write_text(text)
    file = folder / "run.py"
    file.write_text(
        CONFIG.format(
            model=str(golden_dir / "tinymu_tiny.pt"),
            tokenizer=str(folder / "tokenizer.json"),
            data=str(folder / "data"),
            steps=STEPS,
        )
    )
    return file


def begin(config_file, output, *options, devices=1, limit=None, command="train"):
    """Begins or goes on with a run in a process of its own, whose files stay below some kB."""
    command = [sys.executable, "-m", "tinymu_jax", command]
    if limit:
        command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command]
    options = [f"--config={config_file}", f"--output={output}", "--resume", *options]
    return subprocess.Popen(
        [*command, *map(str, options)],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "TINYMU_CACHE": str(config_file.parent / "cache"),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(output):
    """Returns the loss of every step that was logged whole."""
    path, result = Path(output) / "metrics.jsonl", {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                fields = json.loads(line)
            except json.JSONDecodeError:
                continue
            result[fields["step"]] = fields["loss"]
    return result


def wait_for(process, output, step):
    """Waits until a step is logged."""
    end = time.monotonic() + 240
    while max(losses(output), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "no progress"
        time.sleep(0.005)


def ended(process, code=0):
    """Waits for the end of a run and returns what it said."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == code, said
    return said


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    """Losses of a run that nothing befell, on one device."""
    output = tmp_path_factory.mktemp("whole") / "run"
    ended(begin(config_file, output))
    result = losses(output)
    assert list(result) == list(range(1, STEPS + 1))
    return result


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed_runs_are_bit_identical(kills, config_file, uninterrupted, tmp_path):
    output = tmp_path / "run"
    seen = {}
    for step in sorted(random.Random(0).sample(range(1, STEPS - 1), kills)):
        process = begin(config_file, output)
        wait_for(process, output, step)
        process.send_signal(signal.SIGKILL)
        ended(process, -signal.SIGKILL)
        seen |= losses(output)
        assert all(uninterrupted[number] == loss for number, loss in seen.items())
    ended(begin(config_file, output))
    assert losses(output) == uninterrupted


def test_sigterm_saves_and_prints_the_resume_command(config_file, uninterrupted, tmp_path):
    output = tmp_path / "run"
    process = begin(config_file, output)
    wait_for(process, output, 4)
    process.send_signal(signal.SIGTERM)
    said = ended(process)
    (step,) = map(int, re.findall(r"stopped after step (\d+), saved", said))
    assert f"resume with: tinymu train --config={config_file} --output={output} --resume" in said
    assert complete_steps(output / "checkpoints")[-1] == step
    assert losses(output) == {number: uninterrupted[number] for number in range(1, step + 1)}


def test_a_full_disk_keeps_the_last_checkpoint(config_file, uninterrupted, tmp_path):
    output = tmp_path / "run"
    ended(begin(config_file, output, "--loop.stop-after=4"))
    said = ended(begin(config_file, output, limit=100), 2)
    # The writers' threads print tracebacks at the same time: the sentence may begin behind theirs.
    (line,) = re.findall(r"error: .*a checkpoint cannot be saved.*", said)
    assert "the last complete one is of step 4: make room" in line
    ended(begin(config_file, output))
    assert losses(output) == uninterrupted


PRETRAINING = """
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.config import *
from tinymu_jax.training.config import LoopConfig
from tinymu_jax.training.config import *

config = PretrainConfig(
    model=SelfSupervisedConfig(
        encoder=MatpacConfig(width=32, depth=1, num_heads=2, num_frames=48),
        predictor=PredictorConfig(width=16, depth=1, num_heads=2, hypotheses=3),
        class_head=ClassHeadConfig(16, 8, 12),
        encoder_ema_decay=0.9,
        head_ema_decay=0.9,
    ),
    data=CropsConfig({data!r}, clips=5, threads=2),
    loop=LoopConfig(log_every=1, save_every=3, tensorboard=False),
    steps={steps},
)
"""


@pytest.mark.slow
def test_pretraining_resumes_after_kills_including_the_teacher(config_file, tmp_path):
    file = tmp_path / "pretrain.py"
    # What the other runs learn from has the recordings too; one is too short for a crop.
    file.write_text(PRETRAINING.format(data=str(config_file.parent), steps=STEPS))
    ended(begin(file, tmp_path / "whole", command="pretrain"))
    expected, output = losses(tmp_path / "whole"), tmp_path / "run"
    assert len(set(expected.values())) == STEPS
    for step in sorted(random.Random(1).sample(range(1, STEPS - 1), 20)):
        process = begin(file, output, command="pretrain")
        wait_for(process, output, step)
        process.send_signal(signal.SIGKILL)
        ended(process, -signal.SIGKILL)
    ended(begin(file, output, command="pretrain"))
    assert losses(output) == expected
    actual, reference = (
        dict(flatten(read_checkpoint(folder / "model").params))
        for folder in (output, tmp_path / "whole")
    )
    assert any(path.startswith("teacher/") for path in actual)
    for path, leaf in reference.items():
        np.testing.assert_array_equal(actual[path], leaf, err_msg=path)


# --- several processes -------------------------------------------------------------------------


def begin_two(config_file, output, *options):
    """Begins or goes on with a run on two processes of four devices."""
    options += (f"--coordinator=localhost:{free_port()}", "--num-processes=2")
    return [
        begin(config_file, output, *options, f"--process-id={number}", devices=4)
        for number in (0, 1)
    ]


def stop_one(processes, output, step, number):
    """Asks one of two processes to stop; returns the step that both stopped after."""
    wait_for(processes[0], output, step)
    processes[number].send_signal(signal.SIGTERM)
    said = [ended(process) for process in processes]
    (stopped,) = map(int, re.findall(r"stopped after step (\d+), saved", said[0]))
    assert complete_steps(output / "checkpoints")[-1] == stopped
    return stopped


def test_two_processes_stop_together_and_one_resumes(config_file, tmp_path):
    shorter = ("--step.blocks=8", "--steps=14")
    alone = tmp_path / "alone"
    ended(begin(config_file, alone, *shorter, devices=8))
    output = tmp_path / "run"
    # The signal goes to the process that writes no log.
    stopped = stop_one(begin_two(config_file, output, *shorter), output, 3, number=1)
    assert stopped < 14
    ended(begin(config_file, output, *shorter, devices=8))
    expected, result = losses(alone), losses(output)
    assert list(result) == list(expected) == list(range(1, 15))
    np.testing.assert_allclose(list(result.values()), list(expected.values()), rtol=1e-6)
