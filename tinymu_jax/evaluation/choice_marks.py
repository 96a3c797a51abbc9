"""Marks of answers to multiple choice: every share that is reported is the mean of some of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.data.blind_choices import blind_marks
from tinymu_jax.evaluation.choice_questions import (
    DATASET,
    GENRE,
    KINDS,
    KNOWLEDGE,
    REASONING,
    ChoiceQuestion,
)
from tinymu_jax.evaluation.choice_rules import LIKELIHOOD, RULES, Reading

ALL, UNANSWERED = "all", "unanswered"
BY_LABEL = (KNOWLEDGE, REASONING, GENRE, DATASET)
ACCURACY, BASELINES, CHOSEN = "accuracy", "baselines", "chosen"
"""Tables, beside those of `BY_LABEL`."""


class Marked(NamedTuple):
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

    marked: Sequence[Marked]
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


def chosen_by(marked: Sequence[Marked], rule: str) -> list[int | None]:
    """Returns which option a rule reads in each answer."""
    return [one.reading[RULES.index(rule)] for one in marked]


def right_by(marked: Sequence[Marked], rule: str) -> Marks:
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


def _tags(one: Marked, label: str) -> tuple[str, ...]:
    return one.question.labels.get(label, ())


def _groups(marked: Sequence[Marked]) -> Mapping[str, Group]:
    """Returns all questions, those with a tag of knowledge, and those with one of reasoning."""
    groups = {ALL: np.ones(len(marked), bool)}
    groups |= {
        label: np.array([bool(_tags(one, label)) for one in marked])
        for label in (KNOWLEDGE, REASONING)
    }
    return {name: group for name, group in groups.items() if group.any()}


def _choices(marked: Sequence[Marked], rule: str) -> Iterator[tuple[Cell, Marks]]:
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
    blind = blind_marks([(one.question.options, one.question.right) for one in marked])
    rows |= {name: np.array(marks) for name, marks in blind.items()}
    deaf = [one._replace(reading=one.blind) for one in marked if one.blind is not None]
    if deaf:
        rows |= {
            f"this model without audio, {rule}": right_by(deaf, rule) for rule in outcome.rules
        }
    return rows
