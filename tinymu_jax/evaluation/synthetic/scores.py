"""Average scores by question format and by fact (musical attribute), for a model and baselines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinymu_jax.data.synthetic.facts import FACTS
from tinymu_jax.evaluation.synthetic.grading import BINARY, CHOICE, FORMATS, OPEN, FormatScore

BASELINES = ("most_frequent", "shortest_option", "no_audio", "other_clip")
"""Fields of `Score` that are baselines."""
BY_FACT_FORMATS = (CHOICE, BINARY, OPEN)
"""Question formats that count in the scores by fact."""


@dataclass(frozen=True)
class Score:
    """Fractions of right answers of a model and its baselines; None without answers."""

    number: int
    """Number of questions. For the facts in captions: number of facts that the model's captions
    state; baselines are scored on the same facts."""
    model: float | None
    chance: float | None
    """Expected fraction of right answers by random guessing."""
    most_frequent: float | None = None
    """Fraction right if the most frequent right answer is always given."""
    shortest_option: float | None = None
    """Fraction right if the shortest option is chosen; only for multiple choice, not by fact."""
    no_audio: float | None = None
    """Fraction right without audio. Letters and captions are generated; other answers, and the
    timbre of captions, are the most probable of all possible ones."""
    other_clip: float | None = None
    """Fraction right with the next clip's audio."""

    @property
    def best_baseline(self) -> float | None:
        """The highest fraction of the baselines in `BASELINES`; None if there is none."""
        values = (getattr(self, name) for name in BASELINES)
        return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class Scores:
    """Scores of a model and its baselines on a folder of synthetic music."""

    clips: int
    questions: int
    cut_clips: int
    """Number of clips of which only the beginning was encoded."""
    by_format: Mapping[str, Score]
    by_fact: Mapping[str, Score]
    """Scores by fact (musical attribute), over generated multiple choice, yes-or-no and open
    questions. A question about two facts counts for both."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON, the content of scores.json."""
        parts = {
            part: {
                name: asdict(score) | {"best_baseline": score.best_baseline}
                for name, score in getattr(self, part).items()
            }
            for part in ("by_format", "by_fact")
        }
        counts = {name: getattr(self, name) for name in ("clips", "questions", "cut_clips")}
        return counts | parts


def average_scores(
    scores: Mapping[str, Sequence[FormatScore]], clips: int, questions: int, cut_clips: int = 0
) -> Scores:
    """Average the scores of answers by format and by fact (musical attribute).

    `scores` has the scores of the model, of chance and of each baseline, by field name in `Score`.
    `clips`, `questions` and `cut_clips` are copied to the fields of the result.
    """
    by_format, by_fact = {}, {}
    for format in FORMATS:
        groups = {
            name: [s.value for s in values if s.format == format] for name, values in scores.items()
        }
        # The model's captions may state no facts; a format is kept if any baseline has a score.
        if any(groups.values()):
            by_format[format] = _average(groups)
    for fact in FACTS:
        groups = {
            name: [s.value for s in values if fact in s.facts and s.format in BY_FACT_FORMATS]
            for name, values in scores.items()
            # This baseline answers only multiple choice, so it cannot be compared with the others.
            if name != "shortest_option"
        }
        if any(groups.values()):
            by_fact[fact] = _average(groups)
    return Scores(clips, questions, cut_clips, by_format, by_fact)


def _average(groups: Mapping[str, Sequence[float]]) -> Score:
    means = {name: _mean(values) for name, values in groups.items()}
    return Score(number=len(groups["model"]), **{"model": None, "chance": None} | means)


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


COLUMNS = {
    "number": "number",
    "model": "model",
    "chance": "chance",
    "most_frequent": "frequent",
    "shortest_option": "shortest",
    "no_audio": "no audio",
    "other_clip": "next clip",
}
"""Fields of `Score`, and the titles of their columns in the text tables."""
NAME_WIDTH = 15


def as_text(scores: Scores) -> str:
    """Return the scores of the model and all baselines as text tables, by format and by fact."""
    by_format = {name.replace("_", " "): score for name, score in scores.by_format.items()}
    lines = []
    for title, rows in (("by format", by_format), ("by fact", scores.by_fact)):
        lines.append(_line(title, COLUMNS.values()))
        for name, score in rows.items():
            values = [getattr(score, column) for column in COLUMNS if column != "number"]
            cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
            lines.append(_line(name, [str(score.number), *cells]))
    lines += [
        "",
        f"{scores.questions} questions, {scores.clips} clips; right answers in percent. Baselines: "
        "the most",
        "frequent right answer, the shortest option, the model without audio, the model",
        "with the next clip's audio.",
    ]
    if scores.cut_clips:
        lines.append(f"Of {scores.cut_clips} clips only the beginning was encoded.")
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str]) -> str:
    widths = (len(title) + 2 for title in COLUMNS.values())
    return name.ljust(NAME_WIDTH) + "".join(map(str.rjust, cells, widths))
