"""Low-rank additions to linear layers (LoRA, arXiv 2106.09685)."""

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


def init_lora_a(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Returns a first A (..., D, r), uniform in +-1/sqrt(D) as PEFT's Kaiming start with sqrt(5).

    B starts at zero, so that a model with fresh additions is the model without.
    """
    limit = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class LoraFactors(nn.Module):
    """The factors of one layer's addition, `a` (D, r) and `b` (r, M), and the input for them.

    The input loses some of its numbers to dropout where the call brings a "dropout" key, each
    layer its own. A comes multiplied with alpha / r, since it is the smallest of what takes part.
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
    """Returns the rows of the additions' weights, made of those of the kernels they belong to.

    Args:
        table: logical axes by path; a kernel's end in its input's and its output's.
        config: names the layers; None adds nothing.
    """
    rows: dict[str, Axes] = {}
    for path, axes in table.items():
        *_, layer, weight = path.split("/")
        if config is not None and weight == "kernel" and layer in config.targets:
            place = path.removesuffix("kernel") + "lora"
            *leading, into, out = axes
            rows[f"{place}/a"] = (*leading, into, "rank")
            rows[f"{place}/b"] = (*leading, "rank", out)
    return rows


LORA_FROZEN_PARAMS = r"encoder/.*|decoder/(?!.*/lora/[ab]$).*"
"""`OptimConfig.frozen_params` of a LoRA run: all but the projector and the additions to the decoder."""


def add_lora(
    params: Mapping[str, Any], config: TinyMUConfig, lora: LoraConfig, seed: int
) -> tuple[Tree, TinyMUConfig]:
    """Adds fresh factors to a model, which computes the same as before.

    Args:
        params: the whole stacked tree; its weights are taken over as they are.
        config: of the model without additions.
        lora: what to add.
        seed: of the factors A; each depends on it and its own path only. B is zero.

    Returns:
        The tree with `<layer>/lora/a` (L, D, r) and `<layer>/lora/b` (L, r, M), float32 numpy
        arrays, beside each target's kernel; and its config.

    Raises:
        InputError: the model has additions already, or `lora` names no layers of it.
    """
    if config.decoder.lora is not None:
        raise InputError("decoder.lora: the model has LoRA already; merge it first")
    # A config that was not read from a file has not been held against its rules.
    lora = LoraConfig.from_dict(lora.to_dict(), "lora")
    leaves, key = dict(flatten(params)), jax.random.key(seed)
    for path, kernel in list(leaves.items()):
        *parents, layer, weight = path.split("/")
        if parents[:1] != ["decoder"] or weight != "kernel" or layer not in lora.targets:
            continue
        place = path.removesuffix("kernel") + "lora"
        count, into, out = kernel.shape
        own = jax.random.fold_in(key, zlib.crc32(place.encode()))
        leaves[f"{place}/a"] = np.asarray(init_lora_a(own, (count, into, lora.rank)))
        leaves[f"{place}/b"] = np.zeros((count, lora.rank, out), np.float32)
    return unflatten(leaves), _with_lora(config, lora)


def merge_lora(params: Mapping[str, Any], config: TinyMUConfig) -> tuple[Tree, TinyMUConfig]:
    """Adds the factors' products to the kernels: W + (alpha / r) A B, in float32.

    Args:
        params: the whole stacked tree.
        config: of the model; without additions nothing changes.

    Returns:
        The tree without factors, merged kernels as numpy arrays and all else as it was; and its
        config.
    """
    lora, leaves = config.decoder.lora, dict(flatten(params))
    if lora is None:
        return unflatten(leaves), config
    for path in [path for path in leaves if path.endswith("/lora/a")]:
        place = path.removesuffix("/lora/a")
        a, b = (np.asarray(leaves.pop(f"{place}/lora/{name}"), np.float32) for name in "ab")
        kernel = np.asarray(leaves[f"{place}/kernel"], np.float32)
        leaves[f"{place}/kernel"] = kernel + np.float32(lora.alpha / lora.rank) * (a @ b)
    return unflatten(leaves), _with_lora(config, None)


def _with_lora(config: TinyMUConfig, lora: LoraConfig | None) -> TinyMUConfig:
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, lora=lora))
