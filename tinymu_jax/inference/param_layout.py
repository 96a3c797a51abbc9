"""The unrolled layout of the parameters, made once at load, in which answers are computed.

On a processor, decoding is bound by reading the weights: one array per layer is read at the
memory's full speed where a slice of a stacked array is copied first; projections of one input are
joined; a row holds the weights of one output; int8 rows are a quarter of the bytes.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from tinymu_jax.utils.tree import Tree, flatten, unflatten

Weights = Literal["float32", "bfloat16", "int8"]

JOINED = {"qkv": ("q_proj", "k_proj", "v_proj"), "gate_up": ("gate_proj", "up_proj")}
"""Parents of `JointDense`, and the children that are joined in this order."""

STACKS = ("layers", "blocks")
"""Names below which weights have a leading layer axis."""


def unstack(params: Mapping[str, Any], axes: Mapping[str, tuple[str | None, ...]]) -> Tree:
    """Splits stacked weights into one subtree per layer: `layers/x` becomes `layers_0/x`, ....

    Args:
        params: the stacked tree.
        axes: its table; a leading "layers" axis marks what is split.
    """
    leaves = {}
    for path, leaf in flatten(params):
        if axes[path][0:1] != ("layers",):
            leaves[path] = leaf
            continue
        names = path.split("/")
        at = next(i for i, name in enumerate(names) if name in STACKS)
        for n, piece in enumerate(leaf):
            leaves["/".join([*names[:at], f"{names[at]}_{n}", *names[at + 1 :]])] = piece
    return unflatten(leaves)


def stack(params: Mapping[str, Any]) -> Tree:
    """Undoes `unstack`."""
    groups: dict[str, dict[int, Any]] = {}
    leaves: dict[str, Any] = {}
    for path, leaf in flatten(params):
        names = path.split("/")
        for i, name in enumerate(names):
            base, _, number = name.rpartition("_")
            if base in STACKS and number.isdigit():
                joined = "/".join([*names[:i], base, *names[i + 1 :]])
                groups.setdefault(joined, {})[int(number)] = leaf
                break
        else:
            leaves[path] = leaf
    for path, pieces in groups.items():
        leaves[path] = np.stack([pieces[n] for n in range(len(pieces))])
    return unflatten(leaves)


def quantise(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds each row to int8: rows (M, D) and scale (M,) with rows * scale close to the input."""
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-30) / np.float32(127)
    return np.round(rows / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def by_rows(params: Mapping[str, Any], weights: Weights = "float32") -> Tree:
    """Joins, turns and if asked rounds the kernels of an unstacked part of the model.

    Rows may come back as turned views: what puts them on the device copies them once.

    Args:
        params: unstacked; `kernel` (D, M) becomes `rows` (M, D).
        weights: what rows and embeddings are kept in; int8 comes with a `scale` per row.
    """
    made: Tree = {}
    for name, value in params.items():
        if name == "kernel":
            made |= _rows(np.asarray(value).T, weights)
        elif name == "embedding":
            rows = _rows(np.asarray(value), weights)
            made |= rows if weights == "int8" else {"embedding": rows["rows"]}
        elif isinstance(value, Mapping) and set(value) == set(JOINED.get(name, ())):
            kernels = [np.asarray(value[child]["kernel"]) for child in JOINED[name]]
            made[name] = {"joined": _rows(np.concatenate(kernels, axis=1).T, weights)}
        else:
            made[name] = by_rows(value, weights) if isinstance(value, Mapping) else value
    return made


def _rows(rows: np.ndarray, weights: Weights) -> Tree:
    """Returns the parameters of a Dense by rows."""
    if weights == "int8":
        quantised, scale = quantise(rows)
        return {"rows": quantised, "scale": scale}
    dtype = jnp.bfloat16 if weights == "bfloat16" else np.float32
    return {"rows": rows.astype(dtype, copy=False)}
