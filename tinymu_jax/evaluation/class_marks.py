"""Labels that are chosen by their likelihoods, and how good the choice is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tinymu_jax.evaluation.calibration import softmax

OVER_PRIOR, WITH_PRIOR = "prior taken off", "prior left in"
"""The two rules that a label is chosen by."""


class Chosen(NamedTuple):
    """The labels that a rule chooses, by their numbers among the classes."""

    number: Int[np.ndarray, "R"]
    """Of each recording."""
    probabilities: Float[np.ndarray, "R C"]
    right: Bool[np.ndarray, "R"]

    @property
    def confidence(self) -> Float[np.ndarray, "R"]:
        """Returns the probability of each chosen label."""
        return self.probabilities.max(axis=1)


class Classified(NamedTuple):
    """All recordings with their labels."""

    classes: Sequence[str]
    wanted: Int[np.ndarray, "R"]
    """Numbers of the right classes."""
    prior: int
    """Number of the class that is the most probable without audio."""
    by_rule: Mapping[str, Chosen]


class ClassScores(NamedTuple):
    """Figures of each class; nan where there is nothing to count."""

    counts: Int[np.ndarray, "C C"]
    """How often which class (row) was taken for which (column)."""
    recall: Float[np.ndarray, "C"]
    precision: Float[np.ndarray, "C"]
    f1: Float[np.ndarray, "C"]

    @property
    def macro_f1(self) -> float:
        """Returns the mean over the classes that occur, be it as a wrong choice alone."""
        return float(np.nanmean(self.f1))


def classify(
    classes: Sequence[str],
    wanted: Sequence[str],
    heard: Float[np.ndarray, "R C"],
    unheard: Float[np.ndarray, "C"],
) -> Classified:
    """Chooses a label for each recording by both rules.

    Args:
        classes: the labels.
        wanted: of each recording.
        heard: log-likelihoods of the labels, having heard the recording.
        unheard: the same without audio.
    """
    numbers = np.array([classes.index(label) for label in wanted])

    def choose(scores: Float[np.ndarray, "R C"]) -> Chosen:
        number = scores.argmax(axis=1)
        return Chosen(number, softmax(scores), number == numbers)

    by_rule = {OVER_PRIOR: choose(heard - unheard), WITH_PRIOR: choose(heard)}
    return Classified(classes, numbers, int(unheard.argmax()), by_rule)


def class_scores(
    wanted: Int[np.ndarray, "R"], chosen: Int[np.ndarray, "R"], classes: int
) -> ClassScores:
    """Returns the figures of each class.

    Args:
        wanted: numbers of the right classes.
        chosen: numbers of those chosen.
        classes: how many there are.
    """
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (wanted, chosen), 1)
    hits, there, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(classes, np.nan), where=whole > 0)

    return ClassScores(counts, share(hits, there), share(hits, said), share(2 * hits, there + said))
