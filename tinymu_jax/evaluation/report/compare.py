"""Group the results of several checkpoints by evaluation, and merge their radar charts."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from tinymu_jax.evaluation.report.text import checkpoint_name
from tinymu_jax.evaluation.results import EvalResult, Radar, Table

BASELINE = "blind"
"""Prefix of the names of radar chart lines that show a baseline."""
Titled = TypeVar("Titled", Table, Radar)
Key = TypeVar("Key")


class Group(NamedTuple):
    """The results of one evaluation, for one checkpoint or several."""

    title: str
    names: Sequence[str]
    """Name of each result's checkpoint, unique in the group."""
    results: Sequence[EvalResult]

    @property
    def is_comparison(self) -> bool:
        """Whether the group has the results of several checkpoints."""
        return len(self.names) > 1


class RadarSeries(NamedTuple):
    """One line of a radar chart, with a value for each axis."""

    name: str
    values: Sequence[float]
    is_baseline: bool


class MergedRadar(NamedTuple):
    """A radar chart in which the lines of all checkpoints are drawn over each other."""

    title: str
    axes: Sequence[str]
    series: Sequence[RadarSeries]


def group_results(results: Sequence[EvalResult]) -> list[Group]:
    """Group results that have the same kind and the same title."""
    groups: dict[tuple[str, str], list[EvalResult]] = {}
    for result in results:
        groups.setdefault((result.kind, result.title), []).append(result)
    return [
        Group(title, _unique([checkpoint_name(result.checkpoint) for result in members]), members)
        for (_, title), members in groups.items()
    ]


def _unique(names: Sequence[str]) -> list[str]:
    """Append a number to each name that occurs more than once, as in "sft (2)"."""
    counts, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if counts[name] == 1 else f"{name} ({seen[name]})")
    return unique


def by_title(group: Group, parts: Sequence[Sequence[Titled]]) -> list[list[tuple[str, Titled]]]:
    """Group tables or radar charts that have the same title; pair each with its checkpoint's name.

    `parts` has the tables or charts of each checkpoint in `group`. If a checkpoint has two with the
    same title, its second one is grouped with the second ones of the other checkpoints.
    """
    groups: dict[tuple[str, int], list[tuple[str, Titled]]] = {}
    for name, members in zip(group.names, parts, strict=True):
        seen = Counter[str]()
        for part in members:
            groups.setdefault((part.title, seen[part.title]), []).append((name, part))
            seen[part.title] += 1
    return list(groups.values())


def merge_radars(group: Group) -> list[MergedRadar]:
    """Merge the radar charts of all checkpoints: charts with the same title become one chart.

    Baselines with equal values are drawn once. If checkpoints are compared and a chart has several
    lines beside baselines, it is split into one chart per line name, with a line per checkpoint.
    """
    titled = by_title(group, [result.radars for result in group.results])
    return [merged for radars in titled for merged in _merge(radars, group.is_comparison)]


def _merge(radars: Sequence[tuple[str, Radar]], is_comparison: bool) -> list[MergedRadar]:
    axes = union(radar.axes for _, radar in radars)
    separate = is_comparison and any(
        sum(not _is_baseline(name) for name in radar.series) > 1 for _, radar in radars
    )
    lines: dict[str, list[RadarSeries]] = {}
    baselines: dict[str, dict[tuple[float, ...], str]] = {}
    for checkpoint, radar in radars:
        for name, fractions in radar.series.items():
            known = dict(zip(radar.axes, fractions, strict=True))
            # Each NaN becomes the same object, math.nan, so that equal series compare as equal.
            values = tuple(
                math.nan if math.isnan(value) else value
                for value in (known.get(axis, math.nan) for axis in axes)
            )
            if _is_baseline(name):
                baselines.setdefault(name, {}).setdefault(values, checkpoint)
            else:
                line = RadarSeries(checkpoint if is_comparison else name, values, False)
                lines.setdefault(name if separate else "", []).append(line)
    baseline_lines = [
        RadarSeries(name if len(distinct) == 1 else f"{name} ({checkpoint})", values, True)
        for name, distinct in baselines.items()
        for values, checkpoint in distinct.items()
    ]
    title = radars[0][1].title
    return [
        MergedRadar(f"{title}: {name}" if name else title, axes, [*members, *baseline_lines])
        for name, members in (lines or {"": []}).items()
    ]


def _is_baseline(name: str) -> bool:
    return name.lower().startswith(BASELINE)


def union(parts: Iterable[Iterable[Key]]) -> list[Key]:
    """Return the distinct elements of several iterables, in order of first occurrence."""
    return list(dict.fromkeys(element for part in parts for element in part))
