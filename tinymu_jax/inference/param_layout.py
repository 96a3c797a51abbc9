"""Converts parameters to the layout for inference, which a CPU reads quickly.

Each layer gets its own arrays, projections of the same input are fused, and kernels are transposed,
so that a row holds the weights of one output.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from tinymu_jax.utils.tree import Tree, flatten, unflatten

WeightDtype = Literal["float32", "bfloat16", "int8"]
FUSED = {"qkv": ("q_proj", "k_proj", "v_proj"), "gate_up": ("gate_proj", "up_proj")}
"""Name of a fused `JointDense` module -> names of its projections, in order."""
STACKS = ("layers", "blocks")
"""Names of the modules whose weights have a leading layer axis."""


def unstack(params: Mapping[str, Any], axes: Mapping[str, tuple[str | None, ...]]) -> Tree:
    """Split stacked weights into one subtree per layer: `layers/x` becomes `layers_0/x`, ....

    `axes` has the logical axes of each weight, by path; the axis "layers" is split.
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


def quantize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each row of a matrix (M, D) to int8; return the int8 matrix and M scales."""
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-30) / np.float32(127)
    return np.round(rows / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def by_rows(params: Mapping[str, Any], dtype: WeightDtype = "float32") -> Tree:
    """Transpose the kernels of an unstacked parameter tree, cast them, and join those of `FUSED`.

    A `kernel` (D inputs, M outputs) becomes `rows` (M, D), with a `scale` per row for int8.
    """
    tree: Tree = {}
    for name, value in params.items():
        if name == "kernel":
            tree |= _rows(np.asarray(value).T, dtype)
        elif name == "embedding":
            rows = _rows(np.asarray(value), dtype)
            tree |= rows if dtype == "int8" else {"embedding": rows["rows"]}
        elif isinstance(value, Mapping) and set(value) == set(FUSED.get(name, ())):
            kernels = [np.asarray(value[child]["kernel"]) for child in FUSED[name]]
            tree[name] = {"joined": _rows(np.concatenate(kernels, axis=1).T, dtype)}
        else:
            tree[name] = by_rows(value, dtype) if isinstance(value, Mapping) else value
    return tree


def _rows(rows: np.ndarray, dtype: WeightDtype) -> Tree:
    """Return the parameters of a `Dense` module with the given rows, cast to a dtype."""
    if dtype == "int8":
        quantized, scale = quantize(rows)
        return {"rows": quantized, "scale": scale}
    return {"rows": rows.astype(jnp.bfloat16 if dtype == "bfloat16" else np.float32, copy=False)}
