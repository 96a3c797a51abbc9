"""Confidence intervals (95 %) of mean scores, by the percentile bootstrap.

Answers about one recording are correlated, so recordings are resampled with all their questions.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from tinymu_jax.evaluation.results import Metric

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK_SIZE = 4_000_000
"""Maximum number of random numbers drawn at once, to limit memory use."""
Name = TypeVar("Name", bound=Hashable)


def mean_metrics(
    scores: Mapping[Name, Sequence[float]],
    groups: Sequence[Hashable],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[Name, Metric]:
    """Return, by name, the mean of each row of `scores` with its 95 % confidence interval.

    A row has one score per question, or NaN for a question that does not count. `groups` has one
    key per question, usually its recording; questions with the same key are resampled together.
    All rows share the same resamples.
    """
    if not scores:
        return {}
    table = np.array([np.asarray(row, np.float64) for row in scores.values()]).T
    low, high = bootstrap(table, groups, seed, resamples)
    metrics = {}
    for column, name in enumerate(scores):
        counted = table[:, column][~np.isnan(table[:, column])]
        if not len(counted):
            metrics[name] = Metric(None, count=0, note="no questions")
            continue
        ends = float(low[column]), float(high[column])
        interval = () if np.isnan(ends[0]) else ends
        metrics[name] = Metric(float(counted.mean()), *interval, count=len(counted))
    return metrics


def bootstrap(
    scores: Float[np.ndarray, "Q columns"],
    groups: Sequence[Hashable],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Float[np.ndarray, "columns"], Float[np.ndarray, "columns"]]:
    """Return the lower and upper ends of the 95 % confidence interval of each column's mean.

    The ends are NaN for a column whose scores are all in one group. A resample in which a column
    has only NaN is ignored for that column.

    Args:
        scores: a row for each of Q questions; NaN if a question does not count in a column.
        groups: a key for each question, usually its recording; whole groups are resampled.
        seed: the seed of the resamples, which all columns share.
        resamples: the number of resamples.
    """
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group_ids = np.array([number_of[group] for group in groups])
    counted = ~np.isnan(scores)
    totals = np.zeros((len(number_of), 2, scores.shape[1]))
    np.add.at(totals, group_ids, np.stack([np.where(counted, scores, 0), counted], axis=1))
    means = _resampled_means(totals, seed, resamples)
    low, high = np.full((2, scores.shape[1]), np.nan)
    for column, values in enumerate(means.T):
        if np.count_nonzero(totals[:, 1, column]) > 1:
            tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
            low[column], high[column] = np.quantile(values[~np.isnan(values)], tails)
    return low, high


def _resampled_means(
    totals: Float[np.ndarray, "groups 2 columns"], seed: int, resamples: int
) -> Float[np.ndarray, "resamples columns"]:
    """Resample groups, and return the column means; `totals` has their score sums and counts."""
    rng, size = np.random.default_rng(seed), len(totals)
    block = max(1, _BLOCK_SIZE // size)
    flat, means = totals.reshape(size, -1), []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        sums, counts = np.moveaxis((weights @ flat).reshape(rows, 2, -1), 1, 0)
        means.append(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))
    return np.concatenate(means)


def interval_note(seed: int) -> str:
    """Return how the confidence intervals are computed, as a text for the report."""
    return f"95 %, {RESAMPLES:,} resamples of recordings, seed {seed}"
