"""Plots for an evaluation on synthetic music: the accuracy by fact, and one question's clip."""

import textwrap
from pathlib import Path

import numpy as np

from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.audio.plot import plot_log_mel
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.synthetic.evaluate import AnsweredItem
from tinymu_jax.evaluation.synthetic.scores import Scores
from tinymu_jax.utils.plotting import new_figure, save_figure

TITLE_WIDTH = 80
"""Maximum number of characters per line of a title."""


def plot_facts(scores: Scores, path: str | Path, title: str = "") -> None:
    """Plot, for each fact (musical attribute), the accuracy of the model and of the best baseline.

    The suffix of `path` sets the image format.

    Raises:
        InputError: there are no scores by fact, or the file cannot be written.
    """
    if not scores.by_fact:
        raise InputError("no scores by fact: evaluate on questions other than captions")
    # In ascending order, because the last row is drawn at the top.
    facts = sorted(scores.by_fact.items(), key=lambda pair: pair[1].model or 0)
    positions = np.arange(len(facts))
    figure, axes = new_figure(8, 1.2 + 0.42 * len(facts))
    bars = (
        ("model", 0.2, "tab:blue", [score.model for _, score in facts]),
        ("best baseline", -0.2, "lightgrey", [score.best_baseline for _, score in facts]),
    )
    for label, offset, colour, fractions in bars:
        values = [100 * (fraction or 0) for fraction in fractions]
        drawn = axes.barh(positions + offset, values, 0.38, color=colour, label=label)
        axes.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8)
    axes.set_yticks(positions, [f"{name} ({score.number})" for name, score in facts])
    axes.set(xlim=(0, 105), xlabel="correct answers, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, parse_math=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, path)


def plot_question(clip: str | Path, row: AnsweredItem, path: str | Path) -> None:
    """Plot a clip's log-mel spectrogram, with a question and the model's answer as the title.

    The suffix of `path` sets the image format.

    Raises:
        InputError: the clip cannot be read, or the file cannot be written.
    """
    verdict = "correct" if row.right else f"wrong, expected: {row.expected}"
    lines = textwrap.wrap(row.prompt, TITLE_WIDTH)
    lines += textwrap.wrap(f"\u2192 {row.answer or 'no answer'} ({verdict})", TITLE_WIDTH)
    mel = log_mel(read_clip(clip, max_seconds=None).samples)
    plot_log_mel(np.asarray(mel), path, "\n".join(lines))
