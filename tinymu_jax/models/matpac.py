"""The MATPAC++ audio encoder (arXiv 2508.12709): a ViT over log-mel patches."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.audio import log_mel as log_mel_module
from tinymu_jax.audio.log_mel import hann_window, mel_filterbank
from tinymu_jax.models.attention import prepare_mask, self_attention
from tinymu_jax.models.attention_mask import AttentionMask
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.heads import HEAD_AXES, Classifier
from tinymu_jax.models.layers import Dense, gelu, layer_norm, run_layers
from tinymu_jax.models.matmul import DTYPES
from tinymu_jax.models.positions import sincos_positions

_BLOCK_AXES = {
    "norm1/scale": ("layers", "embed"),
    "norm1/bias": ("layers", "embed"),
    "attn/qkv/kernel": ("layers", "embed", "heads"),
    "attn/qkv/bias": ("layers", "heads"),
    "attn/proj/kernel": ("layers", "heads", "embed"),
    "attn/proj/bias": ("layers", "embed"),
    "norm2/scale": ("layers", "embed"),
    "norm2/bias": ("layers", "embed"),
    "mlp/fc1/kernel": ("layers", "embed", "mlp"),
    "mlp/fc1/bias": ("layers", "mlp"),
    "mlp/fc2/kernel": ("layers", "mlp", "embed"),
    "mlp/fc2/bias": ("layers", "embed"),
}


def param_axes(config: MatpacConfig) -> dict[str, tuple[str | None, ...]]:
    """Return the logical axes (names for sharding) of each encoder weight, keyed by its path."""
    axes = {
        "cls_token": (None, None, "embed"),
        "pos_embed": (None, None, "embed"),
        "log_mel/window": (None,),
        "log_mel/filterbank": (None, None),
        "patch_embed/kernel": (None, "embed"),
        "patch_embed/bias": ("embed",),
        "transformer/norm/scale": ("embed",),
        "transformer/norm/bias": ("embed",),
    }
    axes |= {f"transformer/blocks/{path}": names for path, names in _BLOCK_AXES.items()}
    return axes | (HEAD_AXES[config.head.kind] if config.head else {})


def _dense(config: MatpacConfig, features: int, name: str | None = None) -> Dense:
    xavier = nn.initializers.xavier_uniform()
    return Dense(
        features,
        True,
        config.compute_dtype,
        xavier,
        gradient_dtype=config.gradient_dtype,
        name=name,
    )


class Mlp(nn.Module):
    """The MLP of a block: a linear layer, the exact GELU and a second linear layer."""

    config: MatpacConfig

    @nn.compact
    def __call__(self, x: Float[Array, "C T D"]) -> Float[Array, "C T D"]:
        config = self.config
        x = gelu(_dense(config, config.width * config.mlp_ratio, "fc1")(x))
        return _dense(config, config.width, "fc2")(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one linear layer for queries, keys and values."""

    config: MatpacConfig

    @nn.compact
    def __call__(self, x: Float[Array, "C T D"], mask: Any) -> Float[Array, "C T D"]:
        config = self.config
        qkv = _dense(config, 3 * config.width, "qkv")(x)
        qkv = qkv.reshape(*x.shape[:2], 3, config.num_heads, -1)
        keys, values = (jnp.swapaxes(qkv[:, :, i], 1, 2) for i in (1, 2))
        x = self_attention(
            qkv[:, :, 0], keys, values, mask, config.attention, config.compute_dtype, causal=False
        )
        return _dense(config, config.width, "proj")(x)


class Block(nn.Module):
    """A pre-norm transformer block.

    Returns the block's output, and an extra output (see `run_layers`): the same array if `keep` is
    set, else None.
    """

    config: MatpacConfig
    keep: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "C T D"], _: None, mask: Any
    ) -> tuple[Float[Array, "C T D"], Float[Array, "C T D"] | None]:
        dtype = self.config.compute_dtype
        x = x + SelfAttention(self.config, name="attn")(layer_norm(1e-6, "norm1", dtype)(x), mask)
        x = x + Mlp(self.config, name="mlp")(layer_norm(1e-6, "norm2", dtype)(x))
        return x, x if self.keep else None


class Transformer(nn.Module):
    """All transformer blocks, followed by a norm of the last block's output.

    Returns the normalized output (L = 1). If `all_layers` is set, the outputs of all earlier
    blocks, which are not normalized, come before it. All are float32.
    """

    config: MatpacConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "C T D"], mask: AttentionMask | None, all_layers: bool
    ) -> Float[Array, "L C T D"]:
        options = {"config": self.config, "keep": all_layers}
        depth, remat = self.config.depth, self.config.remat
        if mask is None and self.config.attention == "flash":
            mask = AttentionMask(jnp.zeros(x.shape[:2], jnp.int32))
        if mask is not None:
            mask = prepare_mask(mask, self.config.attention)
        x = x.astype(DTYPES[self.config.compute_dtype])
        x, outputs = run_layers(self, Block, options, depth, "blocks", x, (mask,), remat=remat)
        x = layer_norm(1e-6, "norm")(x)[None]
        if not all_layers:
            return x
        earlier = jnp.stack(outputs[:-1]) if isinstance(outputs, list) else outputs[:-1]
        return jnp.concatenate([earlier.astype(x.dtype), x])


