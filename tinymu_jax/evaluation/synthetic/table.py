"""Scores as a table."""

from collections.abc import Iterator

from tinymu_jax.evaluation.synthetic.scores import Score, Scores

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
