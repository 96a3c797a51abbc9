"""What teaches: two moving averages of the student, and the centre of the teacher's classes."""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

from tinymu_jax.pretraining import schedules
from tinymu_jax.pretraining.config import SelfSupervisedConfig
from tinymu_jax.sharding import Tree


class Teaching(NamedTuple):
    """Changes from step to step, and is not trained."""

    encoder: Tree
    """The teacher's blocks and final norm."""
    class_head: Tree
    """Its class head."""
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
    encoder, head = schedules.teacher_rates(config, step, steps)
    momentum = config.centre_momentum
    return Teaching(
        _towards(teaching.encoder, params["encoder"]["transformer"], encoder),
        _towards(teaching.class_head, params["class_head"], head),
        teaching.centre * momentum + told * (1 - momentum),
    )


def _towards(teacher: Any, student: Any, rate: Float[Array, ""]) -> Any:
    return jax.tree.map(lambda a, b: a + rate * (b - a), teacher, student)
