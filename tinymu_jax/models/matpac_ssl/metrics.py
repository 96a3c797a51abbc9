"""Metrics of a pre-training step, computed from sums over the masked patches of the step."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matpac_ssl import teacher
from tinymu_jax.models.matpac_ssl.student_teacher import MetricSums

MAX_WIN_RATE = 0.98
"""If one of a patch's predictions is best for more than this fraction, the others have
collapsed."""
MIN_CLASS_PERPLEXITY = 2.0
"""If the teacher's mean class probabilities have a lower perplexity, the classes have collapsed."""


def feature_std(moments: Float[Array, "2 *rest"], count: Float[Array, ""]) -> Float[Array, ""]:
    """Return the standard deviation over patches, averaged over features.

    `moments` holds two sums over `count` patches: of the features, and of their squares. A result
    near 0 means that the features have collapsed. The published code calls this `compute_var`.
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
    """Return the metrics of a pre-training step by name.

    `sums` are sums over the `count` masked patches of the step. `step` is the number of steps done
    before, `steps` that of the whole run.
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
    """Return a warning if the metrics show that predictions or classes have collapsed, or None."""
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
