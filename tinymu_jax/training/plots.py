"""Plots the training losses of runs."""

import json
from collections.abc import Mapping
from pathlib import Path

from tinymu_jax.training.metrics import METRICS_FILE
from tinymu_jax.utils.files import read_text
from tinymu_jax.utils.plotting import new_figure, save_figure


def read_losses(run: str | Path) -> tuple[list[int], list[float]]:
    """Reads a run's metrics.jsonl and returns the steps with a logged loss, and the losses.

    Raises:
        InputError: the run's folder has no metrics.jsonl.
    """
    rows = [json.loads(line) for line in read_text(Path(run) / METRICS_FILE).splitlines()]
    rows = [row for row in rows if "loss" in row]
    return [row["step"] for row in rows], [row["loss"] for row in rows]


def plot_losses(runs: Mapping[str, str | Path], path: str | Path, title: str = "") -> None:
    """Plots the losses of consecutive runs, one after the other on a common axis of steps.

    Args:
        runs: the folders of the runs, by the names that the legend shows.
        path: the image file to write, in the format of its suffix.
        title: the title of the plot.

    Raises:
        InputError: a run has no metrics, or the image cannot be written.
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
