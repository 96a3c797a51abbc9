"""One training step: a pure function of state, frozen weights and batch."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from tinymu_jax.data.config import FeatureKind
from tinymu_jax.data.loader import Batch
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.training.encode_features import encode_features
from tinymu_jax.training.losses import LossSum, sum_loss
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.utils.malloc import trim_heap
from tinymu_jax.utils.tree import Tree


class TrainState(NamedTuple):
    """What changes from step to step."""

    step: Int[Array, ""]
    """Steps done."""
    params: Tree
    """The trained weights, stacked."""
    optimiser: Any
    """The averages of their gradients."""
    extra: Any = ()
    """What else the task takes from step to step: teachers, centres, running statistics."""


class Metrics(NamedTuple):
    """What a step tells of itself."""

    loss: Float[Array, ""]
    """Mean loss over the batch's answer tokens, its clips, or their masked patches."""
    tokens: Float[Array, ""]
    """How many those are."""
    gradient_norm: Float[Array, ""]
    others: Mapping[str, Float[Array, ""]] = MappingProxyType({})
    """What the task tells besides, by name."""

    def by_name(self) -> dict[str, Float[Array, ""]]:
        """Returns all numbers by their names."""
        own = self._asdict()
        return own | own.pop("others")


class StepContext(NamedTuple):
    """When a loss is computed, and with what that is not learnt."""

    step: Int[Array, ""]
    """Steps done."""
    extra: Any = ()
    """As in the state."""
    key: Array | None = None
    """Of dropout; None where there is none."""


def init_state(
    params: Tree, optimiser: optax.GradientTransformation, extra: Any = ()
) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(jnp.int32(0), params, optimiser.init(params), extra)


def loss_of_batch(
    params: Tree,
    frozen: Tree,
    batch: Batch,
    config: TinyMUConfig,
    store: FeatureKind,
    key: Array | None = None,
) -> LossSum:
    """Returns the summed loss of a batch's blocks; arguments as `make_step`.

    Each part of the model may be trained, frozen, or some of both.
    """
    whole = merge_trees(params, frozen)
    blocks, clips = batch.lengths.shape
    if store == "text":
        return sum_loss(whole, batch.features, batch.lengths, batch.blocks, config, key)
    vectors, count = encode_features(
        whole.get("encoder"),
        batch.features.reshape(blocks * clips, *batch.features.shape[2:]),
        batch.lengths.reshape(-1),
        store,
        config.encoder,
    )
    vectors = vectors.reshape(blocks, clips, *vectors.shape[1:])
    return sum_loss(whole, vectors, count.reshape(blocks, clips), batch.blocks, config, key)


Loss = Callable[[Tree, Tree, Any, StepContext], LossSum]
"""(trained, frozen, batch, moment) -> the batch's summed loss."""

PostUpdate = Callable[[TrainState, Any, Array], tuple[TrainState, Mapping[str, Array]]]
"""(state before the step, the batch's other sums, its count) -> that state with what is extra
after the step, its weights the same numbers; and what is told of it."""


def make_step(
    config: TinyMUConfig,
    store: FeatureKind,
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

    def loss(params: Tree, frozen: Tree, batch: Batch, at: StepContext) -> LossSum:
        return loss_of_batch(params, frozen, batch, config, store, at.key)

    return step_of(loss, optimiser, accumulate, seed)


def step_of(
    loss: Loss,
    optimiser: optax.GradientTransformation,
    accumulate: int = 1,
    seed: int | None = None,
    after: PostUpdate = lambda state, told, count: (state, {}),
) -> Callable[[TrainState, Tree, Any], tuple[TrainState, Metrics]]:
    """Returns the step; jit it with the state donated.

    Args:
        loss: what is made smaller.
        optimiser: over the trained weights.
        accumulate: parts that a batch's blocks are computed in, one after the other: less memory
            for the same loss, since sums and counts are added up and divided once.
        seed: of dropout; None leaves it out.
        after: what becomes of `extra`; it sees the weights as they were before the step.
    """

    def summed(params: Tree, frozen: Tree, batch: Any, at: StepContext) -> tuple:
        found = loss(params, frozen, batch, at)
        return found.total, (found.count, found.told)

    def step(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, Metrics]:
        # The same numbers again after a restart: they depend on the step alone.
        key = None if seed is None else jax.random.fold_in(jax.random.key(seed), state.step)
        differentiate = jax.value_and_grad(summed, has_aux=True)

        def add(total: tuple, piece: tuple[Array, Any]) -> tuple[tuple, None]:
            number, part = piece
            own = None if key is None else jax.random.fold_in(key, number)
            at = StepContext(state.step, state.extra, own)
            return jax.tree.map(jnp.add, total, differentiate(state.params, frozen, part, at)), None

        def cut(x: Array) -> Array:
            # Every device keeps its own blocks: of each it computes one after the other.
            return jnp.moveaxis(jnp.asarray(x).reshape(-1, accumulate, *x.shape[1:]), 1, 0)

        parts = jax.tree.map(cut, batch)
        at = StepContext(state.step, state.extra, key)
        one = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(differentiate, state.params, frozen, one, at)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        pieces = (jnp.arange(accumulate), parts)
        ((lost, (count, told)), gradient), _ = jax.lax.scan(add, nothing, pieces)
        real = jnp.maximum(count, 1)
        gradient = jax.tree.map(lambda g: g / real, gradient)
        state, others = after(state, told, real)
        updates, averages = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = Metrics(lost / real, count, optax.tree.norm(gradient), others)
        return TrainState(state.step + 1, params, averages, state.extra), metrics

    return step


def compile_step(step: Any, state: TrainState, frozen: Tree, batch: Any) -> Callable[..., Any]:
    """Returns a jitted step compiled for such arguments, with nothing kept of the compiler's."""
    compiled = step.lower(state, frozen, batch).compile()
    sizes = compiled.memory_analysis()
    trim_heap(0 if sizes is None else sizes.temp_size_in_bytes)
    return compiled
