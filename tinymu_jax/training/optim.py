"""Adam with the published schedule, or Muon for chosen matrices."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from tinymu_jax.errors import InputError
from tinymu_jax.training.config import OptimConfig
from tinymu_jax.utils.tree import Tree, flatten, unflatten


def published_schedule(
    peak: float, steps: int, warmup: float, hold: float = 0.0
) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Returns the learning rate by step: linear warmup, optional plateau, half a cosine.

    Warmup is `peak (s + 1) / W` (published code, `src/utils.py`, cosine_lr): step 0 already
    learns, unlike in optax's schedules.

    Args:
        peak: highest learning rate.
        steps: of the run.
        warmup: fraction of the steps in which the rate rises.
        hold: fraction of the steps at the peak.
    """
    warmup_end = int(warmup * steps)
    hold_end = warmup_end + int(hold * steps)

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        rising = (step + 1) / max(warmup_end, 1)
        past = jnp.maximum(step - hold_end, 0)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * past / max(steps - hold_end, 1)))
        return peak * jnp.where(step < warmup_end, rising, falling)

    return rate


def partition_frozen(params: Mapping[str, Any], config: OptimConfig) -> tuple[Tree, Tree]:
    """Splits parameters into trained and frozen ones.

    Raises:
        InputError: everything is frozen, or the pattern is not a regular expression.
    """
    leaves = dict(flatten(params))
    frozen = {path for path in leaves if _matches(config.frozen_params, path)}
    if len(frozen) == len(leaves):
        raise InputError(
            f"optim.frozen-params {config.frozen_params!r} freezes everything; narrow it"
        )
    trained = {path: leaf for path, leaf in leaves.items() if path not in frozen}
    return unflatten(trained), unflatten({path: leaves[path] for path in leaves if path in frozen})


def merge_trees(*trees: Mapping[str, Any]) -> Tree:
    """Merges disjoint parts of a tree; the inverse of `partition_frozen`."""
    return unflatten(dict(pair for tree in trees for pair in flatten(tree)))


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a run of `steps` steps: Adam, and Muon for `muon_params`."""
    # As in torch, optax adds eps to the root of the bias-corrected second moment.

    def decayed(params: Tree) -> Tree:
        return _by_path(params, lambda path: _matches(config.weight_decay_params, path))

    def factors(params: Tree) -> Tree:
        leaves = dict(flatten(params))
        depths = [len(leaf) for path, leaf in leaves.items() if LAYERS.match(path)]
        depth = depths[0] if depths else 0
        return _by_path(
            params,
            lambda path: (
                _lr_multiplier(config, path) * _layer_decay(config, path, depth, leaves[path].ndim)
            ),
        )

    parts = []
    if config.max_grad_norm is not None:
        parts.append(optax.clip_by_global_norm(config.max_grad_norm))
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    if config.muon_params is None:
        parts.append(adam)
    else:
        pattern, ratio = config.muon_params, config.muon_learning_rate / config.learning_rate
        parts.append(optax.masked(_muon(ratio), lambda p: _muon_mask(p, pattern)))
        parts.append(optax.masked(adam, lambda p: _muon_mask(p, pattern, inverted=True)))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, decayed))
    if config.lr_multipliers or config.layer_decay != 1:
        parts.append(_scale_by_path(factors))
    schedule = published_schedule(
        config.learning_rate, steps, config.warmup_fraction, config.hold_fraction
    )
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _muon_mask(params: Tree, pattern: str, inverted: bool = False) -> Tree:
    """Returns for each parameter whether the pattern matches it, or does not if `inverted`.

    Raises:
        InputError: the pattern matches nothing, or something that is no matrix.
    """
    mask = _by_path(params, lambda path: _matches(pattern, path))
    for (path, leaf), (_, matched) in zip(flatten(params), flatten(mask), strict=True):
        if matched and getattr(leaf, "ndim", 2) < 2:
            raise _no_matrix(pattern, path)
    if not any(matched for _, matched in flatten(mask)):
        raise InputError(f"optim.muon-params {pattern!r} names no trained weight; correct it")
    return jax.tree.map(lambda matched: matched != inverted, mask)


def _no_matrix(pattern: str | None, path: str) -> InputError:
    return InputError(f"optim.muon-params {pattern!r} names {path}, which is no matrix; narrow it")


def check_muon(
    config: OptimConfig, trained: Tree, axes: Mapping[str, tuple[str | None, ...]]
) -> None:
    """Refuses Muon for stacked vectors, which are matrices in memory only.

    Raises:
        InputError: the pattern matches one.
    """
    for path, _ in flatten(trained):
        matched = config.muon_params is not None and _matches(config.muon_params, path)
        if matched and sum(axis != "layers" for axis in axes[path]) < 2:
            raise _no_matrix(config.muon_params, path)


def _muon(lr_ratio: float) -> optax.GradientTransformation:
    """Returns Muon for stacked matrices, at `lr_ratio` times the learning rate of Adam."""
    from optax.contrib import MuonDimensionNumbers, scale_by_muon

    def last_two(updates: Tree) -> Tree:
        return jax.tree.map(lambda x: MuonDimensionNumbers(x.ndim - 2, x.ndim - 1), updates)

    def scale(x: Array) -> Array:
        fan_in, fan_out = x.shape[-2:]
        return x * (lr_ratio * max(1.0, fan_out / fan_in) ** 0.5)

    return optax.chain(
        scale_by_muon(weight_dimension_numbers=last_two),
        optax.stateless(lambda updates, params: jax.tree.map(scale, updates)),
    )


def _scale_by_path(factors: Callable[[Tree], Tree]) -> optax.GradientTransformation:
    """Multiplies each update by a factor that depends on its path."""

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        scale = dict(flatten(factors(updates)))
        scaled = {path: leaf * scale[path] for path, leaf in flatten(updates)}
        return unflatten(scaled), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _by_path(params: Tree, value: Callable[[str], Any]) -> Tree:
    return unflatten({path: value(path) for path, _ in flatten(params)})


def _lr_multiplier(config: OptimConfig, path: str) -> float:
    return next((f for pattern, f in config.lr_multipliers.items() if _matches(pattern, path)), 1.0)


LAYERS = re.compile(r"(encoder/)?transformer/blocks/")
"""Stacked layers of the encoder."""

EMBEDDINGS = re.compile(r"(encoder/)?(cls_token|pos_embed|patch_embed/)")
"""What comes before the first layer."""


def _layer_decay(
    config: OptimConfig, path: str, depth: int, ndim: int
) -> float | Float[np.ndarray, "..."]:
    """Returns the layer-wise factor of a parameter; of a stack one for each layer."""
    if LAYERS.match(path):
        layers_above = np.arange(depth, 0, -1).reshape(-1, *[1] * (ndim - 1))
        return (config.layer_decay**layers_above).astype(np.float32)
    return config.layer_decay ** (depth + 1) if EMBEDDINGS.match(path) else 1.0


def _matches(pattern: str, path: str) -> bool:
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise InputError(f"{pattern!r}: is no regular expression ({error}); correct it") from error
