"""What a run writes of itself: a line of json for every logged step, TensorBoard, wandb."""

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, read_text, write_text

METRICS_FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """Writes every metric once, also where a run goes on behind an earlier end."""

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
            start: steps done; lines of later ones, which are done again, are taken out.
            tensorboard: whether to write for it.
            wandb: the project there, or None.
            config: of the run, for wandb.

        Raises:
            InputError: the files cannot be written.
        """
        self.path = folder / METRICS_FILE
        if exists(self.path):
            write_text(self.path, "".join(kept_lines(read_text(self.path), start)))
        self.path.open("a", encoding="utf-8").close()
        self.writers: list[Any] = []
        if tensorboard:
            from tensorboardX import SummaryWriter

            self.writers.append(SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1))
        self.wandb = None if wandb is None else _open_wandb(wandb, folder, config)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics after a number of steps.

        Raises:
            InputError: the disk is full, or the place is gone.
        """
        try:
            # A mounted bucket keeps what was closed, and a kill may come at any line.
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step} | dict(metrics)) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, and go on with "
                "--resume"
            ) from error
        for writer in self.writers:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(metrics), step=step)

    def close(self) -> None:
        """Closes what is open; what then cannot be written has been told of before."""
        for writer in self.writers:
            with suppress(OSError):
                writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def kept_lines(text: str, start: int) -> list[str]:
    """Returns the lines of steps up to `start`; one that a kill cut short is no line."""
    kept = []
    for line in text.splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= start and line.endswith("\n"):
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return kept


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
    """Makes sure that wandb is there if it is asked for.

    Raises:
        InputError: it is not installed.
    """
    if project is not None and find_spec("wandb") is None:
        raise InputError(
            "loop.wandb is set, but the package is not there: `pip install wandb`, or leave it out"
        )


def _open_wandb(project: str, folder: Path, config: Mapping[str, Any] | None) -> Any:
    import wandb

    # The same name goes on with the same curve.
    name = folder.absolute().name
    named = {"project": project, "id": name, "name": name}
    return wandb.init(**named, dir=folder, config=config, resume="allow")
