"""What `tinymu quickstart` shows at its end: scores, where files lie, what to try next."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from tinymu_jax.quickstart.config import TourConfig

FORMATS = {
    "qa": "open questions",
    "binary": "yes or no",
    "mcq": "multiple choice, by letter",
    "mcq_scored": "multiple choice, by score",
    "caption_timbre": "captions with the right timbre",
    "caption_facts": "facts told in captions",
}
"""Names of formats in scores, as they are shown."""


def _percent(score: Mapping[str, Any] | None, name: str = "model") -> str:
    share = None if score is None else score.get(name)
    return "-" if share is None else f"{100 * share:.0f}"


def _table(title: str, columns: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Returns the model's share in each row by column, and beside it the best blind baseline."""
    first = next(iter(columns.values()))
    lines = [f"{title:<34}" + "".join(f"{column:>14}" for column in [*columns, "best blind"])]
    for key, name in names.items():
        if key in first:
            shares = [_percent(own.get(key)) for own in columns.values()]
            blind = _percent(first[key], "best_baseline")
            lines.append(f"{name:<34}" + "".join(f"{share:>14}" for share in [*shares, blind]))
    return "\n".join(lines)


def screen(found: Mapping[str, Mapping[str, Any]], tour: TourConfig) -> str:
    """Returns the page for a terminal.

    Args:
        found: what came of each step, by its name.
        tour: what was shown.
    """
    return "\n".join(_parts(found, tour))


def _parts(found: Mapping[str, Mapping[str, Any]], tour: TourConfig) -> Iterator[str]:
    tested = {
        title: found[name]["scores"]
        for name, title in (("shipped", "shipped"), ("nothing", "from nothing"))
        if name in found
    }
    if tested:
        formats = {name: own["by_format"] for name, own in tested.items()}
        facts = {name: own["by_fact"] for name, own in tested.items()}
        yield _table("right answers, percent", formats, FORMATS)
        yield ""
        yield _table("by fact", facts, {name: name for name in next(iter(facts.values()))})
    if "timbre" in found:
        yield ""
        yield from _taught(found["timbre"])
    if "export" in found:
        own = found["export"]
        same = "every weight is the same" if own["weights_equal"] else "WEIGHTS DIFFER"
        yield (
            f"PyTorch: {own['file']}: {same} when it is read back, {own['equal_tokens']} of "
            f"{own['tokens']} answer tokens too"
        )
    yield ""
    yield f"all answers, scores and pictures: {tour.output / 'results'}"
    yield "try next:"
    clip = shlex.quote(str(tour.output / "test" / "clips" / "000000.wav"))
    named = f"{clip} --checkpoint {shlex.quote(tour.checkpoint)}"
    yield f'  tinymu ask {named} --prompt "Describe the music in full."'
    yield f"  tinymu score {named} --question 'Major or minor?' --option major \\"
    yield "      --option minor"
    yield "  tinymu quickstart --output longer --only nothing --minutes 20"


def _taught(own: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines about the new timbre, before and after."""
    yield f"{'a new instrument: accordion':<34}{'before':>14}{'after':>14}"
    rows = {
        "named when asked for": lambda own: own["new"]["named"],
        "named in captions": lambda own: own["new"]["by_format"]["caption_timbre"]["model"],
        "all questions about it": lambda own: own["new"]["by_fact"]["timbre"]["model"],
        "usual instruments": lambda own: own["usual"]["by_fact"]["timbre"]["model"],
        "all other facts": lambda own: _mean_of_others(own["usual"]["by_fact"]),
    }
    found = [{what: own[f"{what}_{when}"] for what in ("new", "usual")} for when in WHEN]
    for name, share in rows.items():
        yield f"{name:<34}" + "".join(f"{100 * share(one):>14.0f}" for one in found)


WHEN = ("before", "after")


def _mean_of_others(by_fact: Mapping[str, Any]) -> float:
    shares = [score["model"] for fact, score in by_fact.items() if fact != "timbre"]
    return sum(shares) / len(shares)
