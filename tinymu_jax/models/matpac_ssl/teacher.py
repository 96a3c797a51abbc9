"""What teaches: two moving averages of the student, and the centre of the teacher's classes."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.utils.tree import Tree


class TeacherState(NamedTuple):
    """Changes from step to step, and is not trained."""

    teacher: Tree
    """What follows the student, by the same paths: `encoder/transformer` (blocks and final norm)
    and `class_head`."""
    centre: Float[Array, "classes"]
    """Running mean of what it makes of patches."""


def ema_update(
    teaching: TeacherState,
    params: Tree,
    told: Float[Array, "classes"],
    step: Int[Array, ""],
    steps: int,
    config: SelfSupervisedConfig,
) -> TeacherState:
    """Returns what teaches after a step.

    Args:
        teaching: before it.
        params: of the student, before its update.
        told: mean over the step's patches of the teacher's probabilities or logits.
        step: steps done before.
        steps: of the whole run.
        config: with the shares that are kept.
    """
    encoder, class_head = ema_rates(config, step, steps)
    # What is told depends on the teacher: it is not overwritten, nor copied, before it was read.
    sound = jnp.isfinite(told.sum())
    rates = {"encoder": jnp.where(sound, encoder, 0), "class_head": jnp.where(sound, class_head, 0)}
    student = ema_params(params)
    teacher = {
        name: jax.tree.map(
            lambda a, b, rate=rate: a + rate * (b - a), teaching.teacher[name], student[name]
        )
        for name, rate in rates.items()
    }
    kept = config.centre_momentum
    return TeacherState(teacher, teaching.centre * kept + told * (1 - kept))


def order_after_teacher(params: Tree, teaching: TeacherState) -> Tree:
    """Returns the student's weights, to be updated once the teacher has followed them.

    Where a state's memory is given away, XLA copies every weight that is both read and overwritten
    in no order that it can see: 0.36 GB of the published sizes. A weight whose teacher is no number
    becomes none, which makes that order seen; all others are what they were.
    """

    def later(weight: Array, teacher: Array) -> Array:
        return jnp.where(jnp.isnan(teacher), teacher, weight)

    own = ema_params(params)
    tied = jax.tree.map(later, own, {name: teaching.teacher[name] for name in own})
    return {**params, **tied, "encoder": {**params["encoder"], **tied["encoder"]}}


def ema_params(params: Tree) -> Tree:
    """Returns the student's weights that the teacher follows, by their paths."""
    return {
        "encoder": {"transformer": params["encoder"]["transformer"]},
        "class_head": params["class_head"],
    }


def mcl_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""]
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Returns the temperature of the hypotheses' weights, and whether the best alone counts.

    It falls exponentially (MATPAC++, arXiv 2508.12709; `models/mcl.py`).
    """
    # The rate's logarithm keeps the digits that a power of 0.99997 in float32 would lose.
    falling = config.mcl_temperature * jnp.exp(step * math.log(config.mcl_temperature_decay))
    return jnp.maximum(falling, config.mcl_temperature_end), falling <= config.mcl_temperature_end


def teacher_temperature(config: SelfSupervisedConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """Returns the temperature of the teacher's classes: linear over its warm-up."""
    done = jnp.where(step >= config.teacher_warmup, 1.0, step / max(config.teacher_warmup, 1))
    return config.teacher_temperature + done * (
        config.teacher_temperature_end - config.teacher_temperature
    )


def ema_rates(
    config: SelfSupervisedConfig, step: Int[Array, ""], steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns which share of the student the teacher's encoder and class head take in.

    That is 1 - decay, which float32 holds to more digits than the decay: linear over all steps,
    nothing at the first one, since the teacher begins by itself. Past the last step both take in
    1 - `encoder_ema_decay_end`, as published (`models/model.py`, do_ema_step).
    """
    done = step / steps

    def rate(start: float, end: float) -> Float[Array, ""]:
        linear = (1 - start) + done * (start - end)
        # Where a decay does not change, the published code keeps it past the end too.
        last = 1 - (config.encoder_ema_decay_end if start != end else end)
        return jnp.where(step == 0, 0.0, jnp.where(step >= steps, last, linear))

    return (
        rate(config.encoder_ema_decay, config.encoder_ema_decay_end),
        rate(config.head_ema_decay, config.head_ema_decay_end),
    )
