"""One training step: a pure function of state, frozen weights and batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from tinymu_jax.config import TinyMUConfig
from tinymu_jax.data.config import Store
from tinymu_jax.data.loader import Batch
from tinymu_jax.sharding import Tree
from tinymu_jax.training.hearing import hear_clips
from tinymu_jax.training.losses import LossSum, sum_loss
from tinymu_jax.training.optim import join


class TrainState(NamedTuple):
    """What changes from step to step."""

    step: Int[Array, ""]
    """Steps done."""
    params: Tree
    """The trained weights, stacked."""
    optimiser: Any
    """The averages of their gradients."""


class Metrics(NamedTuple):
    """What a step tells of itself."""

    loss: Float[Array, ""]
    """Mean cross-entropy over the batch's answer tokens, or its clips."""
    tokens: Float[Array, ""]
    """How many those are."""
    gradient_norm: Float[Array, ""]


def init_state(params: Tree, optimiser: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(jnp.int32(0), params, optimiser.init(params))


def loss_of_batch(
    params: Tree,
    frozen: Tree,
    batch: Batch,
    config: TinyMUConfig,
    store: Store,
    key: Array | None = None,
) -> LossSum:
    """Returns the summed loss of a batch's blocks; arguments as `make_step`.

    Each part of the model may be trained, frozen, or some of both.
    """
    whole = join(params, frozen)
    blocks, clips = batch.lengths.shape
    if store == "text":
        return sum_loss(whole, batch.features, batch.lengths, batch.blocks, config, key)
    vectors, count = hear_clips(
        whole.get("encoder"),
        batch.features.reshape(blocks * clips, *batch.features.shape[2:]),
        batch.lengths.reshape(-1),
        store,
        config.encoder,
    )
    vectors = vectors.reshape(blocks, clips, *vectors.shape[1:])
    return sum_loss(whole, vectors, count.reshape(blocks, clips), batch.blocks, config, key)


Loss = Callable[[Tree, Tree, Any, Array | None], LossSum]
"""(trained, frozen, batch, key of dropout) -> the batch's summed loss."""


def make_step(
    config: TinyMUConfig,
    store: Store,
    optimiser: optax.GradientTransformation,
    accumulate: int = 1,
    seed: int | None = None,
) -> Callable[[TrainState, Tree, Batch], tuple[TrainState, Metrics]]:
    """Returns the step that learns answers; arguments as `step_of`, and the model's config.

    Args:
        config: of the model.
        store: what the data set holds of each clip.
        optimiser: over the trained weights.
        accumulate: parts of a step.
        seed: of dropout.
    """

    def loss(params: Tree, frozen: Tree, batch: Batch, key: Array | None) -> LossSum:
        return loss_of_batch(params, frozen, batch, config, store, key)

    return step_of(loss, optimiser, accumulate, seed)


def step_of(
    loss: Loss,
    optimiser: optax.GradientTransformation,
    accumulate: int = 1,
    seed: int | None = None,
) -> Callable[[TrainState, Tree, Any], tuple[TrainState, Metrics]]:
    """Returns the step; jit it with the state donated.

    Args:
        loss: what is made smaller.
        optimiser: over the trained weights.
        accumulate: parts that a batch's blocks are computed in, one after the other: less memory
            for the same loss, since sums and counts are added up and divided once.
        seed: of dropout; None leaves it out.
    """

    def summed(params: Tree, frozen: Tree, batch: Any, key: Array | None) -> tuple:
        found = loss(params, frozen, batch, key)
        return found.total, found.count

    def step(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, Metrics]:
        # The same numbers again after a restart: they depend on the step alone.
        key = None if seed is None else jax.random.fold_in(jax.random.key(seed), state.step)
        differentiate = jax.value_and_grad(summed, has_aux=True)

        def add(total: tuple, piece: tuple[Array, Any]) -> tuple[tuple, None]:
            number, part = piece
            own = None if key is None else jax.random.fold_in(key, number)
            (lost, count), gradient = differentiate(state.params, frozen, part, own)
            return jax.tree.map(jnp.add, total, (lost, count, gradient)), None

        def cut(x: Array) -> Array:
            # Every device keeps its own blocks: of each it computes one after the other.
            return jnp.moveaxis(jnp.asarray(x).reshape(-1, accumulate, *x.shape[1:]), 1, 0)

        parts = jax.tree.map(cut, batch)
        nothing = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, state.params))
        pieces = (jnp.arange(accumulate), parts)
        (lost, count, gradient), _ = jax.lax.scan(add, nothing, pieces)
        real = jnp.maximum(count, 1)
        gradient = jax.tree.map(lambda g: g / real, gradient)
        updates, averages = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = Metrics(lost / real, count, optax.tree.norm(gradient))
        return TrainState(state.step + 1, params, averages), metrics

    return step
