"""The teacher: a moving average of the student, and the centre of its class logits."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.utils.tree import Tree


class TeacherState(NamedTuple):
    """State of the teacher; it gets no gradient."""

    teacher: Tree
    """EMA of the student's weights, under the same paths: `encoder/transformer` (blocks and final
    norm) and `class_head`."""
    centre: Float[Array, "classes"]
    """Running mean of the teacher's class probabilities or logits."""


def ema_update(
    state: TeacherState,
    params: Tree,
    batch_mean: Float[Array, "classes"],
    step: Int[Array, ""] | int,
    steps: int,
    config: SelfSupervisedConfig,
) -> TeacherState:
    """Returns the teacher's state after a step.

    Args:
        state: the state before the step.
        params: the student's parameters before its update.
        batch_mean: mean over the step's patches of the teacher's class probabilities or logits.
        step: steps done before this one.
        steps: steps of the run.
        config: EMA decays and momentum.
    """
    encoder_rate, head_rate = ema_rates(config, step, steps)
    # The rates depend on batch_mean, hence on the old teacher: XLA then overwrites the teacher in
    # place, after its last use.
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
    """Makes the student's parameters depend on the updated teacher; their values do not change.

    Without this dependency XLA cannot see that the teacher reads the student's donated weights
    before they are overwritten, and copies them (0.36 GB at the published sizes). Only a NaN in
    the teacher propagates to the student.
    """

    def tie(weight: Array, teacher: Array) -> Array:
        return jnp.where(jnp.isnan(teacher), teacher, weight)

    student = ema_params(params)
    tied = jax.tree.map(tie, student, {name: state.teacher[name] for name in student})
    return {**params, **tied, "encoder": {**params["encoder"], **tied["encoder"]}}


def ema_params(params: Tree) -> Tree:
    """Returns the student's parameters that the teacher averages, by their paths."""
    return {
        "encoder": {"transformer": params["encoder"]["transformer"]},
        "class_head": params["class_head"],
    }


def mcl_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Returns the temperature of multiple choice learning, and whether only the best counts.

    It decays exponentially (MATPAC++, arXiv 2508.12709; published: `models/mcl.py`).
    """
    # In float32 a power of 0.99997 would lose digits that its logarithm keeps.
    temperature = config.mcl_temperature * jnp.exp(step * math.log(config.mcl_temperature_decay))
    end = config.mcl_temperature_end
    return jnp.maximum(temperature, end), temperature <= end


def teacher_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int
) -> Float[Array, ""]:
    """Returns the temperature of the teacher's classes, linear during its warm-up."""
    start, end, warmup = (
        config.teacher_temperature,
        config.teacher_temperature_end,
        config.teacher_warmup,
    )
    return start + jnp.where(step >= warmup, 1.0, step / max(warmup, 1)) * (end - start)


def ema_rates(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int, steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the EMA rates (1 - decay) of the teacher's encoder and class head.

    Decays are linear over the run. The rate is 0 at step 0, where the teacher has its own initial
    weights, and beyond the last step it is 1 - `encoder_ema_decay_end` for both, as published
    (`models/model.py`, do_ema_step). float32 holds a rate to more digits than a decay near 1.
    """
    progress = step / steps

    def rate(start: float, end: float) -> Float[Array, ""]:
        linear = (1 - start) + progress * (start - end)
        # The published code keeps a constant decay beyond the last step.
        last = 1 - (config.encoder_ema_decay_end if start != end else end)
        return jnp.where(step == 0, 0.0, jnp.where(step >= steps, last, linear))

    return (
        rate(config.encoder_ema_decay, config.encoder_ema_decay_end),
        rate(config.head_ema_decay, config.head_ema_decay_end),
    )
