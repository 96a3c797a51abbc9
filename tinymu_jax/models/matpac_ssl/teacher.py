"""The teacher's moving averages in pre-training, and the schedules of rates and temperatures."""

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
    """Moving averages (EMA) of the student's subtrees `encoder/transformer` and `class_head`."""
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
    """Return the teacher's state after a training step, with updated moving averages.

    `state` and the student's `params` are from before the step. `step` is the number of steps done
    before, `steps` that of the whole run. `batch_mean` is the mean over the step's patches of the
    teacher's class probabilities or logits; if it is not finite, the teacher's weights do not
    change.
    """
    encoder_rate, head_rate = ema_rates(config, step, steps)
    # Through batch_mean, the rates depend on the old teacher: XLA can overwrite it in place.
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
    """Return the student's parameters unchanged, with a data dependency on the new teacher.

    The update of the teacher reads the student's donated weights. Without the dependency, XLA would
    copy them first (0.36 GB at the published sizes). NaNs in the teacher spread to the student.
    """

    def tie(weight: Array, teacher: Array) -> Array:
        return jnp.where(jnp.isnan(teacher), teacher, weight)

    student = ema_params(params)
    tied = jax.tree.map(tie, student, {name: state.teacher[name] for name in student})
    return {**params, **tied, "encoder": {**params["encoder"], **tied["encoder"]}}


def ema_params(params: Tree) -> Tree:
    """Return the subtree of the student's parameters that the teacher's moving average covers."""
    return {
        "encoder": {"transformer": params["encoder"]["transformer"]},
        "class_head": params["class_head"],
    }


def mcl_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Return the `temperature` for `mcl_loss`, and whether it has reached its minimum.

    It decays exponentially over the steps (MATPAC++; published: `models/mcl.py`). At the minimum,
    only a patch's best prediction counts.
    """
    # A power of 0.99997 in float32 would lose digits that the logarithm of 0.99997 keeps.
    temperature = config.mcl_temperature * jnp.exp(step * math.log(config.mcl_temperature_decay))
    end = config.mcl_temperature_end
    return jnp.maximum(temperature, end), temperature <= end


def teacher_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int
) -> Float[Array, ""]:
    """Return the softmax temperature of the teacher's class logits (linear warm-up over steps)."""
    start, end, warmup = (
        config.teacher_temperature,
        config.teacher_temperature_end,
        config.teacher_warmup,
    )
    return start + jnp.where(step >= warmup, 1.0, step / max(warmup, 1)) * (end - start)


def ema_rates(
    config: SelfSupervisedConfig, step: Int[Array, ""] | int, steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the EMA rates (1 - decay) of the teacher's encoder and class head at a step.

    Each rate changes linearly over the run's `steps`, but is 0 at step 0, so that the teacher keeps
    its initial weights. After the run, both are 1 - `encoder_ema_decay_end`, except that a constant
    decay stays constant, as published (`models/model.py`, do_ema_step).
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
