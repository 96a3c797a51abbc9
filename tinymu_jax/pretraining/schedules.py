"""Numbers of pre-training that depend on the step."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.pretraining.config import SelfSupervisedConfig


def winner_temperature(
    config: SelfSupervisedConfig, step: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the temperature of the hypotheses' weights, and whether the best alone counts.

    It falls exponentially (MATPAC++, arXiv 2508.12709; `models/mcl.py`).
    """
    # The rate's logarithm keeps the digits that a power of 0.99997 in float32 would lose.
    falling = config.winner_temperature * jnp.exp(step * math.log(config.winner_decay))
    return jnp.maximum(falling, config.winner_end), falling <= config.winner_end


def teacher_temperature(config: SelfSupervisedConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """Returns the temperature of the teacher's classes: linear over its warm-up."""
    done = jnp.where(step >= config.teacher_warmup, 1.0, step / max(config.teacher_warmup, 1))
    return config.teacher_temperature + done * (
        config.teacher_temperature_end - config.teacher_temperature
    )


def teacher_rates(
    config: SelfSupervisedConfig, step: Int[Array, ""], steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns which share of the student the teacher's encoder and class head take in.

    That is 1 - decay, which float32 holds to more digits than the decay: linear over all steps,
    nothing at the first one, since the teacher begins by itself. Past the last step both take in
    1 - `encoder_decay_end`, as published (`models/model.py`, do_ema_step).
    """
    done = step / steps

    def rate(start: float, end: float) -> Float[Array, ""]:
        linear = (1 - start) + done * (start - end)
        # Where a decay does not change, the published code keeps it past the end too.
        last = 1 - (config.encoder_decay_end if start != end else end)
        return jnp.where(step == 0, 0.0, jnp.where(step >= steps, last, linear))

    return (
        rate(config.encoder_decay, config.encoder_decay_end),
        rate(config.head_decay, config.head_decay_end),
    )
