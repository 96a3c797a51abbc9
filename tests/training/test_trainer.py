"""The training loop on a fake task, its log and its stops; configs and commands."""

import dataclasses
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, lines, refusal

from tinymu_jax.cli.train import RUNS, _without, read_run
from tinymu_jax.training.checkpointing import Checkpoints, complete_steps
from tinymu_jax.training.config import LoopConfig, OptimConfig, PretrainConfig, RunConfig
from tinymu_jax.training.config_files import load_config
from tinymu_jax.training.distributed import join_processes
from tinymu_jax.training.metrics import MetricsLog
from tinymu_jax.training.optim import make_optimizer
from tinymu_jax.training.preemption import StopRequest
from tinymu_jax.training.tasks.base import StepCost
from tinymu_jax.training.train_step import StepMetrics, init_state
from tinymu_jax.training.trainer import Trainer
from tinymu_jax.utils.progress import show_progress

METRICS = StepMetrics(np.float32(1), np.float32(1), np.float32(1), {"spread": np.float32(2)})


def run_loop(folder, validate, stopping, steps=4):
    """Runs a loop over counts instead of weights; returns the saved steps and the log."""
    optimiser = make_optimizer(OptimConfig(), 10)
    state = init_state({"a": {"kernel": np.ones((2, 3), np.float32)}}, optimiser)
    task = SimpleNamespace(
        steps=steps,
        run_step=lambda state, batch: (state._replace(step=state.step + 1), METRICS),
        load_batches=lambda start: range(start, steps),
        cost=lambda step: StepCost(1, 1, 1.0),
        clip_names=lambda step: ["a.wav"],
        validate=validate,
        peak_flops=None,
        unit="questions",
        diagnose=lambda metrics: None,
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    log = MetricsLog(folder, 0)
    loop = LoopConfig(log_every=1, validate_every=2, save_every=100)
    with show_progress("step", steps, first_line=True) as progress:
        end = Trainer(task, loop, folder, checkpoints, log, progress, stopping).run(state, 0)
    log.close()
    checkpoints.close()
    return end, complete_steps(folder / "checkpoints")


def test_a_stop_during_validation_saves_at_once(tmp_path):
    stopping = StopRequest()

    def validate(state, stopped):
        stopping.receive(signal.SIGTERM)
        return {} if stopped() else {"validation_loss": 1.0}

    end, saved = run_loop(tmp_path, validate, stopping)
    assert (end.step, end.stopped, saved) == (2, True, [2])
    assert not lines(tmp_path, "validation_loss")


def test_a_nan_validation_is_not_the_best(tmp_path, capsys):
    losses = iter([float("nan"), 1.0])
    run_loop(tmp_path, lambda *_: {"validation_loss": next(losses)}, StopRequest())
    assert lines(tmp_path, "validation_loss") == {4: 1.0}
    assert Checkpoints(tmp_path / "checkpoints").best() == 4
    said = capsys.readouterr().err
    assert "step 2: validation_loss is not finite; ignored" in said
    assert "step 1/4  loss 1.0000\n" in said


def test_an_unwritable_log_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog.__new__(MetricsLog)
    log.path, log.writers, log.wandb = tmp_path / "metrics.jsonl", [], None
    message = refusal(log.write, 1, {"loss": 1.0})
    assert message.startswith(f"{log.path}: cannot be written (No space left")
    log.close()
    said = refusal(MetricsLog, tmp_path / "gone", 0)
    assert said.startswith(f"{tmp_path / 'gone' / 'metrics.jsonl'}: cannot be written")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("host:1", 2, None), "go together"),
        ((None, 2, 0), "go together"),
        (("host:1", 2, 2), "--process-id 2 of 2: give 0 to 1"),
        (("host", 2, 0), "give it as host:port"),
    ],
)
def test_bad_cluster_options_are_errors(arguments, named):
    assert named in refusal(join_processes, *arguments)


def test_a_config_may_import_one_beside_it(tmp_path):
    (tmp_path / "base.py").write_text(
        "from tinymu_jax.training.config import TrainConfig\nconfig = TrainConfig(steps=3)\n"
    )
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom base import config\n"
        "config = replace(config, output='runs/mine')\n"
    )
    read = read_run(
        "train", ["--config", str(tmp_path / "mine.py"), "--optim.learning-rate", "2e-4"]
    )
    assert (read.run_config.steps, read.run_config.output) == (3, "runs/mine")
    assert read.run_config.optim.learning_rate == 2e-4
    (tmp_path / "none.py").write_text("x = 1\n")
    assert "has no `config`" in refusal(load_config, tmp_path / "none.py")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    assert "ZeroDivisionError" in refusal(load_config, tmp_path / "wrong.py")
    (tmp_path / "lines.py").write_text("raise ValueError('two\\nlines')")
    assert "(ValueError: two lines)" in refusal(load_config, tmp_path / "lines.py")
    (tmp_path / "ends.py").write_text("exit(3)")
    assert "it calls exit(3)" in refusal(load_config, tmp_path / "ends.py")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_passes_its_checks(path):
    config = load_config(path.stem, RunConfig)
    command = next(name for name, (_, kind) in RUNS.items() if type(config) is kind)
    named = {"labels": "tags.csv"} if command == "train-tagger" else {}
    data = dataclasses.replace(config.data, train="data", **named)
    dataclasses.replace(config, data=data).check()
    assert load_config(path, RunConfig) == config
    assert f"tinymu {command} --config {path.stem}" in path.read_text()


def test_an_unknown_config_name_lists_the_shipped_ones():
    message = refusal(load_config, "sft_lore")
    assert message.startswith("sft_lore: no such file, and no config of that name")
    assert "sft_lora, sft_lora_t4, sft_tinymu, " in message
    assert "  " not in message
    assert "configs/none.py: no such file" in refusal(load_config, "configs/none.py")
    assert load_config("configs/sft_lora") == load_config("sft_lora.py") == load_config("sft_lora")
    message = refusal(load_config, "sft_lora", PretrainConfig)
    assert "has no `config` that is a PretrainConfig, but TrainConfig" in message
    assert read_run("train", ["--config", "sft_lora"]).run_config.lora.rank == 32


def test_the_resume_command_omits_stop_after():
    inputs = ["train", "--resume", "--loop.stop-after", "5", "--steps", "9", "--loop.stop-after=5"]
    assert _without(inputs, "--resume", "--loop.stop-after") == ["train", "--steps", "9"]
