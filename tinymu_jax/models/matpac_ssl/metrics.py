"""What a step of pre-training tells of itself, from sums over its masked patches."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matpac_ssl import teacher
from tinymu_jax.models.matpac_ssl.student_teacher import MetricSums

ONE_WINS, FEW_CLASSES = 0.98, 2.0
"""Share of wins of one hypothesis, and perplexity of the classes, that something is wrong at."""


def feature_std(moments: Float[Array, "2 *rest"], count: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the standard deviation over patches, a mean over all numbers of a patch.

    It is near 0 where all patches are told alike (published: `compute_var`).
    """
    total, square = moments
    variance = square / (count - 1) - jnp.square(total) / (count * (count - 1))
    return jnp.sqrt(jnp.maximum(variance, 0) + 1e-6).mean()


def step_metrics(
    sums: MetricSums,
    count: Float[Array, ""],
    step: Int[Array, ""],
    steps: int,
    config: SelfSupervisedConfig,
) -> dict[str, Float[Array, ""]]:
    """Returns numbers by their names.

    Args:
        sums: of the step.
        count: of its masked patches.
        step: steps done before.
        steps: of the run.
        config: of all.
    """
    encoder, head = teacher.ema_rates(config, step, steps)
    share = sums.teacher[0] / count
    numbers = {
        "prediction_loss": sums.prediction / count,
        "class_loss": sums.classes / count,
        "encoder_ema_decay": 1 - encoder,
        "head_ema_decay": 1 - head,
        "teacher_temperature": teacher.teacher_temperature(config, step),
        "prediction_std": feature_std(sums.hypotheses, count),
        "target_std": feature_std(sums.targets, count),
        "student_class_std": feature_std(sums.student, count),
        "teacher_class_std": feature_std(sums.teacher, count),
        "classes_used": (sums.chosen[1] > 0).sum().astype(float),
        "class_perplexity": jnp.exp(-jnp.sum(share * jnp.log(share + 1e-7))),
        "class_agreement": sums.agreed / count,
    }
    if config.predictor.hypotheses > 1:
        numbers["mcl_temperature"] = teacher.mcl_temperature(config, step)[0]
        wins = sums.wins / count
        numbers |= {f"wins_{head}": wins[head] for head in range(config.predictor.hypotheses)}
    return numbers


def collapse_warning(numbers: dict[str, float]) -> str | None:
    """Returns what is wrong by the numbers of a step, if anything is."""
    wins = [share for name, share in numbers.items() if name.startswith("wins_")]
    if wins and max(wins) > ONE_WINS:
        return (
            f"one hypothesis is the best of {100 * max(wins):.0f} % of the patches: the others "
            "learn nothing; raise model.mcl-temperature, or let it fall more slowly "
            "(model.mcl-temperature-decay)"
        )
    if numbers["class_perplexity"] < FEW_CLASSES:
        return (
            f"the teacher sorts patches into {numbers['class_perplexity']:.1f} classes: they have "
            "collapsed; lower optim.learning-rate, or model.teacher-temperature"
        )
    return None
