"""Projectors of encoder vectors to the decoder's width: as published, and the paper's ablations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tinymu_jax.models.attention import attend
from tinymu_jax.models.config import ComputeDtype, ProjectorConfig
from tinymu_jax.models.layers import Dense, gelu, layer_norm, run_layers

_LINEAR_AXES = {
    "linear1/kernel": ("embed", "mlp"),
    "linear1/bias": ("mlp",),
    "linear2/kernel": ("mlp", "embed"),
    "linear2/bias": ("embed",),
}
_RESIDUAL_AXES = {
    "linear1/kernel": ("mlp", "embed"),
    "linear2/kernel": ("embed", "mlp"),
    "norm/scale": ("embed",),
    "norm/bias": ("embed",),
}
_TRANSFORMER_AXES = {
    "linear/kernel": ("mlp", "embed"),
    "linear/bias": ("embed",),
    "prefix": (None, "embed"),
    "layers/norm1/scale": ("layers", "embed"),
    "layers/norm1/bias": ("layers", "embed"),
    "layers/attn/queries/kernel": ("layers", "embed", "heads"),
    "layers/attn/keys_values/kernel": ("layers", "embed", "heads"),
    "layers/attn/project/kernel": ("layers", "heads", "embed"),
    "layers/attn/project/bias": ("layers", "embed"),
    "layers/norm2/scale": ("layers", "embed"),
    "layers/norm2/bias": ("layers", "embed"),
    "layers/mlp/fc1/kernel": ("layers", "embed", "mlp"),
    "layers/mlp/fc1/bias": ("layers", "mlp"),
    "layers/mlp/fc2/kernel": ("layers", "mlp", "embed"),
    "layers/mlp/fc2/bias": ("layers", "embed"),
}


def param_axes(config: ProjectorConfig) -> dict[str, tuple[str | None, ...]]:
    """Return the logical axes (names for sharding) of each projector weight, keyed by its path."""
    return {"linear": _LINEAR_AXES, "residual": _RESIDUAL_AXES, "transformer": _TRANSFORMER_AXES}[
        config.kind
    ]


def _torch_linear(
    features: int,
    fan_in: int,
    compute_dtype: ComputeDtype,
    name: str,
    use_bias: bool = True,
    float32_output: bool = False,
) -> Dense:
    """Return a linear layer initialized like torch.nn.Linear: uniform in +-1/sqrt(fan_in)."""
    limit = fan_in**-0.5

    def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return Dense(
        features,
        use_bias,
        compute_dtype,
        uniform,
        uniform,
        float32_output=float32_output,
        name=name,
    )


class LinearProjector(nn.Module):
    """The published projector: a linear layer, ReLU and a second linear layer."""

    config: ProjectorConfig
    compute_dtype: ComputeDtype = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B A E"], valid: Bool[Array, "B A"], train: bool = False
    ) -> Float[Array, "B A D"]:
        config, compute_dtype = self.config, self.compute_dtype
        x = _torch_linear(config.hidden_width, x.shape[-1], compute_dtype, "linear1")(x)
        linear2 = _torch_linear(
            config.output_width, config.hidden_width, compute_dtype, "linear2", float32_output=True
        )
        return linear2(jax.nn.relu(x))


class ResidualProjector(nn.Module):
    """Residual projector: LayerNorm(e + dropout(linear2(gelu(e)))) with e = linear1(x)."""

    config: ProjectorConfig
    compute_dtype: ComputeDtype = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B A E"], valid: Bool[Array, "B A"], train: bool = False
    ) -> Float[Array, "B A D"]:
        width, xavier = self.config.output_width, nn.initializers.xavier_uniform()
        e = Dense(width, False, self.compute_dtype, xavier, name="linear1")(x)
        y = Dense(width, False, self.compute_dtype, xavier, name="linear2")(gelu(e))
        y = nn.Dropout(self.config.dropout, deterministic=not train)(y)
        return layer_norm(1e-5, "norm")(e + y)


class PrefixAttention(nn.Module):
    """Multi-head self-attention with a linear layer for queries and one for keys and values."""

    config: ProjectorConfig
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B 1 T"]
    ) -> Float[Array, "B T D"]:
        (batch, steps, width), heads = x.shape, self.config.num_heads
        queries = _torch_linear(width, width, self.compute_dtype, "queries", use_bias=False)(x)
        queries = queries.reshape(batch, steps, heads, -1)
        kv = _torch_linear(2 * width, width, self.compute_dtype, "keys_values", use_bias=False)(x)
        keys, values = kv.reshape(batch, steps, 2, heads, -1).transpose(2, 0, 3, 1, 4)
        x = attend(queries, keys, values, mask, self.compute_dtype)
        return _torch_linear(width, width, self.compute_dtype, "project")(x)


class PrefixMlp(nn.Module):
    """The MLP of a `PrefixLayer`: a linear layer, ReLU and a second linear layer."""

    config: ProjectorConfig
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        width, hidden = x.shape[-1], x.shape[-1] * self.config.mlp_ratio
        x = jax.nn.relu(_torch_linear(hidden, width, self.compute_dtype, "fc1")(x))
        return _torch_linear(width, hidden, self.compute_dtype, "fc2")(x)


class PrefixLayer(nn.Module):
    """A pre-norm transformer layer of `TransformerProjector`."""

    config: ProjectorConfig
    compute_dtype: ComputeDtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], _: None, mask: Bool[Array, "B 1 T"]
    ) -> tuple[Float[Array, "B T D"], None]:
        attention = PrefixAttention(self.config, self.compute_dtype, name="attn")
        x = x + attention(layer_norm(1e-5, "norm1", self.compute_dtype)(x), mask)
        mlp = PrefixMlp(self.config, self.compute_dtype, name="mlp")
        return x + mlp(layer_norm(1e-5, "norm2", self.compute_dtype)(x)), None


class TransformerProjector(nn.Module):
    """A transformer over audio vectors and learned queries; returns the outputs of the queries."""

    config: ProjectorConfig
    compute_dtype: ComputeDtype = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B A E"], valid: Bool[Array, "B A"], train: bool = False
    ) -> Float[Array, "B vectors D"]:
        config, (batch, length, width) = self.config, x.shape
        x = _torch_linear(config.output_width, width, self.compute_dtype, "linear")(x)
        shape = (config.num_vectors, config.output_width)
        prefix = self.param("prefix", nn.initializers.normal(1.0), shape)
        prefix = jnp.broadcast_to(prefix.astype(x.dtype), (batch, *shape))
        x = jnp.concatenate([x, prefix], axis=1)
        mask = jnp.concatenate([valid, jnp.ones((batch, config.num_vectors), bool)], axis=1)
        options = {"config": config, "compute_dtype": self.compute_dtype}
        x, _ = run_layers(self, PrefixLayer, options, config.depth, "layers", x, (mask[:, None],))
        return x[:, length:].astype(jnp.float32)


def make_projector(config: ProjectorConfig, compute_dtype: ComputeDtype = "float32") -> nn.Module:
    """Return the projector that `config.kind` selects.

    The projector maps vectors (B, A, E) and a mask of valid vectors (B, A) to (B, vectors, D) in
    float32.
    """
    kinds = {
        "linear": LinearProjector,
        "residual": ResidualProjector,
        "transformer": TransformerProjector,
    }
    return kinds[config.kind](config, compute_dtype)
