"""Results of an evaluation, in one form for every benchmark; input of `write_report`.

Fractions are 0 to 1; a report prints them in percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """A number, with its 95 % confidence interval if there is one."""

    value: float | None
    """None: not available; `note` says why."""
    low: float | None = None
    high: float | None = None
    count: int | None = None
    """Number of questions."""
    note: str = ""
    is_fraction: bool = True
    """False for a metric on a scale of its own, such as BLEU."""


@dataclass(frozen=True)
class Table:
    """Rows of metrics."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Metric | None]]
    """Row name to one metric per column; None is an empty cell."""
    note: str = ""
    """Printed below the table."""


@dataclass(frozen=True)
class Radar:
    """A radar chart of fractions."""

    title: str
    axes: Sequence[str]
    series: Mapping[str, Sequence[float]]
    """Series name to one fraction per axis; NaN is a gap."""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix."""

    title: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    """Rows are the true labels, columns the predicted ones."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: accuracy by bins of confidence. Empty bins are omitted."""

    title: str
    confidence: Sequence[float]
    """Mean of each bin."""
    accuracy: Sequence[float]
    counts: Sequence[int]
    ece: float
    """Expected calibration error."""


@dataclass(frozen=True)
class Example:
    """A question with the model's answer."""

    audio: str
    """Path of the recording."""
    question: str
    expected: str
    predicted: str
    score: float | None = None
    """Higher is better; None where an answer is only right or wrong."""
    options: Sequence[str] = ()


@dataclass(frozen=True)
class EvalResult:
    """Result of one evaluation of one checkpoint."""

    kind: str
    """"MuChoMusic", "captions", "classification" or "list"."""
    title: str
    checkpoint: str
    headline: Mapping[str, Metric]
    """The few metrics by which checkpoints are compared."""
    tables: Sequence[Table]
    notices: Sequence[str] = ()
    """Warnings at the top of the report: skipped questions, missing recordings."""
    missing: int = 0
    """Number of questions whose recording is missing or broken."""
    radars: Sequence[Radar] = ()
    confusions: Sequence[Confusion] = ()
    reliabilities: Sequence[Reliability] = ()
    worst: Sequence[Example] = ()
    """The twenty worst answers."""
    published: Mapping[str, Metric] = field(default_factory=dict)
    """Published values of metrics in `headline`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Everything the numbers depend on."""
