"""One training step: a pure function of state, frozen parameters and batch."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from tinymu_jax.training.losses import LossSum
from tinymu_jax.utils.malloc import trim_heap
from tinymu_jax.utils.tree import Tree


class TrainState(NamedTuple):
    """What changes from step to step."""

    step: Int[Array, ""]
    """Steps done."""
    params: Tree
    """Trained parameters, layers stacked."""
    opt_state: Any
    aux_state: Any = ()
    """Other state of the task: teacher, centres, running statistics."""


class StepMetrics(NamedTuple):
    """Metrics of one step."""

    loss: Float[Array, ""]
    """Mean loss over the batch's targets: answer tokens, clips or masked patches."""
    tokens: Float[Array, ""]
    """Number of targets."""
    gradient_norm: Float[Array, ""]
    aux: Mapping[str, Float[Array, ""]] = MappingProxyType({})
    """Metrics of the task, by name."""

    def by_name(self) -> dict[str, Float[Array, ""]]:
        """Returns all metrics by name."""
        metrics = self._asdict()
        return metrics | metrics.pop("aux")


class StepContext(NamedTuple):
    """What a loss may depend on besides parameters and batch."""

    step: Int[Array, ""]
    """Steps done."""
    aux_state: Any = ()
    """As in `TrainState`."""
    key: Array | None = None
    """Dropout key; None disables dropout."""


LossFn = Callable[[Tree, Tree, Any, StepContext], LossSum]
"""(trained, frozen, batch, context) -> summed loss of the batch."""

PostUpdate = Callable[[TrainState, Any, Array], tuple[TrainState, Mapping[str, Array]]]
"""(state before the step, summed aux of the loss, number of targets) -> the state with updated
`aux_state` (params unchanged), and further metrics."""


def init_state(
    params: Tree, optimizer: optax.GradientTransformation, aux_state: Any = ()
) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(jnp.int32(0), params, optimizer.init(params), aux_state)


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    grad_accum_steps: int = 1,
    seed: int | None = None,
    post_update: PostUpdate = lambda state, aux, num_targets: (state, {}),
) -> Callable[[TrainState, Tree, Any], tuple[TrainState, StepMetrics]]:
    """Returns the train step; jit it with the state donated.

    Args:
        loss_fn: loss to minimise.
        optimizer: over the trained parameters.
        grad_accum_steps: parts that a batch is computed in, one after the other. Loss sums and
            target counts add up and are divided once, so that the result does not depend on it.
        seed: of dropout; None disables dropout.
        post_update: updates `aux_state`; it sees the parameters as they were before the step.
    """

    def step(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, StepMetrics]:
        # A function of the step alone, so that a resumed run draws the same numbers.
        key = None if seed is None else jax.random.fold_in(jax.random.key(seed), state.step)
        context = StepContext(state.step, state.aux_state, key)
        loss, gradient = _loss_and_gradient(
            loss_fn, grad_accum_steps, state.params, frozen, batch, context
        )
        divisor = jnp.maximum(loss.num_targets, 1)
        gradient = jax.tree.map(lambda g: g / divisor, gradient)
        state, aux_metrics = post_update(state, loss.aux, divisor)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(
            loss.loss_sum / divisor, loss.num_targets, optax.tree.norm(gradient), aux_metrics
        )
        return TrainState(state.step + 1, params, opt_state, state.aux_state), metrics

    return step


def _loss_and_gradient(
    loss_fn: LossFn, parts: int, params: Tree, frozen: Tree, batch: Any, context: StepContext
) -> tuple[LossSum, Tree]:
    """Returns the summed loss and its gradient, computed in parts of the batch."""

    def summed(params: Tree, part: Any, context: StepContext) -> tuple:
        loss = loss_fn(params, frozen, part, context)
        return loss.loss_sum, (loss.num_targets, loss.aux)

    differentiate = jax.value_and_grad(summed, has_aux=True)

    def add(total: tuple, piece: tuple[Array, Any]) -> tuple[tuple, None]:
        number, part = piece
        key = None if context.key is None else jax.random.fold_in(context.key, number)
        value = differentiate(params, part, context._replace(key=key))
        return jax.tree.map(jnp.add, total, value), None

    def split(x: Array) -> Array:
        # Strided, so that every device computes its blocks of the batch one after the other.
        return jnp.moveaxis(jnp.asarray(x).reshape(-1, parts, *x.shape[1:]), 1, 0)

    pieces = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], pieces)
    shapes = jax.eval_shape(differentiate, params, first, context)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(parts), pieces))
    (loss_sum, (num_targets, aux)), gradient = total
    return LossSum(loss_sum, num_targets, aux), gradient


def compile_step(step: Any, state: TrainState, frozen: Tree, batch: Any) -> Callable[..., Any]:
    """Compiles a jitted step for given arguments, and returns the compiler's memory to the OS."""
    compiled = step.lower(state, frozen, batch).compile()
    sizes = compiled.memory_analysis()
    trim_heap(0 if sizes is None else sizes.temp_size_in_bytes)
    return compiled
