"""Write a run's metrics to metrics.jsonl, TensorBoard and Weights & Biases."""

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
    """Log of a run's metrics; a resumed run replaces the entries of the steps that it repeats."""

    def __init__(
        self,
        folder: Path,
        start: int,
        tensorboard: bool = False,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the log files in a run's folder, removing entries of steps after `start`.

        If `wandb` names a Weights & Biases project, the metrics and the run's `config` also go
        there. Raises `InputError` if metrics.jsonl cannot be written.
        """
        self.path = folder / METRICS_FILE
        lines = _lines_up_to(self.path, start) if exists(self.path) else []
        write_text(self.path, "".join(lines))
        self.writers: list[Any] = []
        if tensorboard:
            from tensorboardX import SummaryWriter

            self.writers.append(SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1))
        self.wandb = None if wandb is None else _open_wandb(wandb, folder, config)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a step's metrics to all logs; raise `InputError` if metrics.jsonl is not writable."""
        try:
            # Closed after each line, because a mounted bucket stores a file only when it is closed.
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
        """Close the TensorBoard files and end the Weights & Biases run."""
        for writer in self.writers:
            with suppress(OSError):  # reported by `write`
                writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def _lines_up_to(path: Path, start: int) -> list[str]:
    """Return the complete lines of a metrics.jsonl for steps up to `start`."""
    lines = []
    for line in complete_lines(path):
        with suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= start:
                lines.append(line.decode())
    return lines


def summarize_metrics(metrics: Mapping[str, float]) -> str:
    """Format the most important of the given metrics as text for the progress bar."""
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
    """Raise an `InputError` if a Weights & Biases project is given but wandb is not installed."""
    if project is not None and find_spec("wandb") is None:
        raise InputError(
            "loop.wandb is set, but wandb is not installed: `pip install wandb`, or leave it out"
        )


def _open_wandb(project: str, folder: Path, config: Mapping[str, Any] | None) -> Any:
    import wandb

    # With the same id, a resumed run continues its curves.
    name = folder.absolute().name
    return wandb.init(
        project=project, id=name, name=name, dir=folder, config=config, resume="allow"
    )
