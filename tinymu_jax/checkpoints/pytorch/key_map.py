"""The one conversion table's mechanism: rules that are read in both directions.

A rule ties a path of our stacked tree to a key of a PyTorch state dict. Every key and every path
must be named by exactly one rule; what is missing or left over on either side is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.checkpoints.checkpoint import check_keys
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tree import Tree, flatten, unflatten


class Form(NamedTuple):
    """How one weight lies in PyTorch and in our tree; both ways keep every bit."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def _patch_to_theirs(kernel: np.ndarray) -> np.ndarray:
    side = round(kernel.shape[0] ** 0.5)
    return kernel.T.reshape(-1, 1, side, side)


SAME = Form(lambda weight: weight, lambda weight: weight)

LINEAR = Form(np.transpose, np.transpose)
"""torch keeps (out, in), we keep (in, out)."""

PATCH = Form(lambda weight: weight.reshape(len(weight), -1).T, _patch_to_theirs)
"""A convolution over whole patches, (out, 1, side, side), is a linear layer."""

INTEGER = Form(lambda weight: weight.astype(np.int32), lambda weight: weight.astype(np.int64))
"""A counter: torch keeps int64."""

EXACT = {"float32": ("float32", "float16", "bfloat16"), "int32": ("int32", "int64")}
"""The types that each of ours takes in without a loss; they come back as torch keeps ours."""


class Rule(NamedTuple):
    """One row of the table."""

    ours: str
    """Path in our stacked tree."""
    theirs: str
    """Key in the state dict; "{n}" counts layers, which we keep on a leading axis."""
    form: Form = SAME

    def under(self, ours: str, theirs: str) -> "Rule":
        """Returns the rule with both names below a prefix."""
        return self._replace(ours=f"{ours}/{self.ours}", theirs=f"{theirs}.{self.theirs}")


def linear(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    """Returns the rules of a linear layer."""
    rules = [Rule(f"{ours}/kernel", f"{theirs}.weight", LINEAR)]
    return rules + ([Rule(f"{ours}/bias", f"{theirs}.bias")] if bias else [])


def norm(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    """Returns the rules of a LayerNorm, or of an RMSNorm (no bias)."""
    rules = [Rule(f"{ours}/scale", f"{theirs}.weight")]
    return rules + ([Rule(f"{ours}/bias", f"{theirs}.bias")] if bias else [])


def as_state_dict(content: object, where: str | Path) -> dict[str, np.ndarray]:
    """Returns the content of a file if it is a state dict: names and arrays.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(content, dict) or not content:
        raise InputError(f"{where}: holds no state dict; name a checkpoint's file")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise InputError(
                f"{where}: {key!r} is no named tensor but {type(value).__name__}; name a file that "
                "holds a model's state_dict()"
            )
    return content


def to_ours(
    state: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    shapes: Tree,
    where: str | Path,
    ties: Mapping[str, str] | None = None,
) -> Tree:
    """Turns a PyTorch state dict into our stacked tree.

    Args:
        state: the state dict, numpy arrays.
        rules: the table.
        shapes: the tree that is expected, of anything with a `shape` and a `dtype`.
        where: the file, for messages.
        ties: keys that must hold the same numbers as another key (tied copies).

    Raises:
        InputError: keys missing or left over, wrong shapes, types that cannot be held exactly, tied
            copies that differ.
    """
    ties, leaves = ties or {}, dict(flatten(shapes))
    if {rule.ours for rule in rules} != set(leaves):
        odd = sorted({rule.ours for rule in rules} ^ set(leaves))
        raise ValueError(f"the conversion table and the model differ in {odd}")
    expected: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        shape = leaves[rule.ours].shape
        if "{n}" in rule.theirs:
            theirs = rule.form.to_theirs(np.broadcast_to(np.float32(0), shape[1:])).shape
            expected |= {rule.theirs.format(n=n): theirs for n in range(shape[0])}
        else:
            expected[rule.theirs] = rule.form.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
    expected |= {copy: expected[original] for copy, original in ties.items()}
    check_keys(where, dict(state), expected)
    for copy, original in ties.items():
        if state[copy] is not state[original] and not np.array_equal(state[copy], state[original]):
            raise InputError(
                f"{where}: {copy} differs from {original}, which this model shares; "
                "save the checkpoint from a model with tied embeddings"
            )
    return unflatten({rule.ours: _gather(state, rule, leaves[rule.ours], where) for rule in rules})


def _gather(
    state: Mapping[str, np.ndarray], rule: Rule, leaf: Tree, where: str | Path
) -> np.ndarray:
    """Returns one leaf of our tree, layers stacked."""

    def ours(key: str) -> np.ndarray:
        weight, held = state[key], EXACT[np.dtype(leaf.dtype).name]
        ours = rule.form.to_ours(weight)
        if weight.dtype not in held or (weight.dtype == np.int64 and (ours != weight).any()):
            raise InputError(
                f"{where}: {key} is {weight.dtype}, which {leaf.dtype} cannot hold exactly; save "
                "the checkpoint again after model.float()"
            )
        return ours

    if "{n}" not in rule.theirs:
        # A copy: the state may be a view of a file that somebody writes over.
        return np.array(ours(rule.theirs), leaf.dtype, order="C")
    out = np.empty(leaf.shape, leaf.dtype)
    for n in range(leaf.shape[0]):
        out[n] = ours(rule.theirs.format(n=n))
    return out


def to_theirs(
    params: Tree, rules: Sequence[Rule], ties: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Turns our stacked tree into a PyTorch state dict, keys in the table's order.

    Arrays are views where possible; a tied copy is the same object as its original, so that the
    file stores it once.

    Raises:
        ValueError: the table and the tree do not name the same weights.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params)}
    if {rule.ours for rule in rules} != set(leaves):
        odd = sorted({rule.ours for rule in rules} ^ set(leaves))
        raise ValueError(f"the conversion table and the tree differ in {odd}")
    state: dict[str, np.ndarray] = {}
    for rule in rules:
        leaf = leaves[rule.ours]
        if "{n}" in rule.theirs:
            for n in range(leaf.shape[0]):
                state[rule.theirs.format(n=n)] = rule.form.to_theirs(leaf[n])
        else:
            state[rule.theirs] = rule.form.to_theirs(leaf)
    return state | {copy: state[original] for copy, original in (ties or {}).items()}
