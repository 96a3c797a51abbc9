"""The optimiser: Adam with the published schedule, or Muon, by path pattern."""

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
    """Returns the learning rate of each step, counted from 0.

    It is `peak (s + 1) / W` in the first W steps and half a cosine after: step 0 already learns,
    where optax's own schedule starts at 0 (`src/utils.py`, cosine_lr). Between the two it may stay
    at its peak for a share `hold` of all steps.
    """
    rising = int(warmup * steps)
    high = rising + int(hold * steps)

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        up = (step + 1) / max(rising, 1)
        past = jnp.maximum(step - high, 0)
        down = 0.5 * (1 + jnp.cos(jnp.pi * past / max(steps - high, 1)))
        return peak * jnp.where(step < rising, up, down)

    return rate


def partition_frozen(params: Mapping[str, Any], config: OptimConfig) -> tuple[Tree, Tree]:
    """Returns the weights that are trained, and those that are not.

    Raises:
        InputError: nothing is left to train, or the pattern is no regular expression.
    """
    leaves = dict(flatten(params))
    frozen = {path for path in leaves if _matches(config.frozen_params, path)}
    if len(frozen) == len(leaves):
        raise InputError(
            f"optim.frozen-params {config.frozen_params!r} leaves nothing to train; narrow it"
        )
    trained = {path: leaf for path, leaf in leaves.items() if path not in frozen}
    return unflatten(trained), unflatten({path: leaves[path] for path in leaves if path in frozen})


def merge_trees(*trees: Mapping[str, Any]) -> Tree:
    """Puts the parts of a split tree together again."""
    return unflatten(dict(pair for tree in trees for pair in flatten(tree)))


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Returns Adam over the trained weights, `steps` steps long; Muon over those it is named for.

    optax divides by the root plus eps after the second average's correction, as torch does.
    """

    def decayed(params: Tree) -> Tree:
        return _by_path(params, lambda path: _matches(config.weight_decay_params, path))

    def factors(params: Tree) -> Tree:
        leaves = dict(flatten(params))
        depths = [len(leaf) for path, leaf in leaves.items() if LAYERS.match(path)]
        depth = depths[0] if depths else 0
        return _by_path(
            params,
            lambda path: _factor(config, path) * _of_layers(config, path, depth, leaves[path].ndim),
        )

    parts = []
    if config.max_grad_norm is not None:
        parts.append(optax.clip_by_global_norm(config.max_grad_norm))
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    if config.muon_params is None:
        parts.append(adam)
    else:
        pattern, share = config.muon_params, config.muon_learning_rate / config.learning_rate
        parts.append(optax.masked(_muon(share), lambda p: _chosen(p, pattern, True)))
        parts.append(optax.masked(adam, lambda p: _chosen(p, pattern, False)))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, decayed))
    if config.lr_multipliers or config.layer_decay != 1:
        parts.append(_scale_by_path(factors))
    schedule = published_schedule(
        config.learning_rate, steps, config.warmup_fraction, config.hold_fraction
    )
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _chosen(params: Tree, pattern: str, wanted: bool) -> Tree:
    """Returns which weights are matrices that a pattern names, or which are not.

    Raises:
        InputError: it names something that is no matrix.
    """
    chosen = _by_path(params, lambda path: _matches(pattern, path))
    for (path, leaf), (_, named) in zip(flatten(params), flatten(chosen), strict=True):
        if named and getattr(leaf, "ndim", 2) < 2:
            raise InputError(
                f"optim.muon-params {pattern!r} names {path}, which is no matrix; narrow it"
            )
    if not any(named for _, named in flatten(chosen)):
        raise InputError(f"optim.muon-params {pattern!r} names no trained weight; correct it")
    return jax.tree.map(lambda named: named == wanted, chosen)


def check_muon(
    config: OptimConfig, trained: Tree, axes: Mapping[str, tuple[str | None, ...]]
) -> None:
    """Refuses Muon for what is stacked in memory only: vectors, one for each layer.

    Raises:
        InputError: the pattern names some.
    """
    for path, _ in flatten(trained):
        named = config.muon_params is not None and _matches(config.muon_params, path)
        if named and sum(axis != "layers" for axis in axes[path]) < 2:
            raise InputError(
                f"optim.muon-params {config.muon_params!r} names {path}, which is no matrix; narrow it"
            )


def _muon(share: float) -> optax.GradientTransformation:
    """Orthogonalises each matrix of a stack, for `share` times the other weights' rate."""
    from optax.contrib import MuonDimensionNumbers, scale_by_muon

    def last_two(updates: Tree) -> Tree:
        return jax.tree.map(lambda x: MuonDimensionNumbers(x.ndim - 2, x.ndim - 1), updates)

    def scale(x: Array) -> Array:
        into, out = x.shape[-2:]
        return x * (share * max(1.0, out / into) ** 0.5)

    return optax.chain(
        scale_by_muon(weight_dimension_numbers=last_two),
        optax.stateless(lambda updates, params: jax.tree.map(scale, updates)),
    )


def _scale_by_path(factors: Callable[[Tree], Tree]) -> optax.GradientTransformation:
    """Multiplies each weight's update by a factor of its own."""

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        scale = dict(flatten(factors(updates)))
        scaled = {path: leaf * scale[path] for path, leaf in flatten(updates)}
        return unflatten(scaled), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _by_path(params: Tree, value: Callable[[str], Any]) -> Tree:
    return unflatten({path: value(path) for path, _ in flatten(params)})


def _factor(config: OptimConfig, path: str) -> float:
    return next((f for pattern, f in config.lr_multipliers.items() if _matches(pattern, path)), 1.0)


LAYERS = re.compile(r"(encoder/)?transformer/blocks/")
"""Stacks of the encoder's layers."""

BELOW = re.compile(r"(encoder/)?(cls_token|pos_embed|patch_embed/)")


def _of_layers(
    config: OptimConfig, path: str, depth: int, axes: int
) -> float | Float[np.ndarray, "..."]:
    """Returns a weight's factor by its layer, or those of a stack, along its first axis."""
    if LAYERS.match(path):
        up = np.arange(depth, 0, -1).reshape(-1, *[1] * (axes - 1))
        return (config.layer_decay**up).astype(np.float32)
    return config.layer_decay ** (depth + 1) if BELOW.match(path) else 1.0


def _matches(pattern: str, path: str) -> bool:
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise InputError(f"{pattern!r}: is no regular expression ({error}); correct it") from error
