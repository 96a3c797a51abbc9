"""Converts between PyTorch state dicts and parameter trees by key maps, in both directions.

A key map is a list of `KeyRule`s. Each rule connects one path of the parameter tree, in which
layers are stacked, to one key of the state dict.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.checkpoints.checkpoint import check_keys
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tree import Tree, flatten, unflatten


class WeightLayout(NamedTuple):
    """Functions that convert a weight's layout from and to PyTorch without changing any bit."""

    from_torch: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def _kernel_to_patches(kernel: np.ndarray) -> np.ndarray:
    """Reshape a linear kernel (side * side, out) to a convolution weight (out, 1, side, side)."""
    side = round(kernel.shape[0] ** 0.5)
    return kernel.T.reshape(-1, 1, side, side)


SAME = WeightLayout(lambda weight: weight, lambda weight: weight)
LINEAR = WeightLayout(np.transpose, np.transpose)
"""Layout of a linear layer: (out, in) in PyTorch, (in, out) in the parameter tree."""
PATCH = WeightLayout(lambda weight: weight.reshape(len(weight), -1).T, _kernel_to_patches)
"""Layout of patch embeddings: (out, 1, side, side) in PyTorch, (side * side, out) in the tree."""
INTEGER = WeightLayout(
    lambda weight: weight.astype(np.int32), lambda weight: weight.astype(np.int64)
)
"""Layout of a counter: int64 in PyTorch, int32 in the parameter tree."""
LOSSLESS = {"float32": ("float32", "float16", "bfloat16"), "int32": ("int32", "int64")}
"""File dtypes that each parameter dtype holds exactly; int64 values are checked one by one."""


class KeyRule(NamedTuple):
    """One entry of a key map: a weight's path, its key in PyTorch, and its layout."""

    path: str
    """Path in the stacked parameter tree."""
    key: str
    """Key in the state dict; "{n}" stands for the layer index, the first axis of the stacked
    weight."""
    layout: WeightLayout = SAME

    def under(self, path: str, key: str) -> "KeyRule":
        """Return this rule with `path/` before its path and `key.` before its key."""
        return self._replace(path=f"{path}/{self.path}", key=f"{key}.{self.key}")


def linear(path: str, key: str, bias: bool = True) -> list[KeyRule]:
    """Return the key rules of a linear layer at parameter path `path` and PyTorch key `key`."""
    rules = [KeyRule(f"{path}/kernel", f"{key}.weight", LINEAR)]
    return rules + ([KeyRule(f"{path}/bias", f"{key}.bias")] if bias else [])


def norm(path: str, key: str, bias: bool = True) -> list[KeyRule]:
    """Return the key rules of a LayerNorm at parameter path `path`; without bias, of an RMSNorm."""
    rules = [KeyRule(f"{path}/scale", f"{key}.weight")]
    return rules + ([KeyRule(f"{path}/bias", f"{key}.bias")] if bias else [])


def check_state_dict(content: object, where: str | Path) -> dict[str, np.ndarray]:
    """Check that a file's content is a dict of arrays by name, and return it.

    Raises:
        InputError: the content is empty, or is not a dict from strings to arrays.
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
    """Return the stacked parameter tree for a PyTorch state dict.

    `rules` are the key map. `shapes` is the tree with the expected `shape` and `dtype` of each
    leaf. `ties` maps the key of a tied weight to the key of the weight that it must equal. `where`
    names the file in messages.

    Raises:
        InputError: keys are missing or unexpected, shapes are wrong, a dtype cannot be converted
            exactly, or tied weights differ.
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
    """Raise a ValueError if the paths of a key map are not the paths of a parameter tree."""
    if odd := sorted({rule.path for rule in rules} ^ set(leaves)):
        raise ValueError(f"the key map and the model differ in {odd}")


def _split(rule: KeyRule, leaf: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return a parameter as (key, array) pairs for PyTorch: one pair, or one per stacked layer."""
    if "{n}" not in rule.key:
        return [(rule.key, rule.layout.to_torch(leaf))]
    return [(rule.key.format(n=n), rule.layout.to_torch(layer)) for n, layer in enumerate(leaf)]


def _gather(
    state: Mapping[str, np.ndarray], rule: KeyRule, leaf: Tree, where: str | Path
) -> np.ndarray:
    """Return a rule's weight, stacked over layers; `leaf` gives the weight's shape and dtype."""

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
        # Copied, because `state` may hold views of a file that is overwritten later.
        return np.array(convert(rule.key), leaf.dtype, order="C")
    out = np.empty(leaf.shape, leaf.dtype)
    for n in range(leaf.shape[0]):
        out[n] = convert(rule.key.format(n=n))
    return out


def to_state_dict(
    params: Tree, rules: Sequence[KeyRule], ties: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Return the PyTorch state dict for a stacked parameter tree, in the order of `rules`.

    `rules` are the key map. `ties` maps the key of a tied weight to the key whose array it shares.

    Raises:
        ValueError: the paths of the key map are not the paths of the tree.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params)}
    _check_paths(rules, leaves)
    state = dict(item for rule in rules for item in _split(rule, leaves[rule.path]))
    return state | {copy: state[original] for copy, original in (ties or {}).items()}
