"""Pictures of training runs."""

import json
from collections.abc import Mapping
from pathlib import Path

from tinymu_jax.training.metrics import METRICS_FILE
from tinymu_jax.utils.files import read_text
from tinymu_jax.utils.plotting import new_figure, save_figure


def read_losses(run: str | Path) -> tuple[list[int], list[float]]:
    """Returns the logged steps of a run's folder, and their losses.

    Raises:
        InputError: it has no metrics.
    """
    rows = _read_rows(run)
    return [row["step"] for row in rows], [row["loss"] for row in rows]


def _read_rows(run: str | Path) -> list[dict[str, float]]:
    """Returns the logged steps of a run, validations left out."""
    rows = [json.loads(line) for line in read_text(Path(run) / METRICS_FILE).splitlines()]
    return [row for row in rows if "loss" in row]


def plot_losses(runs: Mapping[str, str | Path], path: str | Path, title: str = "") -> None:
    """Writes a picture of the losses of runs that follow each other.

    Args:
        runs: folders by the names of the runs.
        path: of the picture; its suffix says the format.
        title: above the picture.

    Raises:
        InputError: a run has no metrics; the place cannot be written
            to.
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


def plot_pretraining(run: str | Path, path: str | Path, title: str = "") -> None:
    """Writes a picture of a run of pre-training: losses, classes in use, wins of the hypotheses.

    Args:
        run: its folder.
        path: of the picture; its suffix says the format.
        title: above the picture.

    Raises:
        InputError: as `plot_losses`.
    """
    rows = _read_rows(run)
    figure, first = new_figure(10, 3.2)
    first.remove()
    wins = [name for name in rows[0] if name.startswith("wins_")]
    panels = {
        "loss": {"prediction_loss": "prediction", "class_loss": "classes"},
        "classes": {"classes_used": "in use in a step", "class_perplexity": "perplexity"},
        "share of patches won": {name: name.replace("wins_", "hypothesis ") for name in wins},
    }
    panels = {label: lines for label, lines in panels.items() if lines}
    for place, (label, lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, words in lines.items():
            axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=words)
        axes.set(xlabel="steps", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)
