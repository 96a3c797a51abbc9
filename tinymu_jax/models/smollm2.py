"""The SmolLM2 decoder: Llama's architecture with tied embeddings and a key/value cache."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.attention import attend, prepare_mask, self_attention
from tinymu_jax.models.attention_mask import AttentionMask
from tinymu_jax.models.config import SmolLM2Config
from tinymu_jax.models.layers import Dense, JointDense, RMSNorm, run_layers
from tinymu_jax.models.lora import lora_axes
from tinymu_jax.models.matmul import DTYPES, int8_matmul, matmul_transposed

_AXES: dict[str, tuple[str | None, ...]] = {
    "embed_tokens/embedding": ("vocab", "vocab_embed"),
    "body/layers/input_norm/scale": ("layers", "embed"),
    "body/layers/attn/qkv/q_proj/kernel": ("layers", "embed", "heads"),
    "body/layers/attn/qkv/k_proj/kernel": ("layers", "embed", "kv_heads"),
    "body/layers/attn/qkv/v_proj/kernel": ("layers", "embed", "kv_heads"),
    "body/layers/attn/o_proj/kernel": ("layers", "heads", "embed"),
    "body/layers/post_attention_norm/scale": ("layers", "embed"),
    "body/layers/mlp/gate_up/gate_proj/kernel": ("layers", "embed", "mlp"),
    "body/layers/mlp/gate_up/up_proj/kernel": ("layers", "embed", "mlp"),
    "body/layers/mlp/down_proj/kernel": ("layers", "mlp", "embed"),
    "body/norm/scale": ("embed",),
}


def param_axes(config: SmolLM2Config) -> dict[str, tuple[str | None, ...]]:
    """Return the logical axes (names for sharding) of each decoder weight, keyed by its path."""
    return _AXES | lora_axes(_AXES, config.lora)


KeyValue = tuple[Float[Array, "BK S H"], Float[Array, "BK S H"]]
Cache = Any
"""Keys and values of all layers: a list of `KeyValue`, or one `KeyValue` with a leading axis L."""


def extend_cache(cache: Cache, length: int) -> Cache:
    """Return the key/value cache with `length` positions of zeros appended."""

    def pad(x: Array) -> Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, length), (0, 0)])

    return jax.tree.map(pad, cache)


def rope_angles(
    positions: Int[Array, "B T"], config: SmolLM2Config
) -> tuple[Float[Array, "B T 1 half"], Float[Array, "B T 1 half"]]:
    """Return the cosines and sines of RoPE's rotation angles at the given position ids."""
    half = config.head_width // 2
    frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequency
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T N H"], cosine: Float[Array, "B T 1 half"], sine: Float[Array, "B T 1 half"]
) -> Float[Array, "B T N H"]:
    """Rotate queries or keys by RoPE's angles; elements i and i + H/2 of a head form a pair."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    pair = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(pair, -1).astype(x.dtype)


def _options(config: SmolLM2Config) -> dict[str, Any]:
    """Return the options of a layer's linear layers."""
    return {
        "compute_dtype": config.compute_dtype,
        "gradient_dtype": config.gradient_dtype,
        "kernel_init": nn.initializers.normal(config.width**-0.5),
        "lora": config.lora,
    }


def _joint_dense(config: SmolLM2Config, sizes: dict[str, int], name: str) -> JointDense:
    return JointDense(sizes, name=name, **_options(config))


def _output_dense(config: SmolLM2Config, name: str) -> Dense:
    """Return a linear layer whose output is added to the residual stream."""
    return Dense(config.width, False, name=name, **_options(config))


class Attention(nn.Module):
    """Grouped-query attention; returns its output and the updated key/value cache.

    Without a cache, the second result contains the new keys and values.
    """

    config: SmolLM2Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: KeyValue | None,
        angles: tuple[Array, Array],
        mask: Any,
        cache_index: Int[Array, ""],
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        config, (batch, steps, _) = self.config, x.shape
        sizes = {
            "q_proj": config.num_heads * config.head_width,
            "k_proj": config.num_kv_heads * config.head_width,
            "v_proj": config.num_kv_heads * config.head_width,
        }
        query, key, value = (
            piece.reshape(batch, steps, -1, config.head_width)
            for piece in _joint_dense(config, sizes, "qkv")(x)
        )
        query, key = rotate(query, *angles), rotate(key, *angles)
        key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
        new_cache = tuple(new.reshape(-1, steps, config.head_width) for new in (key, value))
        if cache is not None:
            key, value = new_cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, new, cache_index, axis=1)
                for old, new in zip(cache, new_cache, strict=True)
            )
        if cache is None:
            x = self_attention(
                query, key, value, mask, config.attention, config.compute_dtype, causal=True
            )
        else:
            x = attend(query, key, value, mask, config.compute_dtype)
        return _output_dense(config, "o_proj")(x), new_cache


