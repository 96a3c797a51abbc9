"""Converts trees of parameters to flat sequences of paths and arrays, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

Tree = dict[str, Any]
"""Nested dictionaries with arrays as leaves."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path ("a/b/c") and value of every leaf of nested dictionaries."""
    for name, value in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """Return nested dictionaries from leaves by path ("a/b/c"). Inverse of `flatten`."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *names, last = path.split("/")
        node = tree
        for name in names:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def has_arrays(tree: Mapping[str, Any]) -> bool:
    """Return whether all leaves hold numbers, and none is only a shape (`ShapeDtypeStruct`)."""
    return all(hasattr(leaf, "__array__") for _, leaf in flatten(tree))
