"""Data classes of evaluation results, the same for every benchmark; the input of `write_report`.

Fractions are 0 to 1; a report prints them in percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """The value of a metric, with its 95 % confidence interval if there is one."""

    value: float | None
    """None if the metric is not available; `note` says why."""
    low: float | None = None
    high: float | None = None
    count: int | None = None
    """Number of questions that the value was computed from."""
    note: str = ""
    is_fraction: bool = True
    """Whether the value is a fraction, which is printed in percent; a mean length is not one."""


@dataclass(frozen=True)
class Table:
    """A table of metrics."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Metric | None]]
    """One metric per column for each row, by the row's name; None is an empty cell."""
    note: str = ""
    """Text printed below the table."""


@dataclass(frozen=True)
class Radar:
    """A radar chart of fractions."""

    title: str
    axes: Sequence[str]
    series: Mapping[str, Sequence[float]]
    """One fraction per axis for each series, by the series' name; NaN leaves a gap."""


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
    """Expected calibration error."""


@dataclass(frozen=True)
class Example:
    """A question with the expected and the predicted answer."""

    audio: str
    """Path of the recording."""
    question: str
    expected: str
    predicted: str
    score: float | None = None
    """Score of the predicted answer, higher is better; None if answers are only right or wrong."""
    options: Sequence[str] = ()


@dataclass(frozen=True)
class EvalResult:
    """Result of one evaluation of one checkpoint."""

    kind: str
    """Kind of evaluation: "MuChoMusic", "captions", "classification" or "list"."""
    title: str
    checkpoint: str
    headline: Mapping[str, Metric]
    """The few metrics by which checkpoints are compared, by name."""
    tables: Sequence[Table]
    notices: Sequence[str] = ()
    """Warnings for the top of the report, such as skipped questions or missing recordings."""
    missing: int = 0
    """Number of questions whose recording is missing or broken."""
    radars: Sequence[Radar] = ()
    confusions: Sequence[Confusion] = ()
    reliabilities: Sequence[Reliability] = ()
    worst: Sequence[Example] = ()
    """The worst answers, twenty at most."""
    published: Mapping[str, Metric] = field(default_factory=dict)
    """Published values of some metrics in `headline`, by the metric's name."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """All settings that the metrics depend on, by name."""
