"""What teaches: two moving averages of the student, and the centre of the teacher's classes."""

from typing import NamedTuple

import jax
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
    rates = {"encoder": encoder, "class_head": class_head}
    student = followed(params)
    teacher = {
        name: jax.tree.map(
            lambda a, b, rate=rate: a + rate * (b - a), teaching.teacher[name], student[name]
        )
        for name, rate in rates.items()
    }
    kept = config.centre_momentum
    return Teaching(teacher, teaching.centre * kept + told * (1 - kept))


def followed(params: Tree) -> Tree:
    """Returns the student's weights that the teacher follows, by their paths."""
    return {
        "encoder": {"transformer": params["encoder"]["transformer"]},
        "class_head": params["class_head"],
    }
