"""Key maps between PyTorch state dicts and parameter trees, read in both directions.

A `KeyRule` ties a path of the stacked parameter tree to a key of a state dict. Every key and every
path must be named by exactly one rule; missing and left-over names on either side are errors.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.checkpoints.checkpoint import check_keys
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tree import Tree, flatten, unflatten


class WeightLayout(NamedTuple):
    """How one weight is laid out on both sides; both directions keep every bit."""

    from_torch: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def _kernel_to_patches(kernel: np.ndarray) -> np.ndarray:
    side = round(kernel.shape[0] ** 0.5)
    return kernel.T.reshape(-1, 1, side, side)


SAME = WeightLayout(lambda weight: weight, lambda weight: weight)

LINEAR = WeightLayout(np.transpose, np.transpose)
"""(out, in) in PyTorch, (in, out) here."""

PATCH = WeightLayout(lambda weight: weight.reshape(len(weight), -1).T, _kernel_to_patches)
"""A convolution over patches, (out, 1, side, side) in PyTorch, is a linear layer here."""

INTEGER = WeightLayout(
    lambda weight: weight.astype(np.int32), lambda weight: weight.astype(np.int64)
)
"""A counter: int64 in PyTorch, int32 here."""

LOSSLESS = {"float32": ("float32", "float16", "bfloat16"), "int32": ("int32", "int64")}
"""The types of a file that each parameter type holds exactly (int64: checked by value)."""


class KeyRule(NamedTuple):
    """One row of a key map."""

    path: str
    """Path in the stacked parameter tree."""
    key: str
    """Key in the state dict; "{n}" counts the layers, which the tree has on a leading axis."""
    layout: WeightLayout = SAME

    def under(self, path: str, key: str) -> "KeyRule":
        """Returns the rule with a prefix before both names."""
        return self._replace(path=f"{path}/{self.path}", key=f"{key}.{self.key}")


def linear(path: str, key: str, bias: bool = True) -> list[KeyRule]:
    """Returns the rules of a linear layer."""
    rules = [KeyRule(f"{path}/kernel", f"{key}.weight", LINEAR)]
    return rules + ([KeyRule(f"{path}/bias", f"{key}.bias")] if bias else [])


def norm(path: str, key: str, bias: bool = True) -> list[KeyRule]:
    """Returns the rules of a LayerNorm, or of an RMSNorm (no bias)."""
    rules = [KeyRule(f"{path}/scale", f"{key}.weight")]
    return rules + ([KeyRule(f"{path}/bias", f"{key}.bias")] if bias else [])


def check_state_dict(content: object, where: str | Path) -> dict[str, np.ndarray]:
    """Returns the content of a file if it is a state dict: names and arrays.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(content, dict) or not content:
        raise InputError(f"{where}: holds no state dict; name a checkpoint's file")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise InputError(
                f"{where}: {key!r} is not a tensor but {type(value).__name__}; name a file that "
                "holds a model's state_dict()"
            )
    return content


def from_state_dict(
    state: Mapping[str, np.ndarray],
    rules: Sequence[KeyRule],
    shapes: Tree,
    where: str | Path,
    ties: Mapping[str, str] | None = None,
) -> Tree:
    """Turns a PyTorch state dict into a stacked parameter tree.

    Args:
        state: the state dict, numpy arrays.
        rules: the key map.
        shapes: the expected tree; its leaves have a `shape` and a `dtype`.
        where: the file, for messages.
        ties: tied copies: keys that must hold the same numbers as another key.

    Raises:
        InputError: keys missing or left over, wrong shapes, types that cannot be held exactly, tied
            copies that differ.
    """
    ties, leaves = ties or {}, dict(flatten(shapes))
    _check_paths(rules, leaves)
    expected: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        placeholder = np.broadcast_to(np.float32(0), leaves[rule.path].shape)
        expected |= {key: array.shape for key, array in _split(rule, placeholder)}
    expected |= {copy: expected[original] for copy, original in ties.items()}
    check_keys(where, dict(state), expected)
    for copy, original in ties.items():
        if state[copy] is not state[original] and not np.array_equal(state[copy], state[original]):
            raise InputError(
                f"{where}: {copy} differs from {original}, which this model shares; "
                "save the checkpoint from a model with tied embeddings"
            )
    return unflatten({rule.path: _gather(state, rule, leaves[rule.path], where) for rule in rules})


def _check_paths(rules: Sequence[KeyRule], leaves: Mapping[str, object]) -> None:
    """Raises a ValueError if the key map and the tree do not name the same weights."""
    if odd := sorted({rule.path for rule in rules} ^ set(leaves)):
        raise ValueError(f"the key map and the model differ in {odd}")


def _split(rule: KeyRule, leaf: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Returns the keys and arrays that a leaf becomes in a state dict: one per layer if stacked."""
    if "{n}" not in rule.key:
        return [(rule.key, rule.layout.to_torch(leaf))]
    return [(rule.key.format(n=n), rule.layout.to_torch(layer)) for n, layer in enumerate(leaf)]


def _gather(
    state: Mapping[str, np.ndarray], rule: KeyRule, leaf: Tree, where: str | Path
) -> np.ndarray:
    """Returns one leaf of the parameter tree, layers stacked."""

    def convert(key: str) -> np.ndarray:
        weight, lossless = state[key], LOSSLESS[np.dtype(leaf.dtype).name]
        array = rule.layout.from_torch(weight)
        if weight.dtype not in lossless or (weight.dtype == np.int64 and (array != weight).any()):
            raise InputError(
                f"{where}: {key} is {weight.dtype}, which {leaf.dtype} cannot hold exactly; save "
                "the checkpoint again after model.float()"
            )
        return array

    if "{n}" not in rule.key:
        # A copy: the state may be a view of a file that is overwritten later.
        return np.array(convert(rule.key), leaf.dtype, order="C")
    out = np.empty(leaf.shape, leaf.dtype)
    for n in range(leaf.shape[0]):
        out[n] = convert(rule.key.format(n=n))
    return out


def to_state_dict(
    params: Tree, rules: Sequence[KeyRule], ties: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Turns a stacked parameter tree into a PyTorch state dict, keys in the key map's order.

    Arrays are views where possible. A tied copy is the same object as its original, so that a file
    stores it once.

    Raises:
        ValueError: the key map and the tree do not name the same weights.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params)}
    _check_paths(rules, leaves)
    state = dict(item for rule in rules for item in _split(rule, leaves[rule.path]))
    return state | {copy: state[original] for copy, original in (ties or {}).items()}
