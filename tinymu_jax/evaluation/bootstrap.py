"""Intervals of shares: the bootstrap over recordings.

Questions about one recording are right or wrong together, so recordings are drawn, and each brings
all of its questions.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from tinymu_jax.evaluation.results import Metric

RESAMPLES = 10_000

LEVEL = 0.95

_CELLS = 4_000_000
"""Numbers that are drawn at once: as many resamples as fit."""

Name = TypeVar("Name", bound=Hashable)


def measure_shares(
    marks: Mapping[Name, Sequence[float]],
    groups: Sequence[Hashable],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[Name, Metric]:
    """Returns the mean of each row of marks, with its 95 % interval.

    Args:
        marks: one for each question, 1 for right and 0 for wrong, or between; nan where a question
            does not count.
        groups: what each question belongs to, such as its recording.
        seed: of the resamples, which are the same for all rows.
        resamples: how many.
    """
    if not marks:
        return {}
    table = np.array([np.asarray(row, np.float64) for row in marks.values()]).T
    low, high = bootstrap(table, groups, seed, resamples)
    measures = {}
    for column, name in enumerate(marks):
        known = table[:, column][~np.isnan(table[:, column])]
        if not len(known):
            measures[name] = Metric(None, count=0, note="no questions")
            continue
        ends = float(low[column]), float(high[column])
        there = not np.isnan(ends[0])
        measures[name] = Metric(float(known.mean()), *(ends if there else ()), count=len(known))
    return measures


def bootstrap(
    marks: Float[np.ndarray, "Q columns"],
    groups: Sequence[Hashable],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Float[np.ndarray, "columns"], Float[np.ndarray, "columns"]]:
    """Returns the ends of the percentile interval of each column's mean; nan of one group alone.

    Arguments as `measure_shares`, a column for each of its rows. A resample in which no question of
    a column counts is left out for it.
    """
    place = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    of = np.array([place[group] for group in groups])
    counted = ~np.isnan(marks)
    totals = np.zeros((len(place), 2, marks.shape[1]))
    np.add.at(totals, of, np.stack([np.where(counted, marks, 0), counted], axis=1))
    shares = _resampled_shares(totals, seed, resamples)
    low, high = np.full((2, marks.shape[1]), np.nan)
    for column, found in enumerate(shares.T):
        if np.count_nonzero(totals[:, 1, column]) > 1:
            tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
            low[column], high[column] = np.quantile(found[~np.isnan(found)], tails)
    return low, high


def _resampled_shares(
    totals: Float[np.ndarray, "groups 2 columns"], seed: int, resamples: int
) -> Float[np.ndarray, "resamples columns"]:
    """Returns the means of resamples, from the sum and the number of each group's marks."""
    rng, size = np.random.default_rng(seed), len(totals)
    block = max(1, _CELLS // size)
    flat, parts = totals.reshape(size, -1), []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        sums, counts = np.moveaxis((weights @ flat).reshape(rows, 2, -1), 1, 0)
        parts.append(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))
    return np.concatenate(parts)
