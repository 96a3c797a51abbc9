"""Computes the metrics of a pre-training step from sums over the step's masked patches."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matpac_ssl import teacher
from tinymu_jax.models.matpac_ssl.student_teacher import MetricSums

MAX_WIN_RATE = 0.98
"""If one hypothesis wins more than this fraction of patches, the others have collapsed."""
MIN_CLASS_PERPLEXITY = 2.0
"""If the teacher's mean class probabilities have a lower perplexity, the classes have collapsed."""


def feature_std(moments: Float[Array, "2 *rest"], count: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the standard deviation of features over patches, averaged over features.

    The result is near 0 if the features have collapsed (published: `compute_var`).

    Args:
        moments: sums over patches of the features (index 0) and of the squared features (1).
        count: number of patches.
    """
    total, square = moments
    variance = square / (count - 1) - jnp.square(total) / (count * (count - 1))
    return jnp.sqrt(jnp.maximum(variance, 0) + 1e-6).mean()


def step_metrics(
    sums: MetricSums,
    count: Float[Array, ""],
    step: Int[Array, ""] | int,
    steps: int,
    config: SelfSupervisedConfig,
) -> dict[str, Float[Array, ""]]:
    """Returns the metrics of a pre-training step by name.

    Args:
        sums: sums over the step's masked patches.
        count: number of the step's masked patches.
        step: number of steps done before this one.
        steps: number of steps of the run.
        config: schedules and sizes.
    """
    encoder_rate, head_rate = teacher.ema_rates(config, step, steps)
    class_probs = sums.teacher_probs[0] / count
    metrics = {
        "prediction_loss": sums.prediction_loss / count,
        "class_loss": sums.class_loss / count,
        "encoder_ema_decay": 1 - encoder_rate,
        "head_ema_decay": 1 - head_rate,
        "teacher_temperature": teacher.teacher_temperature(config, step),
        "prediction_std": feature_std(sums.predictions, count),
        "target_std": feature_std(sums.targets, count),
        "student_class_std": feature_std(sums.student_probs, count),
        "teacher_class_std": feature_std(sums.teacher_probs, count),
        "classes_used": (sums.class_counts[1] > 0).sum().astype(float),
        "class_perplexity": jnp.exp(-jnp.sum(class_probs * jnp.log(class_probs + 1e-7))),
        "class_agreement": sums.agreements / count,
    }
    if config.predictor.hypotheses > 1:
        metrics["mcl_temperature"] = teacher.mcl_temperature(config, step)[0]
        win_rates = sums.wins / count
        metrics |= {f"wins_{i}": win_rates[i] for i in range(config.predictor.hypotheses)}
    return metrics


def collapse_warning(metrics: dict[str, float]) -> str | None:
    """Returns a warning if the metrics show collapsed hypotheses or classes, else None."""
    win_rate = max((v for name, v in metrics.items() if name.startswith("wins_")), default=0.0)
    if win_rate > MAX_WIN_RATE:
        return (
            f"one hypothesis is the best of {100 * win_rate:.0f} % of the patches: the others "
            "learn nothing; raise model.mcl-temperature or model.mcl-temperature-decay"
        )
    if metrics["class_perplexity"] < MIN_CLASS_PERPLEXITY:
        return (
            f"the teacher assigns patches to {metrics['class_perplexity']:.1f} classes: they have "
            "collapsed; lower optim.learning-rate or model.teacher-temperature"
        )
    return None