class LogMel(nn.Module):
    """Log-mel spectrogram whose window and mel filterbank are parameters."""

    @nn.compact
    def __call__(self, samples: Float[Array, "*batch n"]) -> Float[Array, "*batch frames F"]:
        window = self.param("window", lambda _: jnp.asarray(hann_window()))
        filterbank = self.param("filterbank", lambda _: jnp.asarray(mel_filterbank()))
        return log_mel_module.log_mel(samples, window, filterbank)


class Matpac(nn.Module):
    """The MATPAC++ encoder; a chunk of audio has at most `config.columns` columns of patches."""

    config: MatpacConfig

    def setup(self) -> None:
        config = self.config
        token = nn.initializers.normal(0.02)
        positions = sincos_positions(config.rows, config.columns, config.width)
        self.cls_token = self.param("cls_token", token, (1, 1, config.width))
        self.pos_embed = self.param("pos_embed", lambda _: jnp.asarray(positions))
        self.patch_embed = _dense(config, config.width)
        self.transformer = Transformer(config)
        self.log_mel = LogMel()
        if config.head:
            self.head = Classifier(config.head, config.rows)

    def __call__(
        self,
        log_mel: Float[Array, "C A t F"],
        column: Int[Array, "C A"] | None = None,
        chunk: Int[Array, "C A"] | None = None,
        num_chunks: int = 1,
        all_layers: bool = False,
    ) -> Float[Array, "L C A E"]:
        """Encode sequences of log-mel columns; return one vector per column (160 ms).

        A vector concatenates the column's patch embeddings from low to high frequency. A sequence
        contains one chunk of audio, or several chunks and padding. Attention stays within a chunk.

        Args:
            log_mel: normalized log-mels; a column has t = `config.patch_size` frames.
            column: index of each column in its chunk, below `config.columns`; default 0, 1, 2, ...
            chunk: index of each column's chunk in the sequence, -1 for padding; default: all 0.
            num_chunks: maximum number of chunks in a sequence.
            all_layers: whether to return the outputs of all blocks; only the last is normalized.
        """
        config, (batch, columns, _, _) = self.config, log_mel.shape
        x = self.embed(log_mel, column)
        mask = None
        if chunk is not None:
            cls_chunk = jnp.broadcast_to(jnp.arange(num_chunks), (batch, num_chunks))
            chunk_ids = jnp.concatenate([cls_chunk, jnp.tile(chunk, (1, config.rows))], axis=1)
            mask = AttentionMask(chunk_ids)
        x = self.encode(x, mask, num_chunks, all_layers)[:, :, num_chunks:]
        x = x.reshape(-1, batch, config.rows, columns, config.width)
        return x.transpose(0, 1, 3, 2, 4).reshape(-1, batch, columns, config.output_width)

    def embed(
        self, log_mel: Float[Array, "C A t F"], column: Int[Array, "C A"] | None = None
    ) -> Float[Array, "C P D"]:
        """Return patch embeddings plus position embeddings, ordered by frequency, then time."""
        config, (batch, columns, size, _) = self.config, log_mel.shape
        rows, width = config.rows, config.width
        # (C, columns, time, rows, band) -> frequency-major patches of (band, time)
        patches = log_mel.reshape(batch, columns, size, rows, size).transpose(0, 3, 1, 4, 2)
        x = self.patch_embed(patches.reshape(batch, rows, columns, size * size))
        positions = self.pos_embed[0, 1:].reshape(rows, -1, width)
        x = x + (positions[:, :columns] if column is None else positions[:, column].swapaxes(0, 1))
        return x.reshape(batch, rows * columns, width)

    def encode(
        self,
        patches: Float[Array, "C P D"],
        mask: AttentionMask | None = None,
        num_chunks: int = 1,
        all_layers: bool = False,
    ) -> Float[Array, "L C T D"]:
        """Return the transformer's outputs for one class token per chunk, followed by patches."""
        cls_token = self.cls_token + self.pos_embed[:, :1]
        cls_token = jnp.broadcast_to(cls_token, (len(patches), num_chunks, self.config.width))
        x = jnp.concatenate([cls_token, patches], axis=1)
        return self.transformer(x, mask, all_layers)

    def encode_waveform(
        self,
        samples: Float[Array, "C A n"],
        num_frames: Int[Array, "C A"],
        column: Int[Array, "C A"] | None = None,
        chunk: Int[Array, "C A"] | None = None,
        num_chunks: int = 1,
        all_layers: bool = False,
    ) -> Float[Array, "L C A E"]:
        """Encode columns of n samples at 16 kHz; return one vector per column.

        n is `tinymu_jax.audio.log_mel.column_samples(config.patch_size)`. In each column, log-mel
        frames from `num_frames` on are zero, as published. For the other arguments, see `__call__`.
        """
        log_mel = self.log_mel(samples)
        valid = jnp.arange(log_mel.shape[2]) < num_frames[..., None]
        log_mel = jnp.where(valid[..., None], log_mel, 0.0)
        return self(log_mel, column, chunk, num_chunks, all_layers)

    def classify(
        self, vectors: Float[Array, "B A E"], valid: Bool[Array, "B A"] | None = None
    ) -> Float[Array, "B classes"]:
        """Return class probabilities from each clip's valid vectors; needs `config.head`."""
        return self.head(vectors, valid)

    def init_all(self, samples: Float[Array, "C A n"]) -> Array:
        """Call every submodule, so that `init` creates all parameters; return encoder vectors."""
        num_frames = jnp.full(samples.shape[:2], self.config.patch_size)
        vectors = self.encode_waveform(samples, num_frames)[-1]
        if self.config.head:
            self.classify(vectors)
        return vectors
