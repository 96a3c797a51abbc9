"""Marks of answers to multiple choice: every share that is reported is the mean of some of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.evaluation.answer_parsing import LIKELIHOOD, OFFICIAL, RULES, STRICT, Reading
from tinymu_jax.evaluation.bootstrap import RESAMPLES, measure_shares
from tinymu_jax.evaluation.multiple_choice.questions import (
    DATASET,
    GENRE,
    KINDS,
    KNOWLEDGE,
    REASONING,
    ChoiceQuestion,
)
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Radar, Table
from tinymu_jax.evaluation.skipped import cut_notices, skipped_notices, skipped_tables

ALL, UNANSWERED = "all", "unanswered"

BY_LABEL = (KNOWLEDGE, REASONING, GENRE, DATASET)

ACCURACY, BASELINES, CHOSEN = "accuracy", "baselines", "chosen"
"""Tables, beside those of `BY_LABEL`."""


class Graded(NamedTuple):
    """A question with its answer, read by every rule."""

    question: ChoiceQuestion
    said: str
    log_likelihoods: tuple[float, ...]
    reading: Reading
    blind: Reading | None
    """Of the answer without audio; None where it was not asked for."""
    cut: bool
    """Whether the recording is longer than what was heard of it."""


class Outcome(NamedTuple):
    """All that was asked."""

    marked: Sequence[Graded]
    too_long: Sequence[str]
    """What is wrong with each question that was left out for its prompt."""
    no_audio: Sequence[str]
    """The same of those left out for their recording."""
    generated: bool
    """Whether answers were generated; else there is likelihood alone."""

    @property
    def total(self) -> int:
        """Returns how many questions there were, those left out among them."""
        return len(self.marked) + len(self.too_long) + len(self.no_audio)

    @property
    def rules(self) -> tuple[str, ...]:
        """Returns the names of the rules that apply."""
        return RULES if self.generated else (LIKELIHOOD,)


Marks = Float[np.ndarray, "Q"]
"""1 for each question that is right (or is what the row says), 0 for others; nan where it does not
count."""

Group = Bool[np.ndarray, "Q"]


class Cell(NamedTuple):
    """Where a measure stands."""

    table: str
    row: str
    column: str


def chosen_by(marked: Sequence[Graded], rule: str) -> list[int | None]:
    """Returns which option a rule reads in each answer."""
    return [one.reading[RULES.index(rule)] for one in marked]


def right_by(marked: Sequence[Graded], rule: str) -> Marks:
    """Returns which answers are right by a rule; one that chooses nothing is not."""
    found = zip(marked, chosen_by(marked, rule), strict=True)
    return np.array([float(number == one.question.right) for one, number in found])


def mark_cells(outcome: Outcome) -> dict[Cell, Marks]:
    """Returns the marks that each measure is the mean of, tables, rows and columns in order.

    Rows of knowledge and of reasoning are there if any question has such a tag.
    """
    return dict(_cells(outcome))


def _cells(outcome: Outcome) -> Iterator[tuple[Cell, Marks]]:
    marked, groups = outcome.marked, _groups(outcome.marked)
    for rule in outcome.rules:
        right = right_by(marked, rule)
        for name, group in groups.items():
            yield Cell(ACCURACY, name, rule), np.where(group, right, np.nan)
        for label in BY_LABEL:
            for tag in sorted({tag for one in marked for tag in _tags(one, label)}):
                has = [tag in _tags(one, label) for one in marked]
                yield Cell(label, tag, rule), np.where(has, right, np.nan)
        yield from _choices(marked, rule)
    for row, marks in _baselines(outcome).items():
        for name, group in groups.items():
            yield Cell(BASELINES, row, name), np.where(group, marks, np.nan)


def _tags(one: Graded, label: str) -> tuple[str, ...]:
    return one.question.labels.get(label, ())


def _groups(marked: Sequence[Graded]) -> Mapping[str, Group]:
    """Returns all questions, those with a tag of knowledge, and those with one of reasoning."""
    groups = {ALL: np.ones(len(marked), bool)}
    groups |= {
        label: np.array([bool(_tags(one, label)) for one in marked])
        for label in (KNOWLEDGE, REASONING)
    }
    return {name: group for name, group in groups.items() if group.any()}


def _choices(marked: Sequence[Graded], rule: str) -> Iterator[tuple[Cell, Marks]]:
    """Yields what kinds of options are chosen, and how often none is."""
    chosen = chosen_by(marked, rule)
    pairs = [(one.question.kinds, number) for one, number in zip(marked, chosen, strict=True)]
    there = {kind for kinds, _ in pairs for kind in kinds}
    for kind in (kind for kind in KINDS if kind in there):
        yield (
            Cell(CHOSEN, kind, rule),
            np.array(
                [
                    float(number is not None and kinds[number] == kind) if kinds else np.nan
                    for kinds, number in pairs
                ]
            ),
        )
    yield Cell(CHOSEN, UNANSWERED, rule), np.array([float(number is None) for number in chosen])


def _baselines(outcome: Outcome) -> Mapping[str, Marks]:
    """Returns the marks of the model and of what does not listen."""
    marked = outcome.marked
    rows = {f"this model, {rule}": right_by(marked, rule) for rule in outcome.rules}
    blind = option_baselines([(one.question.options, one.question.right) for one in marked])
    rows |= {name: np.array(marks) for name, marks in blind.items()}
    deaf = [one._replace(reading=one.blind) for one in marked if one.blind is not None]
    if deaf:
        rows |= {
            f"this model without audio, {rule}": right_by(deaf, rule) for rule in outcome.rules
        }
    return rows


TITLES = {
    ACCURACY: (
        "Accuracy by rule",
        "Knowledge and reasoning: questions with any such tag. The official rule takes any capital "
        "A to D for a letter: a perfect model that answers with the options' texts gets 81.3 % of "
        "MuChoMusic by it.",
    ),
    BASELINES: (
        "Without listening, by the same questions",
        "Of options that are equally short or long, each is chosen as often.",
    ),
    KNOWLEDGE: ("Knowledge", ""),
    REASONING: ("Reasoning", ""),
    GENRE: ("Genre", ""),
    DATASET: ("Data set", ""),
    CHOSEN: (
        "What is chosen",
        "The instruction-following rate is what is not unanswered by the official rule.",
    ),
}
"""Titles and notes of the tables, in their order."""

PUBLISHED = {ACCURACY: 0.586, KNOWLEDGE: 0.583, REASONING: 0.596}
"""By the names of the headline."""

PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849) on all of MuChoMusic"

QUESTIONS = 1187
"""Of MuChoMusic: what is published is of no other list."""

WORST = 20

Measures = Mapping[Cell, Metric]


def choice_findings(
    outcome: Outcome, checkpoint: str, settings: Mapping[str, str], seed: int = 0
) -> EvalResult:
    """Counts what was answered.

    Args:
        outcome: with at least one question that was answered.
        checkpoint: what is evaluated.
        settings: what the numbers depend on.
        seed: of the intervals' resamples.
    """
    marked = outcome.marked
    measures = measure_shares(mark_cells(outcome), [one.question.audio for one in marked], seed)
    headline = _headline(measures)
    intervals = f"95 %, {RESAMPLES:,} resamples of recordings, seed {seed}"
    return EvalResult(
        kind="MuChoMusic",
        title="MuChoMusic",
        checkpoint=checkpoint,
        headline=headline,
        tables=_tables(measures, outcome),
        notices=_notices(outcome, measures),
        missing=len(outcome.no_audio),
        radars=_radars(measures, outcome.rules),
        confusions=[_letters(marked, rule) for rule in outcome.rules],
        worst=_worst(outcome),
        published={
            name: Metric(value, note=PUBLISHED_NOTE)
            for name, value in PUBLISHED.items()
            if name in headline and outcome.total == QUESTIONS
        },
        settings={**settings, "intervals": intervals},
    )


def _headline(measures: Measures) -> dict[str, Metric]:
    """Returns the few numbers; those of rules that do not apply are not available."""
    cells = {
        ACCURACY: Cell(ACCURACY, ALL, OFFICIAL),
        KNOWLEDGE: Cell(ACCURACY, KNOWLEDGE, OFFICIAL),
        REASONING: Cell(ACCURACY, REASONING, OFFICIAL),
        f"{ACCURACY}, {STRICT}": Cell(ACCURACY, ALL, STRICT),
        f"{ACCURACY}, {LIKELIHOOD}": Cell(ACCURACY, ALL, LIKELIHOOD),
        UNANSWERED: Cell(CHOSEN, UNANSWERED, OFFICIAL),
    }
    headline = {}
    for name, cell in cells.items():
        # Where no question has such tags there is no such number, whatever the rule.
        if cell._replace(column=LIKELIHOOD) in measures:
            missing = Metric(None, note="no answers were generated")
            headline[name] = measures.get(cell, missing)
    return headline


def _tables(measures: Measures, outcome: Outcome) -> list[Table]:
    tables = [
        _table(measures, key, title, note)
        for key, (title, note) in TITLES.items()
        if any(cell.table == key for cell in measures)
    ]
    return [*tables, *skipped_tables([*outcome.no_audio, *outcome.too_long])]


def _table(measures: Measures, key: str, title: str, note: str) -> Table:
    """Returns a table of measures: rows and columns as they first come."""
    own = {cell: measure for cell, measure in measures.items() if cell.table == key}
    columns = list(dict.fromkeys(cell.column for cell in own))
    names = dict.fromkeys(cell.row for cell in own)
    rows = {row: [own.get(Cell(key, row, column)) for column in columns] for row in names}
    return Table(title, columns, rows, note)


def _notices(outcome: Outcome, measures: Measures) -> list[str]:
    """Returns what must be known first."""
    notices = skipped_notices(outcome.total, outcome.no_audio, outcome.too_long)
    bare = [label for label in (KNOWLEDGE, REASONING) if not _tag_tables(measures, label)]
    if bare:
        notices.append(
            f"No question has tags of {' or of '.join(bare)}: such rows are left out; "
            "MuChoMusic's csv has these tags"
        )
    return notices + cut_notices((one.question.audio, one.cut) for one in outcome.marked)


def _tag_tables(measures: Measures, label: str) -> list[str]:
    """Returns the tags of a kind that questions have."""
    return list(dict.fromkeys(cell.row for cell in measures if cell.table == label))


def _radars(measures: Measures, rules: Sequence[str]) -> list[Radar]:
    """Returns accuracy by tag; fewer than three make no circle."""
    axes = [
        (label, tag) for label in (KNOWLEDGE, REASONING) for tag in _tag_tables(measures, label)
    ]
    if len(axes) < 3:
        return []
    rings = {rule: [measures[Cell(*axis, rule)].value or 0.0 for axis in axes] for rule in rules}
    tags = [tag for _, tag in axes]
    names = [tag if tags.count(tag) == 1 else f"{label}: {tag}" for label, tag in axes]
    return [Radar("Accuracy by tag", names, rings)]


def _letters(marked: Sequence[Graded], rule: str) -> Confusion:
    """Returns which letters are chosen where which is right."""
    most = max(len(one.question.options) for one in marked)
    counts = [[0] * (most + 1) for _ in range(most + 1)]
    for one, number in zip(marked, chosen_by(marked, rule), strict=True):
        counts[one.question.right][most if number is None else number] += 1
    return Confusion(f"Letters, {rule}", [*LETTERS[:most], UNANSWERED], counts)


def _worst(outcome: Outcome) -> list[Example]:
    """Returns what is answered wrong, most firmly first: by how much a wrong option is likelier."""
    rule = outcome.rules[0]
    wrong = []
    for one, right in zip(outcome.marked, right_by(outcome.marked, rule), strict=True):
        if right:
            continue
        question, scores = one.question, one.log_likelihoods
        others = [score for number, score in enumerate(scores) if number != question.right]
        wrong.append(
            Example(
                audio=str(question.audio),
                question=question.question,
                expected=question.lettered[question.right],
                predicted=one.said,
                score=scores[question.right] - max(others),
                options=question.lettered,
            )
        )
    return sorted(wrong, key=lambda one: one.score)[:WORST]
