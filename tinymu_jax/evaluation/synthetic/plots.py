"""Pictures of an evaluation: scores by fact, and one question over what was heard."""

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
"""Characters of one line above a picture."""


def plot_facts(scores: Scores, path: str | Path, title: str = "") -> None:
    """Writes a picture of the accuracy by fact, each beside its best blind baseline.

    Args:
        scores: of `evaluate`.
        path: of the picture; its suffix says the format.
        title: above the picture.

    Raises:
        InputError: no fact was asked for; the place cannot be written
            to.
    """
    if not scores.by_fact:
        raise InputError("no scores by fact: evaluate on questions other than captions")
    # The best at the top, which is the last.
    facts = sorted(scores.by_fact.items(), key=lambda pair: pair[1].model or 0)
    places = np.arange(len(facts))
    figure, axes = new_figure(8, 1.2 + 0.42 * len(facts))
    bars = (
        ("model", 0.2, "tab:blue", [score.model for _, score in facts]),
        ("best blind baseline", -0.2, "lightgrey", [score.best_baseline for _, score in facts]),
    )
    for label, above, colour, shares in bars:
        percent = [100 * (share or 0) for share in shares]
        drawn = axes.barh(places + above, percent, 0.38, color=colour, label=label)
        axes.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8)
    axes.set_yticks(places, [f"{name} ({score.number})" for name, score in facts])
    axes.set(xlim=(0, 105), xlabel="right answers, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, parse_math=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, path)


def plot_question(clip: str | Path, row: AnsweredItem, path: str | Path) -> None:
    """Writes a picture of a clip's log-mel below a question about it and its answer.

    Args:
        clip: the recording.
        row: of `Results`.
        path: of the picture; its suffix says the format.

    Raises:
        InputError: the recording cannot be read; the place cannot be
            written to.
    """
    mark = "right" if row.right else f"wrong, expected: {row.expected}"
    lines = [*textwrap.wrap(row.prompt, TITLE_WIDTH)]
    lines += textwrap.wrap(f"\u2192 {row.answer or 'no answer'} ({mark})", TITLE_WIDTH)
    mel = log_mel(read_clip(clip, max_seconds=None).samples)
    plot_log_mel(np.asarray(mel), path, "\n".join(lines))
