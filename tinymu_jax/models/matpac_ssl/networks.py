"""Pre-training networks on top of the encoder: the predictor and the class head."""

from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.models.config import ComputeDtype, MatpacConfig, SelfSupervisedConfig
from tinymu_jax.models.layers import Dense, gelu
from tinymu_jax.models.matmul import matmul
from tinymu_jax.models.matpac import Transformer
from tinymu_jax.models.matpac_ssl.losses import normalize
from tinymu_jax.models.positions import sincos_positions


class Predictor(nn.Module):
    """Predicts the embeddings of masked patches from the encoder's outputs for visible patches."""

    config: SelfSupervisedConfig

    @nn.compact
    def __call__(
        self, visible: Float[Array, "C T D"], order: Int[Array, "C P"]
    ) -> Float[Array, "C masked hypotheses D"]:
        """Return several predictions (hypotheses) of each masked patch's embedding.

        `visible` starts with the class token. `order` is each crop's patch indices, visible first.
        """
        encoder, config = self.config.encoder, self.config.predictor
        xavier, dtype = nn.initializers.xavier_uniform(), encoder.compute_dtype
        x = Dense(config.width, True, dtype, xavier, name="embed")(visible)
        mask_token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, config.width))
        table = sincos_positions(encoder.rows, encoder.columns, config.width)
        positions = self.param("pos_embed", lambda _: jnp.asarray(table))[0]
        num_masked = order.shape[1] - (visible.shape[1] - 1)
        mask_token = mask_token.astype(x.dtype)
        mask_tokens = jnp.broadcast_to(mask_token, (len(x), num_masked, config.width))
        # Attention ignores the order of patches, so they stay in `order`, as do their positions.
        cls_position = jnp.broadcast_to(positions[:1], (len(x), 1, config.width))
        patch_positions = jnp.concatenate([cls_position, positions[1 + order]], axis=1)
        x = jnp.concatenate([x, mask_tokens], axis=1) + patch_positions
        x = Transformer(predictor_encoder_config(self.config), name="transformer")(x, None, False)
        x = x[0, :, -num_masked:]
        single = Dense(encoder.width, True, dtype, xavier, name="single", float32_output=True)
        if config.hypotheses == 1:
            return single(x)[:, :, None]
        if self.is_initializing():
            single(x)
        return Hypotheses(config.hypotheses, encoder.width, dtype, name="heads")(x)


class Hypotheses(nn.Module):
    """`count` linear layers with the same input: `kernel` (count, D, M) and `bias` (count, M)."""

    count: int
    features: int
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(self, x: Float[Array, "C masked D"]) -> Float[Array, "C masked hypotheses M"]:
        xavier = nn.initializers.xavier_uniform(in_axis=-2, out_axis=-1, batch_axis=0)
        kernel = self.param("kernel", xavier, (self.count, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.count, self.features))
        joined = kernel.transpose(1, 0, 2).reshape(x.shape[-1], -1)
        y = matmul(x, joined, self.compute_dtype)
        return y.reshape(*x.shape[:2], self.count, self.features) + bias


class ClassHead(nn.Module):
    """DINO's head: an MLP, normalization to length 1, and a weight-normalized linear layer."""

    config: SelfSupervisedConfig
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: Float[Array, "C masked D"]) -> Float[Array, "C masked classes"]:
        config, dtype = self.config.class_head, self.config.encoder.compute_dtype
        for name in ("fc1", "fc2"):
            x = gelu(Dense(config.hidden_width, True, dtype, self.kernel_init, name=name)(x))
        fc3 = Dense(
            config.bottleneck, True, dtype, self.kernel_init, name="fc3", float32_output=True
        )
        x = fc3(x)
        return NormedDense(config.num_classes, dtype, name="last")(normalize(x))


class NormedDense(nn.Module):
    """A linear layer: the columns of `direction` (D, M), scaled to the norms in `length` (1, M)."""

    features: int
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(self, x: Float[Array, "C masked D"]) -> Float[Array, "C masked classes"]:
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        direction = self.param("direction", uniform, (x.shape[-1], self.features))
        length = self.param("length", nn.initializers.ones_init(), (1, self.features))
        norm = jnp.linalg.norm(direction, axis=0, keepdims=True)
        return matmul(x, direction * (length / norm), self.compute_dtype)


def predictor_encoder_config(config: SelfSupervisedConfig) -> MatpacConfig:
    """Return an encoder config with the sizes of the predictor's transformer."""
    predictor = config.predictor
    return replace(
        config.encoder,
        width=predictor.width,
        depth=predictor.depth,
        num_heads=predictor.num_heads,
        mlp_ratio=predictor.mlp_ratio,
    )
