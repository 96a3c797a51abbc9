"""Train and test nano, a small TinyMU, with the paper's ablations; write a table and a plot.

data/               training data of all question formats
data_<name>/        training data without the question format that an ablation removes
full/, lora/, ...   training runs of each ablation
test_clips/         clips on which every ablation is tested
results/            results (JSON) and answers of each ablation, the table, the plot
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.question_formats import MCQ, QA, YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.quickstart import ablation_recipe, nano_recipe
from tinymu_jax.quickstart.ablation_recipe import ABLATIONS
from tinymu_jax.quickstart.config import RESULTS, TEST_CLIPS, AblationsConfig
from tinymu_jax.quickstart.evaluate import evaluate_model, make_test_clips
from tinymu_jax.quickstart.step_cache import StepCache
from tinymu_jax.quickstart.train_nano import make_data, read_vocab_size, train_stages
from tinymu_jax.utils.files import write_text
from tinymu_jax.utils.numbers import percent
from tinymu_jax.utils.plotting import new_figure, save_figure

COLUMNS = {
    "mcq": "multiple choice",
    "binary": "yes or no",
    "qa": "open",
    "caption_timbre": "captions' timbre",
    "caption_facts": "captions' facts",
}
"""Question formats in `Scores.by_format`, and the titles of their columns in the table."""
COUNT_FIELD = {MCQ: "choice", YES_NO: "binary", QA: "open"}
"""Field of `SynthesisConfig` with the number of questions per clip, by question format."""
TABLE, PLOT = "ablations.md", "ablations.png"


def ablate(config: AblationsConfig, names: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Train and test nano with each ablation that is not finished; write a table and a plot.

    `names` are keys of `ABLATIONS`; default all. Returns, by name, the results of the ablations
    that this or an earlier call finished: "scores", "model" (path), "options" and "seconds".

    Raises:
        InputError: a setting is out of range, a name is unknown, or an ablation was finished with
            other settings.
    """
    config.check()
    unknown = set(names) - set(ABLATIONS)
    if unknown:
        known = ", ".join(ABLATIONS)
        raise InputError(f"no ablation {', '.join(sorted(unknown))}: there are {known}")
    folder = config.output / RESULTS
    cache = StepCache(folder)
    options = {name: value for name, value in vars(config).items() if name != "output"}
    for name in names or ABLATIONS:
        title = ABLATIONS[name].title
        cache.run(name, title, options, lambda name=name: _train_and_test(name, config, folder))
    # Includes the results of earlier calls.
    cached = {name: cache.get(name, options) for name in ABLATIONS}
    results = {name: result for name, result in cached.items() if result is not None}
    write_text(folder / TABLE, as_table(results))
    plot_ablations(results, folder / PLOT)
    return results


def _train_and_test(name: str, config: AblationsConfig, folder: Path) -> dict[str, Any]:
    """Train and test nano with an ablation; return the scores and the model's path."""
    music = SynthesisConfig(
        clips=config.clips, texts=config.clips, seconds=nano_recipe.SECONDS, seed=config.seed
    )
    full_data = data = config.output / "data"
    make_data(full_data, music)
    removed = ABLATIONS[name].without
    if removed is not None:
        data = config.output / f"data_{name}"
        make_data(data, replace(music, **{COUNT_FIELD[removed]: 0}))
    paths, full_paths = (nano_recipe.run_paths(x, config.output) for x in (data, full_data))
    vocab_size = read_vocab_size(data)
    runs = ablation_recipe.stages(name, paths, vocab_size, config.minutes, config.seed, full_paths)
    train_stages(runs)
    clips = make_test_clips(config.output / TEST_CLIPS, config.test_clips)
    model = runs[nano_recipe.TUNE].output
    scores = evaluate_model(model, clips, folder / name).scores
    return {"scores": scores.to_dict(), "model": model}


def fractions_of(by_format: Mapping[str, Any], kind: str = "model") -> list[float | None]:
    """Return the fraction of correct answers for each format in `COLUMNS`; None without answers.

    `by_format` is the entry "by_format" of `Scores.to_dict`. `kind` selects whose answers count: it
    is "model" or the name of a baseline.
    """
    return [by_format[key][kind] if key in by_format else None for key in COLUMNS]


def as_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results of `ablate` as a Markdown table: percent correct, a row per ablation."""
    lines = [
        f"| | {' | '.join(COLUMNS.values())} | the paper, MuChoMusic |",
        "|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for name, result in results.items():
        ablation = ABLATIONS[name]
        fractions = fractions_of(result["scores"]["by_format"])
        cells = [percent(fraction, missing="-") for fraction in fractions]
        cells.append("" if ablation.paper is None else f"{ablation.paper:.1f}")
        lines.append(f"| {ablation.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot_ablations(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Plot the results of `ablate` in percent correct; raise `InputError` if writing fails."""
    figure, axes = new_figure(9, 1.5 + 0.62 * len(results))
    rows = [fractions_of(result["scores"]["by_format"]) for result in results.values()]
    positions, height = np.arange(len(results)), 0.84 / len(COLUMNS)
    for number, title in enumerate(COLUMNS.values()):
        values = [100 * (row[number] or 0.0) for row in rows]
        offset = (number - (len(COLUMNS) - 1) / 2) * height
        bars = axes.barh(positions + offset, values, height, label=title)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
    axes.set_yticks(positions, [ABLATIONS[name].title for name in results])
    axes.invert_yaxis()
    axes.set(xlim=(0, 107), xlabel="correct answers, percent")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save_figure(figure, path)
