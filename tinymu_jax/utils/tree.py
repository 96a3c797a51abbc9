"""Trees of parameters as flat mappings of paths to arrays."""

from collections.abc import Iterator, Mapping
from typing import Any

Tree = dict[str, Any]
"""Nested dictionaries with arrays as leaves."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf with its path, the names joined by "/"."""
    for name, value in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """Returns the nested dictionaries of a mapping of paths, the inverse of `flatten`."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *names, last = path.split("/")
        node = tree
        for name in names:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree
