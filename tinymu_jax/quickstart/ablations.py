"""The paper's ablations with nano, done one after the other; a table and a picture of them.

data/, data_<name>/     what is learnt from; without a format where it is left out
full/, lora/, ...       runs of each
test/                   clips that all are tested with
results/                what came of each (json), all answers, the table, the picture
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.question_formats import MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.generate import Progress
from tinymu_jax.errors import InputError
from tinymu_jax.quickstart import ablation_recipe, nano_recipe
from tinymu_jax.quickstart.config import AblationsConfig
from tinymu_jax.quickstart.evaluate import examine, make_test_clips
from tinymu_jax.quickstart.step_cache import Ledger
from tinymu_jax.quickstart.train_nano import make_data, train_stages, vocabulary_size
from tinymu_jax.utils.files import write_text
from tinymu_jax.utils.plotting import new_figure, save_figure

COLUMNS = {
    "mcq": "multiple choice",
    "binary": "yes or no",
    "qa": "open",
    "caption_timbre": "captions' timbre",
    "caption_facts": "captions' facts",
}
"""Formats of `Scores`, and what stands above them."""

FIELD = {MCQ: "choice", YES_NO: "binary", QA: "open"}
"""The number of questions in `SynthesisConfig` of each task that is left out."""

TABLE, PICTURE = "ablations.md", "ablations.png"


def ablate(
    config: AblationsConfig,
    names: tuple[str, ...] = (),
    say: Callable[[str], Any] = print,
    progress: Callable[[str], Progress] = lambda doing: lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Trains and tests nano in each way; what is done is not done again.

    Args:
        config: what.
        names: some of `tinymu_jax.quickstart.ablation_recipe.ABLATIONS`; default all.
        say: prints a line.
        progress: returns what shows how far something is, by what it is called.

    Returns:
        What came of each that has been done, by name.

    Raises:
        InputError: no such ablation; as `make_data`, `train_stages` and `examine`.
    """
    config.check()
    unknown = set(names) - set(ablation_recipe.ABLATIONS)
    if unknown:
        known = ", ".join(ablation_recipe.ABLATIONS)
        raise InputError(f"no ablation {', '.join(sorted(unknown))}: there are {known}")
    results = config.output / "results"
    ledger = Ledger(results, say)
    options = {name: value for name, value in vars(config).items() if name != "output"}
    for name in names or ablation_recipe.ABLATIONS:
        ledger.step(
            name,
            ablation_recipe.ABLATIONS[name].told,
            options,
            lambda name=name: _learn(name, config, results, say, progress),
        )
    # Also of those that were done before, and are not named.
    done = {name: ledger.done(name, options) for name in ablation_recipe.ABLATIONS}
    found = {name: came for name, came in done.items() if came is not None}
    write_text(results / TABLE, as_table(found))
    plot_ablations(found, results / PICTURE)
    return found


def _learn(
    name: str,
    config: AblationsConfig,
    results: Path,
    say: Callable[[str], Any],
    progress: Callable[[str], Progress],
) -> dict[str, Any]:
    """Trains one, and tests it; returns its scores and the steps of its stages."""
    without = ablation_recipe.ABLATIONS[name].without
    music = SynthesisConfig(
        clips=config.clips, texts=config.clips, seconds=nano_recipe.SECONDS, seed=config.seed
    )
    whole = data = config.output / "data"
    make_data(whole, music, progress("synthesising"))
    if without is not None:
        data = config.output / f"data_{name}"
        make_data(data, replace(music, **{FIELD[without]: 0}), progress("synthesising"))
    own, shared = (nano_recipe.places_of(place, config.output) for place in (data, whole))
    vocabulary = vocabulary_size(data)
    runs = ablation_recipe.stages(name, own, vocabulary, config.minutes, config.seed, shared)
    for _ in train_stages(runs, say):
        pass
    test = make_test_clips(config.output / "test", config.test_clips, progress("synthesising"))
    model = runs[nano_recipe.TUNE].output
    scores = examine(model, test, results / name, progress(f"asking {name}")).scores
    return {"scores": scores.to_dict(), "model": model}


def percents(by_format: Mapping[str, Any], of: str = "model") -> list[float | None]:
    """Returns each column's share of right answers in percent, of the model or of a baseline.

    None where nothing was said.
    """
    return [100 * by_format[key][of] if key in by_format else None for key in COLUMNS]


def as_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the shares of right answers in percent, as Markdown."""
    lines = [
        f"| | {' | '.join(COLUMNS.values())} | the paper, MuChoMusic |",
        "|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for name, own in found.items():
        ablation = ablation_recipe.ABLATIONS[name]
        by_format = own["scores"]["by_format"]
        cells = [f"{share:.1f}" if share is not None else "-" for share in percents(by_format)]
        cells.append("" if ablation.paper is None else f"{ablation.paper:.1f}")
        lines.append(f"| {ablation.told} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot_ablations(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes a picture of the shares of right answers, a group of bars for each ablation.

    Raises:
        InputError: the place cannot be written to.
    """
    figure, axes = new_figure(9, 1.5 + 0.62 * len(found))
    percents_of = [percents(own["scores"]["by_format"]) for own in found.values()]
    places, wide = np.arange(len(found)), 0.84 / len(COLUMNS)
    for number, title in enumerate(COLUMNS.values()):
        shares = [shares_of[number] or 0.0 for shares_of in percents_of]
        below = (number - (len(COLUMNS) - 1) / 2) * wide
        drawn = axes.barh(places + below, shares, wide, label=title)
        axes.bar_label(drawn, fmt="%.0f", padding=2, fontsize=7)
    axes.set_yticks(places, [ablation_recipe.ABLATIONS[name].told for name in found])
    axes.invert_yaxis()
    axes.set(xlim=(0, 107), xlabel="right answers, percent")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save_figure(figure, path)
