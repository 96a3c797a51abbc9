"""Optimizer of a run (Adam, optionally Muon) and its learning rate schedule."""

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
    """Return a function from step to learning rate: linear warmup, plateau, half a cosine to 0.

    `warmup` and `hold` (the plateau) are fractions of `steps`. As in the published code
    (`src/utils.py`, cosine_lr), the rate at step s of W warmup steps is `peak (s + 1) / W`.
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
    """Split parameters into a trained and a frozen tree, by `config.frozen_params`.

    Raises `InputError` if everything is frozen, or if the pattern is not a regular expression.
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
    """Merge trees without common paths into one tree. Inverse of `partition_frozen`."""
    return unflatten(dict(pair for tree in trees for pair in flatten(tree)))


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a run of `steps` steps, including the learning rate schedule."""
    # Like torch, optax adds eps to the root of the bias-corrected second moment.

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
    """Return a tree of booleans, True for the parameters whose paths match `pattern`.

    With `inverted`, they are False and all others True. Raises `InputError` if no path matches, or
    if a matching parameter is not a matrix.
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
    """Raise an `InputError` if `config.muon_params` matches a parameter that is not a matrix.

    `axes` maps each parameter's path to the names of its axes. A matrix has at least two axes in
    addition to "layers", the axis over which layers are stacked.
    """
    for path, _ in flatten(trained):
        matched = config.muon_params is not None and _matches(config.muon_params, path)
        if matched and sum(axis != "layers" for axis in axes[path]) < 2:
            raise _no_matrix(config.muon_params, path)


def _muon(lr_ratio: float) -> optax.GradientTransformation:
    """Return Muon for single or stacked matrices, with `lr_ratio` times Adam's learning rate."""
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
    """Return a transformation that multiplies updates, leaf by leaf, by `factors(updates)`."""

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
"""Matches the start of the paths of the encoder's stacked layers."""
EMBEDDINGS = re.compile(r"(encoder/)?(cls_token|pos_embed|patch_embed/)")
"""Matches the start of the paths of encoder parameters before the first layer."""


def _layer_decay(
    config: OptimConfig, path: str, depth: int, ndim: int
) -> float | Float[np.ndarray, "..."]:
    """Return the factor of a parameter's learning rate under layer-wise decay.

    It is `config.layer_decay` to the power of the distance, in layers, from the head. A parameter
    with `ndim` axes that is stacked over `depth` layers gets an array, with one factor per layer.
    """
    if LAYERS.match(path):
        layers_above = np.arange(depth, 0, -1).reshape(-1, *[1] * (ndim - 1))
        return (config.layer_decay**layers_above).astype(np.float32)
    return config.layer_decay ** (depth + 1) if EMBEDDINGS.match(path) else 1.0


def _matches(pattern: str, path: str) -> bool:
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise InputError(f"{pattern!r}: is no regular expression ({error}); correct it") from error
