"""The training step: a pure function of training state, frozen parameters and batch."""

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

FIRST_LOSS_SCALE = 2.0**10
"""Loss scale of the first step; the loss is a sum over hundreds of targets, not their mean."""
LOWEST_LOSS_SCALE = 2.0**-10
"""Loss scale below which a run fails instead of skipping further steps."""
GROWTH_INTERVAL = 2000
"""Number of steps without an overflow after which the loss scale is doubled."""


class LossScale(NamedTuple):
    """Dynamic loss scaling for float16 (Micikevicius et al., arXiv 1710.03740, section 3.2).

    Small gradients of activations would be 0 in float16, so the loss is multiplied by a number that
    is as large as the gradients allow.
    """

    scale: Float[Array, ""]
    """Factor of the summed loss."""
    good_steps: Int[Array, ""]
    """Number of steps since the scale changed last."""
    skipped_steps: Int[Array, ""]
    """Number of steps whose gradients overflowed; they change no parameter."""


class TrainState(NamedTuple):
    """Everything that a training step updates."""

    step: Int[Array, ""]
    """Number of steps done."""
    params: Tree
    """Trained parameters; parameters of equal layers are stacked."""
    opt_state: Any
    aux_state: Any = ()
    """State updated without gradients: pre-training's teacher, or BatchNorm statistics."""
    loss_scale: LossScale | tuple[()] = ()
    """State of the loss scaling; () without it."""


class StepMetrics(NamedTuple):
    """Metrics of one training step."""

    loss: Float[Array, ""]
    """Mean loss per target: answer token, clip or masked patch."""
    tokens: Float[Array, ""]
    """Number of targets (answer tokens, clips or masked patches) in the batch."""
    gradient_norm: Float[Array, ""]
    aux: Mapping[str, Float[Array, ""]] = MappingProxyType({})
    """Further metrics that the task defines, by name."""

    def by_name(self) -> dict[str, Float[Array, ""]]:
        """Return all metrics by name, including the metrics in `aux`."""
        metrics = self._asdict()
        return metrics | metrics.pop("aux")


class StepContext(NamedTuple):
    """Inputs of a loss function in addition to parameters and batch."""

    step: Int[Array, ""]
    """Number of steps done."""
    aux_state: Any = ()
    """The `aux_state` of `TrainState`."""
    key: Array | None = None
    """Random key of dropout; None: no dropout."""


LossFn = Callable[[Tree, Tree, Any, StepContext], LossSum]
"""(trained parameters, frozen parameters, batch, context) -> loss summed over the batch."""
PostUpdate = Callable[[TrainState, Any, Array], tuple[TrainState, Mapping[str, Array]]]
"""(state before the step, `LossSum.aux` of the batch, number of targets) -> (the state with updated
`aux_state`, further metrics by name)."""


def init_state(
    params: Tree,
    optimizer: optax.GradientTransformation,
    aux_state: Any = (),
    loss_scaling: bool = False,
) -> TrainState:
    """Return the training state before the first step, from the trained parameters `params`."""
    zero = jnp.int32(0)
    scale = LossScale(jnp.float32(FIRST_LOSS_SCALE), zero, zero) if loss_scaling else ()
    return TrainState(zero, params, optimizer.init(params), aux_state, scale)


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    grad_accum_steps: int = 1,
    seed: int | None = None,
    post_update: PostUpdate = lambda state, aux, num_targets: (state, {}),
) -> Callable[[TrainState, Tree, Any], tuple[TrainState, StepMetrics]]:
    """Return a function (state, frozen parameters, batch) -> (next state, metrics) to be jitted.

    Args:
        loss_fn: loss to minimize.
        optimizer: optimizer of the trained parameters.
        grad_accum_steps: number of parts into which a batch is split; does not change the result.
        seed: seed of dropout; None: no dropout.
        post_update: function that updates `aux_state`; it gets the state from before the step.
    """

    def step(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, StepMetrics]:
        # The key depends only on seed and step, so that a resumed run draws the same dropout.
        key = None if seed is None else jax.random.fold_in(jax.random.key(seed), state.step)
        context = StepContext(state.step, state.aux_state, key)
        scale = state.loss_scale.scale if state.loss_scale else None
        loss, gradient = _loss_and_gradient(
            loss_fn, grad_accum_steps, state.params, frozen, batch, context, scale
        )
        targets = jnp.maximum(loss.num_targets, 1)
        divisor = targets if scale is None else targets * scale
        gradient = jax.tree.map(lambda g: g / divisor, gradient)
        updated, aux_metrics = post_update(state, loss.aux, targets)
        updates, opt_state = optimizer.update(gradient, state.opt_state, updated.params)
        params = optax.apply_updates(updated.params, updates)
        norm = optax.tree.norm(gradient)
        updated = updated._replace(step=state.step + 1, params=params, opt_state=opt_state)
        if state.loss_scale:
            updated, norm = _skip_overflow(state, updated, norm)
            aux_metrics = {
                **aux_metrics,
                "loss_scale": updated.loss_scale.scale,
                "skipped_steps": updated.loss_scale.skipped_steps,
            }
        return updated, StepMetrics(loss.loss_sum / targets, loss.num_targets, norm, aux_metrics)

    return step


