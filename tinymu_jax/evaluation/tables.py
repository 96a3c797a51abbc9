"""Build tables and confusion matrices from the scores of questions, for several evaluations."""

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
"""Score of each of Q questions, 0 (wrong) to 1 (right); NaN for questions that do not count."""


class MetricPlace(NamedTuple):
    """The place of a metric in a report: the names of its table, row and column."""

    table: str
    row: str
    column: str


def cells_to_table(
    metrics: Mapping[MetricPlace, Metric], key: str, title: str, note: str = ""
) -> Table | None:
    """Return a table of the metrics whose `MetricPlace.table` is `key`; None if there are none.

    Rows and columns keep the order in which they first occur.
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
    """Return the confusion matrix of right options (rows) and chosen options (columns).

    `expected` and `chosen` have the index of one option per question. A chosen None counts as
    unanswered. `labels` names the options.
    """
    from sklearn.metrics import confusion_matrix

    predicted = [len(labels) if number is None else number for number in chosen]
    counts = confusion_matrix(expected, predicted, labels=range(len(labels) + 1))
    return Confusion(title, [*labels, UNANSWERED], counts.tolist())
