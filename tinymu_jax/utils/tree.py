"""Parameters as a table: every weight matches exactly one row of its model's `param_axes`."""

from collections.abc import Iterator, Mapping
from typing import Any

Tree = dict[str, Any]
"""Nested dictionaries with arrays as leaves."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf with its path, names joined by "/"."""
    for name, value in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """Builds the nested dictionaries of `flatten`'s paths."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *names, last = path.split("/")
        node = tree
        for name in names:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def logical_axes(
    params: Mapping[str, Any], table: Mapping[str, tuple[str | None, ...]]
) -> dict[str, tuple[str | None, ...]]:
    """Returns the table, after holding it against the tree.

    Raises:
        ValueError: a weight without a row, a row without a weight, or a rank that differs; it
            names them all.
    """
    leaves = dict(flatten(params))
    faults = [f"no row for {path}" for path in leaves if path not in table]
    faults += [f"no weight for {path}" for path in table if path not in leaves]
    faults += [
        f"{path} has {leaves[path].ndim} axes, its row {len(axes)}"
        for path, axes in table.items()
        if path in leaves and leaves[path].ndim != len(axes)
    ]
    if faults:
        raise ValueError("; ".join(faults))
    return dict(table)
