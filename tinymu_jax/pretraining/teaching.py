"""What teaches: two moving averages of the student, and the centre of the teacher's classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.pretraining import schedules
from tinymu_jax.pretraining.config import SelfSupervisedConfig
from tinymu_jax.sharding import Tree


class Teaching(NamedTuple):
    """Changes from step to step, and is not trained."""

    teacher: Tree
    """What follows the student, by the same paths: `encoder/transformer` (blocks and final norm)
    and `class_head`."""
    centre: Float[Array, "classes"]
    """Running mean of what it makes of patches."""


def follow(
    teaching: Teaching,
    params: Tree,
    told: Float[Array, "classes"],
    step: Int[Array, ""],
    steps: int,
    config: SelfSupervisedConfig,
) -> Teaching:
    """Returns what teaches after a step.

    Args:
        teaching: before it.
        params: of the student, before its update.
        told: mean over the step's patches of the teacher's probabilities or logits.
        step: steps done before.
        steps: of the whole run.
        config: with the shares that are kept.
    """
    encoder, class_head = schedules.teacher_rates(config, step, steps)
    # What is told depends on the teacher: it is not overwritten, nor copied, before it was read.
    sound = jnp.isfinite(told.sum())
    rates = {"encoder": jnp.where(sound, encoder, 0), "class_head": jnp.where(sound, class_head, 0)}
    student = followed(params)
    teacher = {
        name: jax.tree.map(
            lambda a, b, rate=rate: a + rate * (b - a), teaching.teacher[name], student[name]
        )
        for name, rate in rates.items()
    }
    kept = config.centre_momentum
    return Teaching(teacher, teaching.centre * kept + told * (1 - kept))


def follow_first(params: Tree, teaching: Teaching) -> Tree:
    """Returns the student's weights, to be updated once the teacher has followed them.

    Where a state's memory is given away, XLA copies every weight that is both read and overwritten
    in no order that it can see: 0.36 GB of the published sizes. A weight whose teacher is no number
    becomes none, which makes that order seen; all others are what they were.
    """

    def later(weight: Array, teacher: Array) -> Array:
        return jnp.where(jnp.isnan(teacher), teacher, weight)

    own = followed(params)
    tied = jax.tree.map(later, own, {name: teaching.teacher[name] for name in own})
    return {**params, **tied, "encoder": {**params["encoder"], **tied["encoder"]}}


def followed(params: Tree) -> Tree:
    """Returns the student's weights that the teacher follows, by their paths."""
    return {
        "encoder": {"transformer": params["encoder"]["transformer"]},
        "class_head": params["class_head"],
    }
