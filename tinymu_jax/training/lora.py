"""LoRA (arXiv 2106.09685) as published for TinyMU: added for training, merged for use."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tinymu_jax.config import LoraConfig, TinyMUConfig
from tinymu_jax.errors import InputError
from tinymu_jax.models.lora import starting_a
from tinymu_jax.sharding import Tree, flatten, unflatten

FROZEN = r"encoder/.*|decoder/(?!.*/lora/[ab]$).*"
"""`OptimConfig.frozen` of a LoRA run: all but the projector and the additions to the decoder."""


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
        leaves[f"{place}/a"] = np.asarray(starting_a(own, (count, into, lora.rank)))
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