def _skip_overflow(
    before: TrainState, updated: TrainState, norm: Array
) -> tuple[TrainState, Float[Array, ""]]:
    """Undo a step whose gradient norm is not finite, and adapt the loss scale.

    Returns the state after the step, and the norm, which is 0 for a step that was undone; where no
    lower scale is left, it is the norm that is not finite, with which the run fails.
    """
    old, finite = before.loss_scale, jnp.isfinite(norm)
    good_steps = jnp.where(finite, old.good_steps + 1, 0)
    grows = good_steps == GROWTH_INTERVAL
    scale = old.scale * jnp.where(grows, 2.0, jnp.where(finite, 1.0, 0.5))
    scale = jnp.maximum(scale, LOWEST_LOSS_SCALE)
    loss_scale = LossScale(scale, jnp.where(grows, 0, good_steps), old.skipped_steps + ~finite)
    remaining = before._replace(step=updated.step)
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, remaining)
    hidden = ~finite & (old.scale > LOWEST_LOSS_SCALE)
    return state._replace(loss_scale=loss_scale), jnp.where(hidden, 0, norm)


def _loss_and_gradient(
    loss_fn: LossFn,
    parts: int,
    params: Tree,
    frozen: Tree,
    batch: Any,
    context: StepContext,
    scale: Array | None,
) -> tuple[LossSum, Tree]:
    """Return a batch's summed loss and its gradient, added up over `parts` parts of the batch.

    The gradient, but not the loss, is multiplied by the loss scale `scale`.
    """

    def summed(params: Tree, part: Any, context: StepContext) -> tuple:
        loss = loss_fn(params, frozen, part, context)
        scaled = loss.loss_sum if scale is None else loss.loss_sum * scale
        return scaled, loss

    differentiate = jax.value_and_grad(summed, has_aux=True)

    def part_of(number: Array | int, part: Any) -> tuple:
        key = None if context.key is None else jax.random.fold_in(context.key, number)
        return differentiate(params, part, context._replace(key=key))

    if parts == 1:
        (_, loss), gradient = part_of(0, batch)
        return loss, gradient

    def add(total: tuple, piece: tuple[Array, Any]) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, total, part_of(*piece)), None

    def split(x: Array) -> Array:
        # Part i has the blocks i, i + parts, ..., so that every device has blocks in every part.
        return jnp.moveaxis(jnp.asarray(x).reshape(-1, parts, *x.shape[1:]), 1, 0)

    pieces = jax.tree.map(split, batch)
    first = jax.tree.map(lambda x: x[0], pieces)
    # A gradient has its parameter's shape, so only the loss is traced once more.
    shapes = jax.eval_shape(summed, params, first, context), params
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(parts), pieces))
    (_, loss), gradient = total
    return loss, gradient


def compile_step(step: Any, state: TrainState, frozen: Tree, batch: Any) -> Callable[..., Any]:
    """Compile the jitted `step` for these arguments, then return free host memory to the OS."""
    compiled = step.lower(state, frozen, batch).compile()
    sizes = compiled.memory_analysis()
    trim_heap(0 if sizes is None else sizes.temp_size_in_bytes)
    return compiled
