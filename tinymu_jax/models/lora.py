"""LoRA adapters (arXiv 2106.09685): adds them to a model, and merges them into its weights."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import LoraConfig, TinyMUConfig
from tinymu_jax.utils.tree import Tree, flatten, unflatten

Axes = tuple[str | None, ...]
LORA_FROZEN_PARAMS = r"encoder/.*|decoder/(?!.*/lora/[ab]$).*"
"""Value of `OptimConfig.frozen_params` for training only the projector and the LoRA adapters."""


def init_lora_a(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Return an initial LoRA factor A (..., D, r), uniform in +-1/sqrt(D) as in PEFT."""
    limit = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class LoraFactors(nn.Module):
    """The factors `a` (D, r) and `b` (r, M) of one layer's LoRA adapter; `features` is M.

    Returns x after dropout, `a` times alpha / r, and `b`; their product is the adapter's output.
    Dropout is applied if there is a "dropout" rng.
    """

    features: int
    config: LoraConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "D r"], Float[Array, "r M"]]:
        config = self.config
        a = self.param("a", init_lora_a, (x.shape[-1], config.rank))
        b = self.param("b", nn.initializers.zeros_init(), (config.rank, self.features))
        x = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(x)
        return x, a * (config.alpha / config.rank), b


def lora_axes(table: Mapping[str, Axes], config: LoraConfig | None) -> dict[str, Axes]:
    """Return the logical axes (names for sharding) of the adapters' factors, keyed by path.

    `table` maps the path of each model weight to its axes; a kernel's last two axes are input and
    output. Without a `config`, there are no adapters.
    """
    rows: dict[str, Axes] = {}
    for path, axes in table.items():
        *_, layer, weight = path.split("/")
        if config is not None and weight == "kernel" and layer in config.targets:
            prefix = path.removesuffix("kernel") + "lora"
            *leading, input_axis, output_axis = axes
            rows[f"{prefix}/a"] = (*leading, input_axis, "rank")
            rows[f"{prefix}/b"] = (*leading, "rank", output_axis)
    return rows


def add_lora(
    params: Mapping[str, Any], config: TinyMUConfig, lora: LoraConfig, seed: int
) -> tuple[Tree, TinyMUConfig]:
    """Add new LoRA adapters to a decoder; B is 0, so that the model's outputs do not change.

    `params` are the full model's, stacked over layers; the result shares their arrays. Each factor
    A depends only on `seed` and the factor's path.

    Returns:
        The parameters, with float32 numpy arrays `<layer>/lora/a` (L, D, r) and `<layer>/lora/b`
        (L, r, M) beside each target's kernel; and the config of the model with adapters.

    Raises:
        InputError: the model already has adapters, or `lora` is invalid.
    """
    if config.decoder.lora is not None:
        raise InputError("decoder.lora: the model has LoRA already; merge it first")
    # A config that was built in Python has not been validated yet.
    lora = LoraConfig.from_dict(lora.to_dict(), "lora")
    leaves, key = dict(flatten(params)), jax.random.key(seed)
    for path, kernel in list(leaves.items()):
        *parents, layer, weight = path.split("/")
        if parents[:1] != ["decoder"] or weight != "kernel" or layer not in lora.targets:
            continue
        prefix = path.removesuffix("kernel") + "lora"
        depth, input_width, output_width = kernel.shape
        path_key = jax.random.fold_in(key, zlib.crc32(prefix.encode()))
        a = init_lora_a(path_key, (depth, input_width, lora.rank))
        leaves[f"{prefix}/a"] = np.asarray(a)
        leaves[f"{prefix}/b"] = np.zeros((depth, lora.rank, output_width), np.float32)
    return unflatten(leaves), _with_lora(config, lora)


def merge_lora(params: Mapping[str, Any], config: TinyMUConfig) -> tuple[Tree, TinyMUConfig]:
    """Merge LoRA adapters into the decoder's kernels: W + (alpha / r) A B, in float32.

    Returns the model's parameters and config without adapters; merged kernels are new numpy arrays.
    `params` are the full model's, stacked. A model without adapters is returned unchanged.
    """
    lora, leaves = config.decoder.lora, dict(flatten(params))
    if lora is None:
        return unflatten(leaves), config
    for path in [path for path in leaves if path.endswith("/lora/a")]:
        layer = path.removesuffix("/lora/a")
        a, b = (np.asarray(leaves.pop(f"{layer}/lora/{name}"), np.float32) for name in "ab")
        kernel = np.asarray(leaves[f"{layer}/kernel"], np.float32)
        leaves[f"{layer}/kernel"] = kernel + np.float32(lora.alpha / lora.rank) * (a @ b)
    return unflatten(leaves), _with_lora(config, None)


def _with_lora(config: TinyMUConfig, lora: LoraConfig | None) -> TinyMUConfig:
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, lora=lora))
