"""Metrics of a run: metrics.jsonl, TensorBoard, Weights & Biases."""

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, write_text
from tinymu_jax.utils.jsonl import complete_lines

METRICS_FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """Writes metrics; a run that resumes before its last log replaces the later lines."""

    def __init__(
        self,
        folder: Path,
        start: int,
        tensorboard: bool = False,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the files of a run.

        Args:
            folder: of the run.
            start: steps done; lines of later steps, which run again, are removed.
            tensorboard: whether to write for TensorBoard.
            wandb: project of Weights & Biases, or None.
            config: of the run, for Weights & Biases.

        Raises:
            InputError: the files cannot be written.
        """
        self.path = folder / METRICS_FILE
        if exists(self.path):
            write_text(self.path, "".join(_lines_up_to(self.path, start)))
        self.path.open("a", encoding="utf-8").close()
        self.writers: list[Any] = []
        if tensorboard:
            from tensorboardX import SummaryWriter

            self.writers.append(SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1))
        self.wandb = None if wandb is None else _open_wandb(wandb, folder, config)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of a step.

        Raises:
            InputError: the disk is full, or the folder is gone.
        """
        try:
            # Closed each time: a mounted bucket keeps only what was closed.
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step} | dict(metrics)) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, and continue "
                "with --resume"
            ) from error
        for writer in self.writers:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(metrics), step=step)

    def close(self) -> None:
        """Closes all writers."""
        for writer in self.writers:
            with suppress(OSError):  # reported by `write`
                writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def _lines_up_to(path: Path, start: int) -> list[str]:
    """Returns the complete lines of steps up to `start`."""
    lines = []
    for line in complete_lines(path):
        with suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= start:
                lines.append(line.decode())
    return lines


def summarize_metrics(metrics: Mapping[str, float]) -> str:
    """Returns the metrics to show beside the progress bar, those that are there."""
    shown = (
        ("loss", "loss {:.4f}"),
        ("validation_loss", "validation {:.4f}"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("questions_per_second", "{:,.1f} questions/s"),
        ("crops_per_second", "{:,.1f} crops/s"),
        ("clips_per_second", "{:,.1f} clips/s"),
        ("mfu", "MFU {:.1%}"),
    )
    return "  ".join(text.format(metrics[name]) for name, text in shown if name in metrics)


def need_wandb(project: str | None) -> None:
    """Checks that wandb is installed if it is configured.

    Raises:
        InputError: it is not.
    """
    if project is not None and find_spec("wandb") is None:
        raise InputError(
            "loop.wandb is set, but wandb is not installed: `pip install wandb`, or leave it out"
        )


def _open_wandb(project: str, folder: Path, config: Mapping[str, Any] | None) -> Any:
    import wandb

    # The same id continues the same curve.
    name = folder.absolute().name
    return wandb.init(
        project=project, id=name, name=name, dir=folder, config=config, resume="allow"
    )
