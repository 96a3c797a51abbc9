"""The summary that `tinymu quickstart` prints: scores, file names and commands to try next."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from tinymu_jax.quickstart.config import RESULTS, TEST_CLIPS, TourConfig
from tinymu_jax.utils.numbers import percent

FORMATS = {
    "qa": "open questions",
    "binary": "yes or no",
    "mcq": "multiple choice, by letter",
    "mcq_scored": "multiple choice, by likelihood",
    "caption_timbre": "captions with the right timbre",
    "caption_facts": "facts in captions",
}
"""Question formats in `Scores.by_format`, and their titles in the summary."""
Scores = Mapping[str, Any]


def format_summary(results: Mapping[str, Mapping[str, Any]], config: TourConfig) -> str:
    """Return a summary for the terminal; `results` has the result of each step by step name."""
    return "\n".join(_lines(results, config)).lstrip()


def _lines(results: Mapping[str, Mapping[str, Any]], config: TourConfig) -> Iterator[str]:
    titles = {"test": "shipped", "train": "from scratch"}
    scores = {title: results[name]["scores"] for name, title in titles.items() if name in results}
    if scores:
        by_format = {title: parts["by_format"] for title, parts in scores.items()}
        by_fact = {title: parts["by_fact"] for title, parts in scores.items()}
        yield from _table("correct answers, percent", by_format, FORMATS)
        yield ""
        yield from _table("by fact", by_fact, {name: name for name in next(iter(by_fact.values()))})
    if "finetune" in results:
        yield ""
        yield from _finetuning(results["finetune"])
    if "export" in results:
        result = results["export"]
        weights = "all weights are equal" if result["weights_equal"] else "WEIGHTS DIFFER"
        yield ""
        yield (
            f"PyTorch: {result['file']}: {weights} when read back, {result['equal_tokens']} of "
            f"{result['tokens']} answer tokens are equal"
        )
    yield ""
    yield f"all answers, scores and plots: {config.output / RESULTS}"
    yield "try next:"
    clip = shlex.quote(str(config.output / TEST_CLIPS / "clips" / "000000.wav"))
    model = f"{clip} --checkpoint {shlex.quote(config.checkpoint)}"
    yield f'  tinymu ask {model} --prompt "Describe the music in full."'
    yield f"  tinymu score {model} --prompt 'Major or minor?' --option major \\"
    yield "      --option minor"
    yield "  tinymu quickstart --output longer --only train --minutes 20"


def _row(title: str, *cells: str) -> str:
    return f"{title:<34}" + "".join(f"{cell:>14}" for cell in cells)


def _table(title: str, models: Mapping[str, Scores], rows: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table: percent correct of each model and of the best baseline.

    `models` has each model's scores by column title; `rows` has the row titles by score name.
    """
    yield _row(title, *models, "best baseline")
    first = next(iter(models.values()))
    for key, name in rows.items():
        if key in first:
            fractions = [scores.get(key, {}).get("model") for scores in models.values()]
            fractions.append(first[key].get("best_baseline"))
            yield _row(name, *(percent(fraction, 0, missing="-") for fraction in fractions))


def _finetuning(scores: Mapping[str, Scores]) -> Iterator[str]:
    """Yield the lines of a table of the step "finetune": percent correct before and after."""
    rows = {
        "named when asked for": lambda new, usual: new["named"],
        "named in captions": lambda new, usual: new["by_format"]["caption_timbre"]["model"],
        "all questions about it": lambda new, usual: new["by_fact"]["timbre"]["model"],
        "usual instruments": lambda new, usual: usual["by_fact"]["timbre"]["model"],
        "all other facts": lambda new, usual: _mean_without_timbre(usual["by_fact"]),
    }
    yield _row("a new instrument: accordion", "before", "after")
    pairs = [(scores[f"new_{when}"], scores[f"usual_{when}"]) for when in ("before", "after")]
    for name, fraction in rows.items():
        yield _row(name, *(percent(fraction(*pair), 0) for pair in pairs))


def _mean_without_timbre(by_fact: Mapping[str, Scores]) -> float:
    fractions = [score["model"] for fact, score in by_fact.items() if fact != "timbre"]
    return sum(fractions) / len(fractions)
