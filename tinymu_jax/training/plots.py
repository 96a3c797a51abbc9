"""Plot the training losses of runs."""

import json
from collections.abc import Mapping
from pathlib import Path

from tinymu_jax.training.metrics import METRICS_FILE
from tinymu_jax.utils.files import read_text
from tinymu_jax.utils.plotting import new_figure, save_figure


def read_losses(run: str | Path) -> tuple[list[int], list[float]]:
    """Read the logged steps and losses in a run's metrics.jsonl, or raise `InputError`."""
    rows = [json.loads(line) for line in read_text(Path(run) / METRICS_FILE).splitlines()]
    rows = [row for row in rows if "loss" in row]
    return [row["step"] for row in rows], [row["loss"] for row in rows]


def plot_losses(runs: Mapping[str, str | Path], path: str | Path, title: str = "") -> None:
    """Plot the losses of consecutive runs, one after the other on a common axis of steps.

    `runs` maps each name in the legend to a run's folder. The suffix of `path` sets the image
    format. Raises `InputError` if a run has no metrics, or if the image cannot be written.
    """
    figure, axes = new_figure(8, 3.5)
    before = 0
    for name, run in runs.items():
        steps, losses = read_losses(run)
        axes.plot([before + step for step in steps], losses, label=name)
        before += max(steps, default=0)
        axes.axvline(before, color="lightgrey", linewidth=0.8)
    axes.set(yscale="log", xlabel="steps", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, parse_math=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    save_figure(figure, path)
