"""Evaluation results, from which a report is written. Fractions are 0 to 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SPLIT = "split"
"""Setting that says which split of a data set was scored."""


@dataclass(frozen=True)
class Metric:
    """The value of a metric; `low` and `high` bound its 95 % confidence interval, if any."""

    value: float | None
    """None if the metric is unavailable; `note` says why."""
    low: float | None = None
    high: float | None = None
    count: int | None = None
    """Number of questions from which the value was computed."""
    note: str = ""
    is_fraction: bool = True
    """Whether the value is a fraction, which a report prints in percent."""


@dataclass(frozen=True)
class Table:
    """A table of metrics."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Metric | None]]
    """Metrics of each row, one per column, by the row's name; None is an empty cell."""
    note: str = ""
    """Text below the table."""


@dataclass(frozen=True)
class Radar:
    """A radar chart of fractions."""

    title: str
    axes: Sequence[str]
    series: Mapping[str, Sequence[float]]
    """Fractions of each line of the chart, one per axis, by the line's name; NaN leaves a gap."""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: how often each label was predicted for each true label."""

    title: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    """Rows are the true labels, columns the predicted labels."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: the accuracy in each bin of confidence. Empty bins are omitted."""

    title: str
    confidence: Sequence[float]
    """Mean confidence of the answers in each bin."""
    accuracy: Sequence[float]
    counts: Sequence[int]
    ece: float
    """Expected calibration error, 0 to 1."""


@dataclass(frozen=True)
class Example:
    """A question with the expected answer and the model's answer, to be shown in a report."""

    audio: str
    """Path of the recording."""
    question: str
    expected: str
    predicted: str
    score: float | None = None
    """Score of the model's answer, higher is better; None if answers are only right or wrong."""
    options: Sequence[str] = ()


@dataclass(frozen=True)
class EvalResult:
    """The result of one evaluation of one checkpoint."""

    kind: str
    """Kind of evaluation: "MuChoMusic", "captions", "classification" or "list"."""
    title: str
    checkpoint: str
    headline: Mapping[str, Metric]
    """Main metrics by name, shown at the top of the report."""
    tables: Sequence[Table]
    notices: Sequence[str] = ()
    """Warnings at the top of the report, such as skipped questions."""
    missing: int = 0
    """Number of questions whose recording is missing or broken."""
    radars: Sequence[Radar] = ()
    confusions: Sequence[Confusion] = ()
    reliabilities: Sequence[Reliability] = ()
    worst: Sequence[Example] = ()
    """Examples of the worst answers, at most twenty."""
    published: Mapping[str, Metric] = field(default_factory=dict)
    """Published values of metrics in `headline`, by the metric's name."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """All settings that the metrics depend on, by name."""
