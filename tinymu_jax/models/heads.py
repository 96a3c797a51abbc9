"""Classifiers of encoder outputs: the AudioSet head and linear probes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tinymu_jax.models.config import HeadConfig
from tinymu_jax.models.layers import Dense

_LINEAR_AXES = {"head/linear/kernel": (None, "classes"), "head/linear/bias": ("classes",)}
HEAD_AXES = {
    "audioset": {
        "head/norm/mean": (None,),
        "head/norm/variance": (None,),
        "head/norm/count": (),
        **_LINEAR_AXES,
    },
    "probe": _LINEAR_AXES,
}
"""Logical axes (names for sharding) of a head's weights, by `HeadConfig.kind` and path."""
BATCH_NORM_EPS = 1e-5
"""Epsilon of the AudioSet head's BatchNorm."""


def mean_over_time(
    vectors: Float[Array, "B A E"], valid: Bool[Array, "B A"]
) -> Float[Array, "B E"]:
    """Return the mean over time of each clip's valid vectors; zeros for a clip without any."""
    count = jnp.maximum(valid.sum(1, keepdims=True), 1)
    return jnp.where(valid[..., None], vectors, 0).sum(1) / count


def mean_of_rows(
    vectors: Float[Array, "B A E"], valid: Bool[Array, "B A"], rows: int
) -> Float[Array, "B D"]:
    """Return each clip's mean patch embedding; every valid vector holds `rows` patch embeddings."""
    return mean_over_time(vectors.reshape(*vectors.shape[:2], rows, -1).mean(2), valid)


class Classifier(nn.Module):
    """Class probabilities from encoder vectors, by the AudioSet head or a linear probe.

    AudioSet's classes are ordered by the column `mid` of its label csv. An encoder vector
    concatenates `rows` patch embeddings.
    """

    config: HeadConfig
    rows: int

    @nn.compact
    def __call__(
        self, vectors: Float[Array, "B A E"], valid: Bool[Array, "B A"] | None = None
    ) -> Float[Array, "B classes"]:
        if valid is None:
            valid = jnp.ones(vectors.shape[:2], bool)
        if self.config.kind == "audioset":
            mean = FrozenBatchNorm(name="norm")(mean_of_rows(vectors, valid, self.rows))
        else:
            mean = mean_over_time(vectors, valid)
        logits = Dense(self.config.num_classes, name="linear")(mean)
        if self.config.activation == "sigmoid":
            return jax.nn.sigmoid(logits)
        return jax.nn.softmax(logits, axis=-1)


class FrozenBatchNorm(nn.Module):
    """BatchNorm with fixed running statistics, without a learned scale and offset."""

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        mean = self.param("mean", nn.initializers.zeros_init(), (x.shape[-1],))
        variance = self.param("variance", nn.initializers.ones_init(), (x.shape[-1],))
        self.param("count", lambda _: jnp.zeros((), jnp.int32))
        return (x - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPS)