class GatedMlp(nn.Module):
    """The gated MLP: down(silu(gate(x)) * up(x))."""

    config: SmolLM2Config

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        config = self.config
        sizes = {"gate_proj": config.mlp_width, "up_proj": config.mlp_width}
        gate, up = _joint_dense(config, sizes, "gate_up")(x)
        down = _output_dense(config, "down_proj")
        gate, up = gate.astype(jnp.float32), up.astype(jnp.float32)
        return down((jax.nn.silu(gate) * up).astype(x.dtype))


class Layer(nn.Module):
    """A pre-norm decoder layer; returns its output and the updated (or new) keys and values."""

    config: SmolLM2Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: KeyValue | None,
        angles: tuple[Array, Array],
        mask: Any,
        cache_index: Int[Array, ""],
    ) -> tuple[Float[Array, "B T D"], KeyValue]:
        eps = self.config.norm_eps
        normed = RMSNorm(eps, name="input_norm")(x)
        y, cache = Attention(self.config, name="attn")(normed, cache, angles, mask, cache_index)
        x = x + y
        normed = RMSNorm(eps, name="post_attention_norm")(x)
        return x + GatedMlp(self.config, name="mlp")(normed), cache


class Embedding(nn.Module):
    """The token embedding `embedding` (V, D), which is also the weight of the output projection.

    For inference, int8 `rows` (V, D) and a `scale` (V,) may replace `embedding`.
    """

    config: SmolLM2Config

    def setup(self) -> None:
        config = self.config
        self.int8 = self.has_variable("params", "scale")
        if self.int8:
            self.rows = self.get_variable("params", "rows")
            self.scale = self.get_variable("params", "scale")
        else:
            init = nn.initializers.normal(config.width**-0.5)
            shape = (config.vocab_size, config.width)
            self.embedding = self.param("embedding", init, shape)

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        if self.int8:
            return self.rows[tokens].astype(jnp.float32) * self.scale[tokens][..., None]
        return self.embedding[tokens].astype(DTYPES[self.config.compute_dtype])

    def logits(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Return the logits of all vocabulary tokens for hidden states x."""
        if self.int8:
            return int8_matmul(x, self.rows, self.scale)
        return matmul_transposed(x, self.embedding, self.config.compute_dtype)


class Layers(nn.Module):
    """All decoder layers and the final norm; returns hidden states and the key/value cache."""

    config: SmolLM2Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: Cache, *shared: Any
    ) -> tuple[Float[Array, "B T D"], Cache]:
        config = self.config
        x, cache = run_layers(
            self, Layer, {"config": config}, config.depth, "layers", x, shared, cache, config.remat
        )
        return RMSNorm(config.norm_eps, name="norm")(x), cache


class SmolLM2(nn.Module):
    """The decoder. It takes embeddings, so that its input can mix audio vectors and tokens."""

    config: SmolLM2Config

    def setup(self) -> None:
        self.embed_tokens = Embedding(self.config)
        self.body = Layers(self.config)

    def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return self.embed_tokens(tokens)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: AttentionMask | Bool[Array, "B T S"],
        cache: Cache = None,
        cache_index: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Return the hidden states of T positions, and the updated key/value cache.

        Args:
            x: embeddings of tokens, or projected audio vectors.
            positions: position ids for RoPE; they need be neither contiguous nor sorted.
            mask: causal mask; as an array, True where query t may attend to key s. Without a cache
                S = T.
            cache: key/value cache of S positions; if None, the new keys and values are returned.
            cache_index: index in the cache from which the T new keys and values are written.
        """
        if isinstance(mask, AttentionMask):
            mask = prepare_mask(mask, self.config.attention)
        angles = rope_angles(positions, self.config)
        return self.body(x, cache, angles, mask, jnp.asarray(cache_index))

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Return the logits of all vocabulary tokens for hidden states."""
        return self.embed_tokens.logits(hidden)

    def init_all(self, tokens: Int[Array, "B T"]) -> Array:
        """Call every submodule, so that `init` creates all parameters; return logits."""
        batch, steps = tokens.shape
        positions = jnp.broadcast_to(jnp.arange(steps), (batch, steps))
        mask = jnp.ones((batch, steps, steps), bool)
        return self.logits(self(self.embed(tokens), positions, mask)[0])
