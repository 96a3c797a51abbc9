"""What an evaluation finds, in one form whatever was asked, for `tinymu_jax.evaluation.report.build`.

Shares are fractions of 1; a report prints them in percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """A number with its 95 % interval, if there is one."""

    value: float | None
    """None: not available; `note` says why."""
    low: float | None = None
    high: float | None = None
    count: int | None = None
    """Over how many questions."""
    note: str = ""
    share: bool = True
    """Whether it is a fraction of 1, and not a figure of its own scale."""


@dataclass(frozen=True)
class Table:
    """Rows of measures under common columns."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Metric | None]]
    """By their names, a cell for each column; None is left empty."""
    note: str = ""
    """Stands below it."""


@dataclass(frozen=True)
class Radar:
    """Shares around a circle: one ring for each of `rings`, in the order of `axes`."""

    title: str
    axes: Sequence[str]
    rings: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Confusion:
    """How often what is in a row was taken for what is in a column."""

    title: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Reliability:
    """How often answers of some confidence are right, by bins of confidence."""

    title: str
    confidence: Sequence[float]
    """Mean of each bin that is not empty."""
    accuracy: Sequence[float]
    counts: Sequence[int]
    error: float
    """Expected calibration error: the mean distance of the two, weighted by counts."""


@dataclass(frozen=True)
class Example:
    """A question with what was answered, to be looked at."""

    audio: str
    """Path of the recording."""
    question: str
    wanted: str
    said: str
    score: float | None = None
    """The higher the better; None where it is only right or wrong."""
    options: Sequence[str] = ()


@dataclass(frozen=True)
class EvalResult:
    """All that one evaluation of one checkpoint gave."""

    kind: str
    """"MuChoMusic", "captions", "classification", "list"."""
    title: str
    checkpoint: str
    headline: Mapping[str, Metric]
    """The few numbers that checkpoints are compared by."""
    tables: Sequence[Table]
    notices: Sequence[str] = ()
    """What must be known first: questions left out, missing recordings. They stand on top."""
    missing: int = 0
    """Questions whose recording is missing or broken."""
    radars: Sequence[Radar] = ()
    confusions: Sequence[Confusion] = ()
    reliabilities: Sequence[Reliability] = ()
    worst: Sequence[Example] = ()
    """The twenty worst answers."""
    published: Mapping[str, Metric] = field(default_factory=dict)
    """What papers report, by the names of `headline`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the numbers depend on."""
