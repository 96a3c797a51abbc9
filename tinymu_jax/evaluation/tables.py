"""Builds the tables and confusion matrices of several evaluations from the scores of questions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tinymu_jax.evaluation.results import Confusion, Metric, Table

ALL, UNANSWERED = "all", "unanswered"
MAX_WORST = 20
"""Maximum number of worst answers in a report."""
BASELINES_TITLE = "Without audio, by the same questions"
BASELINES_NOTE = "Of options that are equally short or long, each is chosen as often."
QuestionScores = Float[np.ndarray, "Q"]
"""A score for each question, 1 if right and 0 if wrong; NaN for questions that do not count."""


class MetricPlace(NamedTuple):
    """The place of a metric in a report: the names of its table, row and column."""

    table: str
    row: str
    column: str


def cells_to_table(
    metrics: Mapping[MetricPlace, Metric], key: str, title: str, note: str = ""
) -> Table | None:
    """Builds a table of all metrics whose place names the table `key`; None if there are none.

    Rows and columns have the order in which they first occur.
    """
    cells = {cell: metric for cell, metric in metrics.items() if cell.table == key}
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = {
        row: [cells.get(MetricPlace(key, row, column)) for column in columns]
        for row in dict.fromkeys(cell.row for cell in cells)
    }
    return Table(title, columns, rows, note) if cells else None


def choice_confusion(
    title: str, labels: Sequence[str], expected: Sequence[int], chosen: Sequence[int | None]
) -> Confusion:
    """Returns the confusion matrix of right options (rows) and chosen options (columns).

    Args:
        title: the matrix's title.
        labels: the name of each option.
        expected: the index of each question's right option.
        chosen: the index of each question's chosen option; None counts as unanswered.
    """
    from sklearn.metrics import confusion_matrix

    predicted = [len(labels) if number is None else number for number in chosen]
    counts = confusion_matrix(expected, predicted, labels=range(len(labels) + 1))
    return Confusion(title, [*labels, UNANSWERED], counts.tolist())
