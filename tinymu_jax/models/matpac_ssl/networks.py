"""Networks of pre-training on top of the encoder: the predictor and the class head."""

from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.models.config import ComputeDtype, MatpacConfig, SelfSupervisedConfig
from tinymu_jax.models.layers import Dense, gelu
from tinymu_jax.models.matmul import matmul
from tinymu_jax.models.matpac import Transformer
from tinymu_jax.models.matpac_ssl.losses import normalise
from tinymu_jax.models.positions import sincos_positions


class Predictor(nn.Module):
    """From the visible patches' vectors to Y hypotheses of each masked one's."""

    config: SelfSupervisedConfig

    @nn.compact
    def __call__(
        self, visible: Float[Array, "C T E"], order: Int[Array, "C P"]
    ) -> Float[Array, "C M Y E"]:
        """Tells the masked patches.

        Args:
            visible: the student's vectors, the class token's first.
            order: of all patches, visible ones first.
        """
        config, own = self.config.encoder, self.config.predictor
        xavier, compute_dtype = nn.initializers.xavier_uniform(), config.compute_dtype
        x = Dense(own.width, compute_dtype=compute_dtype, kernel_init=xavier, name="embed")(visible)
        token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, own.width))
        table = sincos_positions(config.rows, config.columns, own.width)
        positions = self.param("pos_embed", lambda _: jnp.asarray(table))[0]
        masked = order.shape[1] - (visible.shape[1] - 1)
        tokens = jnp.broadcast_to(token, (len(x), masked, own.width))
        # Nothing depends on the order that patches stand in: each has its position.
        first = jnp.broadcast_to(positions[:1], (len(x), 1, own.width))
        places = jnp.concatenate([first, positions[1 + order]], axis=1)
        x = jnp.concatenate([x, tokens], axis=1) + places
        x = Transformer(predictor_encoder_config(self.config), name="transformer")(x, None, False)
        x = x[0, :, -masked:]
        single = Dense(config.width, compute_dtype=compute_dtype, kernel_init=xavier, name="single")
        if own.hypotheses == 1:
            return single(x)[:, :, None]
        if self.is_initializing():
            single(x)
        return Hypotheses(own.hypotheses, config.width, compute_dtype, name="heads")(x)


class Hypotheses(nn.Module):
    """Several linear layers of one input: `kernel` (Y, D, E) and `bias` (Y, E)."""

    count: int
    features: int
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(self, x: Float[Array, "C M D"]) -> Float[Array, "C M Y E"]:
        xavier = nn.initializers.xavier_uniform(in_axis=-2, out_axis=-1, batch_axis=0)
        kernel = self.param("kernel", xavier, (self.count, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.count, self.features))
        joined = kernel.transpose(1, 0, 2).reshape(x.shape[-1], -1)
        y = matmul(x, joined, self.compute_dtype)
        return y.reshape(*x.shape[:2], self.count, self.features) + bias


class ClassHead(nn.Module):
    """Three layers, a vector of length 1, and its likeness to each class's direction."""

    config: SelfSupervisedConfig
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: Float[Array, "C M E"]) -> Float[Array, "C M classes"]:
        own, compute_dtype = self.config.class_head, self.config.encoder.compute_dtype
        for name, width in (("fc1", own.hidden_width), ("fc2", own.hidden_width)):
            x = Dense(width, compute_dtype=compute_dtype, kernel_init=self.kernel_init, name=name)(
                x
            )
            x = gelu(x)
        x = Dense(
            own.bottleneck, compute_dtype=compute_dtype, kernel_init=self.kernel_init, name="fc3"
        )(x)
        return NormedDense(own.num_classes, compute_dtype, name="last")(normalise(x))


class NormedDense(nn.Module):
    """A linear layer whose columns have a `length` (1, M) and a `direction` (D, M)."""

    features: int
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(self, x: Float[Array, "C M D"]) -> Float[Array, "C M classes"]:
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        direction = self.param("direction", uniform, (x.shape[-1], self.features))
        length = self.param("length", nn.initializers.ones_init(), (1, self.features))
        norm = jnp.linalg.norm(direction, axis=0, keepdims=True)
        return matmul(x, direction * (length / norm), self.compute_dtype)


def predictor_encoder_config(config: SelfSupervisedConfig) -> MatpacConfig:
    """Returns the predictor's blocks as those of an encoder."""
    own = config.predictor
    return replace(
        config.encoder,
        width=own.width,
        depth=own.depth,
        num_heads=own.num_heads,
        mlp_ratio=own.mlp_ratio,
    )
