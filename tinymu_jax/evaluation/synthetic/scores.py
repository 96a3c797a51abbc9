"""Scores by format and by fact, each beside what can be had without listening."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinymu_jax.data.synthetic.facts import FACTS
from tinymu_jax.evaluation.synthetic.grading import BINARY, CHOICE, FORMATS, OPEN, Point

BLIND = ("most_frequent", "shortest_option", "no_audio", "other_clip")
"""The baselines: fields of `Score`."""

ABOUT_FACTS = (CHOICE, BINARY, OPEN)
"""The formats that the scores by fact are of."""


@dataclass(frozen=True)
class Score:
    """Shares of right answers; None where there are none to count."""

    number: int
    """Questions; of captions' facts, how many facts the captions tell."""
    model: float | None
    chance: float | None
    """What guessing gets."""
    most_frequent: float | None = None
    """The answer that is right most often."""
    shortest_option: float | None = None
    """Of multiple choice alone; by fact it is not given."""
    no_audio: float | None = None
    """The model, hearing nothing: letters and captions as it says them, other answers the most
    probable of the possible ones; of captions' facts, those that it told of the clip."""
    other_clip: float | None = None
    """The model, hearing the next clip; of captions' facts as above."""

    @property
    def best_blind(self) -> float | None:
        """The best of the baselines."""
        known = [share for share in (getattr(self, name) for name in BLIND) if share is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Scores:
    """What a model reaches on a folder of questions."""

    clips: int
    questions: int
    cut_clips: int
    """Clips of which only the beginning was heard."""
    by_format: Mapping[str, Score]
    by_fact: Mapping[str, Score]
    """Over multiple choice (generated), yes or no, and open questions; one about two facts counts
    for both."""

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain json."""
        parts = {
            part: {
                name: asdict(score) | {"best_blind": score.best_blind}
                for name, score in getattr(self, part).items()
            }
            for part in ("by_format", "by_fact")
        }
        counts = {name: getattr(self, name) for name in ("clips", "questions", "cut_clips")}
        return counts | parts


def count_scores(
    points: Mapping[str, Sequence[Point]], clips: int, questions: int, cut_clips: int = 0
) -> Scores:
    """Averages points.

    Args:
        points: of the model, of chance, and of baselines, by the fields of `Score`.
        clips: asked about.
        questions: asked.
        cut_clips: of which only the beginning was heard.
    """
    by_format = {}
    for format in FORMATS:
        groups = {
            name: [p.share for p in own if p.format == format] for name, own in points.items()
        }
        # Captions of which none tells a fact are no reason to leave that out.
        if any(groups.values()):
            by_format[format] = _score(groups)
    by_fact = {}
    for fact in FACTS:
        groups = {
            name: [p.share for p in own if fact in p.facts and p.format in ABOUT_FACTS]
            for name, own in points.items()
            # It answers some of these questions only, and does not compare with the others.
            if name != "shortest_option"
        }
        if any(groups.values()):
            by_fact[fact] = _score(groups)
    return Scores(clips, questions, cut_clips, by_format, by_fact)


def _score(groups: Mapping[str, Sequence[float]]) -> Score:
    means = {name: _mean(shares) for name, shares in groups.items()}
    return Score(number=len(groups["model"]), **{"model": None, "chance": None} | means)


def _mean(shares: Iterable[float]) -> float | None:
    shares = list(shares)
    return sum(shares) / len(shares) if shares else None


COLUMNS = {
    "number": "number",
    "model": "model",
    "chance": "chance",
    "most_frequent": "frequent",
    "shortest_option": "shortest",
    "no_audio": "no audio",
    "other_clip": "next clip",
}
"""Fields of `Score`, and what stands above them."""

WIDTH = 15
"""Of the names."""


def _rows(scores: Scores) -> Iterator[tuple[str, dict[str, Score]]]:
    """Yields each part of the table: its name, and its scores by their names."""
    by_format = {name.replace("_", " "): score for name, score in scores.by_format.items()}
    yield "by format", by_format
    yield "by fact", dict(scores.by_fact)


def _cells(score: Score) -> list[str]:
    """Returns a score's numbers, shares in percent."""
    shares = (getattr(score, name) for name in COLUMNS if name != "number")
    return [str(score.number), *("-" if s is None else f"{100 * s:.1f}" for s in shares)]


def _below(scores: Scores) -> list[str]:
    """Returns what stands below the table."""
    lines = [
        f"{scores.questions} questions, {scores.clips} clips; right answers in percent. Blind: the "
        "answer most often",
        "right, the shortest option, the model hearing nothing, or the next clip.",
    ]
    if scores.cut_clips:
        lines.append(f"Of {scores.cut_clips} clips only the beginning was heard.")
    return lines


def as_text(scores: Scores) -> str:
    """Returns the table as plain text: formats, then facts, with all baselines."""
    widths = [len(title) + 2 for title in COLUMNS.values()]
    lines = []
    for part, own in _rows(scores):
        titles = "".join(t.rjust(w) for t, w in zip(COLUMNS.values(), widths, strict=True))
        lines.append(part.ljust(WIDTH) + titles)
        for name, score in own.items():
            cells = "".join(c.rjust(w) for c, w in zip(_cells(score), widths, strict=True))
            lines.append(name.ljust(WIDTH) + cells)
    return "\n".join([*lines, "", *_below(scores)])
