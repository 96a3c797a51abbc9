"""The moving averages of the teacher in pre-training, and the schedules of the averages' rates."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.utils.tree import Tree


class TeacherState(NamedTuple):
    """State of the teacher, which gets no gradient."""

    teacher: Tree
    """Moving average (EMA) of the student's weights in `encoder/transformer` (blocks and final
    norm) and `class_head`, with the student's paths."""
    centre: Float[Array, "classes"]
    """Running mean of the teacher's class probabilities or logits, subtracted from its logits."""


def ema_update(
    state: TeacherState,
    params: Tree,
    batch_mean: Float[Array, "classes"],
    step: Int[Array, ""] | int,
    steps: int,
    config: SelfSupervisedConfig,
) -> TeacherState:
    """Returns the teacher's state after a training step, with its moving averages updated.

    Args:
        state: state of the teacher before the step.
        params: parameters of the student before the step.
        batch_mean: mean of the teacher's class probabilities or logits over the step's patches. If
            it is not finite, the teacher's weights do not change.
        step: number of steps done before this one.
        steps: number of steps of the run.
        config: EMA decays, and momentum of the centre.
    """
    encoder_rate, head_rate = ema_rates(config, step, steps)
    # The rates depend on batch_mean, and batch_mean on the old teacher: XLA can thus overwrite the
    # teacher in place after the teacher's last use.
    finite = jnp.isfinite(batch_mean.sum())
    rates = {
        "encoder": jnp.where(finite, encoder_rate, 0),
        "class_head": jnp.where(finite, head_rate, 0),
    }
    student = ema_params(params)
    teacher = {
        name: jax.tree.map(
            lambda old, new, rate=rate: old + rate * (new - old), state.teacher[name], student[name]
        )
        for name, rate in rates.items()
    }
    momentum = config.centre_momentum
    return TeacherState(teacher, state.centre * momentum + batch_mean * (1 - momentum))


def order_after_teacher(params: Tree, state: TeacherState) -> Tree:
    """Returns the student's parameters, unchanged but with a data dependency on the new teacher.

    Without the dependency, XLA does not know that the teacher's update reads the student's donated
    weights before they are overwritten, and copies the weights (0.36 GB at the published sizes).
    NaNs in the teacher are copied to the student.
    """

    def tie(weight: Array, teacher: Array) -> Array:
        return jnp.where(jnp.isnan(teacher), teacher, weight)

    student = ema_params(params)
    tied = jax.tree.map(tie, student, {name: state.teacher[name] for name in student})
    return {**params, **tied, "encoder": {**params["encoder"], **tied["encoder"]}}


def ema_params(params: Tree) -> Tree:
    """Returns the subtree of the student's parameters that the teacher's moving average covers."""
    return {
        "encoder": {"transformer": params["encoder"]["transformer"]},
        "class_head": params["class_head"],
    }


def mcl_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Returns the softmax temperature of the hypotheses' weights, and whether it is at its minimum.

    The temperature decays exponentially over the steps (MATPAC++, arXiv 2508.12709; published:
    `models/mcl.py`). At the minimum, only the best hypothesis counts.
    """
    # A power of 0.99997 in float32 would lose digits that the logarithm of 0.99997 keeps.
    temperature = config.mcl_temperature * jnp.exp(step * math.log(config.mcl_temperature_decay))
    end = config.mcl_temperature_end
    return jnp.maximum(temperature, end), temperature <= end


def teacher_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int
) -> Float[Array, ""]:
    """Returns the softmax temperature of the teacher's class logits at a step (linear warm-up)."""
    start, end, warmup = (
        config.teacher_temperature,
        config.teacher_temperature_end,
        config.teacher_warmup,
    )
    return start + jnp.where(step >= warmup, 1.0, step / max(warmup, 1)) * (end - start)


def ema_rates(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int, steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the EMA rates (1 - decay) of the teacher's encoder and class head at a step.

    The rates change linearly over the run. At step 0 they are 0, so that the teacher keeps its
    initial weights. From step `steps` on they are 1 - `encoder_ema_decay_end`, unless a decay is
    constant, as published (`models/model.py`, do_ema_step). float32 represents a small rate more
    precisely than a decay near 1.
    """
    progress = step / steps

    def rate(start: float, end: float) -> Float[Array, ""]:
        linear = (1 - start) + progress * (start - end)
        # After the last step, the published code keeps a decay that is constant.
        last = 1 - (config.encoder_ema_decay_end if start != end else end)
        return jnp.where(step == 0, 0.0, jnp.where(step >= steps, last, linear))

    return (
        rate(config.encoder_ema_decay, config.encoder_ema_decay_end),
        rate(config.head_ema_decay, config.head_ema_decay_end),
    )
