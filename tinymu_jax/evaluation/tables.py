"""What evaluations share: tables and confusion matrices over questions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tinymu_jax.evaluation.results import Confusion, Metric, Table

ALL, UNANSWERED = "all", "unanswered"

MAX_WORST = 20
"""Worst answers that a report shows."""

BASELINES_TITLE = "Without audio, by the same questions"

BASELINES_NOTE = "Of options that are equally short or long, each is chosen as often."

QuestionScores = Float[np.ndarray, "Q"]
"""A score per question, 1 for right and 0 for wrong; NaN where a question does not count."""


class MetricPlace(NamedTuple):
    """The place of a metric."""

    table: str
    row: str
    column: str


def cells_to_table(
    metrics: Mapping[MetricPlace, Metric], key: str, title: str, note: str = ""
) -> Table | None:
    """Returns a table's metrics, rows and columns in their first order; None if it has none."""
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
    """Returns which option was chosen (columns) where which is right (rows).

    Args:
        title: of the matrix.
        labels: of the options.
        expected: the right option of each question.
        chosen: the chosen one; None is counted as unanswered.
    """
    from sklearn.metrics import confusion_matrix

    predicted = [len(labels) if number is None else number for number in chosen]
    counts = confusion_matrix(expected, predicted, labels=range(len(labels) + 1))
    return Confusion(title, [*labels, UNANSWERED], counts.tolist())
