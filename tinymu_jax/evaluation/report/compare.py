"""Checkpoints side by side: which findings belong together, and by which names."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple, TypeVar

from tinymu_jax.evaluation.results import EvalResult, Radar, Table

BLIND = "blind"
"""Begins the names of rings that are baselines."""

Titled = TypeVar("Titled", Table, Radar)


class Group(NamedTuple):
    """Findings of one evaluation, of one checkpoint or several."""

    title: str
    names: Sequence[str]
    """Of the checkpoints, each another."""
    findings: Sequence[EvalResult]

    @property
    def several(self) -> bool:
        """Whether checkpoints are compared."""
        return len(self.names) > 1


class Ring(NamedTuple):
    """A line around a radar."""

    name: str
    values: Sequence[float]
    baseline: bool
    """Whether it is there to compare with, and no checkpoint's."""


def grouped(findings: Sequence[EvalResult]) -> list[Group]:
    """Returns what stands side by side: findings of the same kind and title."""
    found: dict[tuple[str, str], list[EvalResult]] = {}
    for one in findings:
        found.setdefault((one.kind, one.title), []).append(one)
    return [
        Group(title, _each_another([checkpoint_name(one.checkpoint) for one in own]), own)
        for (_, title), own in found.items()
    ]


def checkpoint_name(checkpoint: str) -> str:
    """Returns a checkpoint's name without the folders of this machine.

    A step is named with its run: "/home/me/runs/sft/checkpoints/1200" is "sft/checkpoints/1200".
    """
    path = _path(checkpoint)
    if not path.is_absolute():
        return checkpoint
    parts = path.parts[1:]
    start = len(parts) - 1
    while start > 0 and (parts[start].isdigit() or parts[start] == "checkpoints"):
        start -= 1
    return "/".join(parts[max(start, 0) :]) or checkpoint


def file_name(path: str) -> str:
    """Returns the last part of a path."""
    return _path(path).name


def _path(path: str) -> PurePosixPath | PureWindowsPath:
    """Returns a path of whichever machine wrote the report."""
    windows = PureWindowsPath(path)
    return windows if windows.drive else PurePosixPath(path)


def _each_another(names: Sequence[str]) -> list[str]:
    """Returns names, those that come twice with a number."""
    counts, met = Counter(names), Counter[str]()
    found = []
    for name in names:
        met[name] += 1
        found.append(name if counts[name] == 1 else f"{name} ({met[name]})")
    return found


def same_titles(group: Group, parts: Sequence[Sequence[Titled]]) -> list[list[tuple[str, Titled]]]:
    """Returns what checkpoints have under the same title, with their names.

    Args:
        group: whose findings they are of.
        parts: tables or radars of each checkpoint. Of several with one title, the first stand
            together, and so on.
    """
    found: dict[tuple[str, int], list[tuple[str, Titled]]] = {}
    for name, own in zip(group.names, parts, strict=True):
        met = Counter[str]()
        for part in own:
            found.setdefault((part.title, met[part.title]), []).append((name, part))
            met[part.title] += 1
    return list(found.values())


class Overlaid(NamedTuple):
    """Rings that are drawn over each other."""

    title: str
    axes: Sequence[str]
    rings: Sequence[Ring]


def overlaid(radars: Sequence[tuple[str, Radar]], several: bool) -> list[Overlaid]:
    """Returns radars of one title laid over each other.

    Rings whose name begins with "blind" are baselines; one that several have alike is drawn once.
    Of several checkpoints with several rings each, those of one name lie over each other.

    Args:
        radars: with the names of their checkpoints.
        several: whether rings are named by checkpoints.
    """
    axes = union(radar.axes for _, radar in radars)
    found: dict[str, list[Ring]] = {}
    baselines: dict[str, dict[tuple[float, ...], str]] = {}
    apart = several and any(len(_own(radar)) > 1 for _, radar in radars)
    for name, radar in radars:
        for ring, values in radar.series.items():
            known = dict(zip(radar.axes, values, strict=True))
            shares = [known.get(axis, math.nan) for axis in axes]
            # One nan, so that equal rings are equal.
            shares = tuple(math.nan if math.isnan(share) else share for share in shares)
            if ring in _own(radar):
                drawn = Ring(name if several else ring, shares, False)
                found.setdefault(ring if apart else "", []).append(drawn)
            else:
                baselines.setdefault(ring, {}).setdefault(shares, name)
    below = [
        Ring(ring if len(distinct) == 1 else f"{ring} ({name})", shares, True)
        for ring, distinct in baselines.items()
        for shares, name in distinct.items()
    ]
    title = radars[0][1].title
    return [
        Overlaid(f"{title}: {ring}" if ring else title, axes, [*own, *below])
        for ring, own in (found or {"": []}).items()
    ]


def _own(radar: Radar) -> list[str]:
    """Returns the rings that are the checkpoint's."""
    return [ring for ring in radar.series if not ring.lower().startswith(BLIND)]


Key = TypeVar("Key")


def union(parts: Iterable[Iterable[Key]]) -> list[Key]:
    """Returns what any of them has, once, in the order that it is met."""
    return list(dict.fromkeys(one for part in parts for one in part))
