"""The MATPAC++ audio encoder (arXiv 2508.12709): log-mel patches through a ViT."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.audio import log_mel as log_mel_module
from tinymu_jax.audio.log_mel import hann_window, mel_filterbank
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.heads import HEAD_AXES, Classifier
from tinymu_jax.models.layers import Dense, attend, gelu, layer_norm, run_layers
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
    """Returns the logical axes of every weight by its path in the stacked tree."""
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


CONSTANTS = ("log_mel/window", "log_mel/filterbank")
"""Tables of the front end that checkpoints carry: read, never trained, no parameters in counts."""


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    config: MatpacConfig

    @nn.compact
    def __call__(self, x: Float[Array, "C T D"]) -> Float[Array, "C T D"]:
        config = self.config
        xavier, compute_dtype = nn.initializers.xavier_uniform(), config.compute_dtype
        hidden = config.width * config.mlp_ratio
        x = Dense(hidden, compute_dtype=compute_dtype, kernel_init=xavier, name="fc1")(x)
        x = gelu(x)
        return Dense(config.width, compute_dtype=compute_dtype, kernel_init=xavier, name="fc2")(x)


class SelfAttention(nn.Module):
    """Multi-head attention with queries, keys and values from one matrix."""

    config: MatpacConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "C T D"], mask: Bool[Array, "C T T"] | None
    ) -> Float[Array, "C T D"]:
        config = self.config
        xavier, compute_dtype = nn.initializers.xavier_uniform(), config.compute_dtype
        qkv = Dense(3 * config.width, compute_dtype=compute_dtype, kernel_init=xavier, name="qkv")(
            x
        )
        qkv = qkv.reshape(*x.shape[:2], 3, config.num_heads, -1)
        keys, values = (jnp.swapaxes(qkv[:, :, i], 1, 2) for i in (1, 2))
        x = attend(qkv[:, :, 0], keys, values, mask, compute_dtype)
        return Dense(config.width, compute_dtype=compute_dtype, kernel_init=xavier, name="proj")(x)


class Block(nn.Module):
    """A pre-norm transformer block; gives its output a second time where layers are kept."""

    config: MatpacConfig
    keep: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "C T D"], _: None, mask: Bool[Array, "C T T"] | None
    ) -> tuple[Float[Array, "C T D"], Float[Array, "C T D"] | None]:
        x = x + SelfAttention(self.config, name="attn")(layer_norm(1e-6, "norm1")(x), mask)
        x = x + Mlp(self.config, name="mlp")(layer_norm(1e-6, "norm2")(x))
        return x, x if self.keep else None


class Transformer(nn.Module):
    """The blocks and the final norm; returns the last layer, or all with a leading axis L."""

    config: MatpacConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "C T D"], mask: Bool[Array, "C T T"] | None, all_layers: bool
    ) -> Float[Array, "L C T D"]:
        options = {"config": self.config, "keep": all_layers}
        depth, remat = self.config.depth, self.config.remat
        x, kept = run_layers(self, Block, options, depth, "blocks", x, (mask,), remat=remat)
        x = layer_norm(1e-6, "norm")(x)
        if not all_layers:
            return x[None]
        return jnp.concatenate(
            [jnp.stack(kept[:-1]) if isinstance(kept, list) else kept[:-1], x[None]]
        )


class LogMel(nn.Module):
    """The front end with the tables that the checkpoint carries."""

    @nn.compact
    def __call__(self, samples: Float[Array, "*batch n"]) -> Float[Array, "*batch frames F"]:
        window = self.param("window", lambda _: jnp.asarray(hann_window()))
        filterbank = self.param("filterbank", lambda _: jnp.asarray(mel_filterbank()))
        return log_mel_module.log_mel(samples, window, filterbank)


class Matpac(nn.Module):
    """The encoder. One chunk is at most `config.columns` columns of patches."""

    config: MatpacConfig

    def setup(self) -> None:
        config = self.config
        token = nn.initializers.normal(0.02)
        positions = sincos_positions(config.rows, config.columns, config.width)
        self.cls_token = self.param("cls_token", token, (1, 1, config.width))
        self.pos_embed = self.param("pos_embed", lambda _: jnp.asarray(positions))
        self.patch_embed = Dense(
            config.width,
            compute_dtype=config.compute_dtype,
            kernel_init=nn.initializers.xavier_uniform(),
        )
        self.transformer = Transformer(config)
        self.log_mel = LogMel()
        if config.head:
            self.head = Classifier(config.head, config.rows)

    def __call__(
        self,
        log_mel: Float[Array, "C A t F"],
        place: Int[Array, "C A"] | None = None,
        chunk: Int[Array, "C A"] | None = None,
        num_chunks: int = 1,
        all_layers: bool = False,
    ) -> Float[Array, "L C A E"]:
        """Encodes rows of columns; a column is as many frames as a patch is wide.

        A row holds one chunk, or a few, or padding besides: nobody sees beyond their own chunk,
        so that a chunk's vectors depend on nothing else in the row.

        Args:
            log_mel: normalised, A columns of t = `config.patch_size` frames.
            place: of each column in its chunk, below `config.columns`; default 0, 1, 2, ....
            chunk: which chunk of its row each column belongs to, -1 for padding; default: every
                row is one chunk.
            num_chunks: how many chunks a row has at most.
            all_layers: return every block's output, the last one normalised.

        Returns:
            One vector of all rows of patches per column, 160 ms each; L = 1 without `all_layers`.
        """
        config, (batch, columns, _, _) = self.config, log_mel.shape
        x = self.embed(log_mel, place)
        mask = None
        if chunk is not None:
            of_cls = jnp.broadcast_to(jnp.arange(num_chunks), (batch, num_chunks))
            owner = jnp.concatenate([of_cls, jnp.tile(chunk, (1, config.rows))], axis=1)
            mask = owner[:, :, None] == owner[:, None, :]
        x = self.encode(x, mask, num_chunks, all_layers)[:, :, num_chunks:]
        x = x.reshape(-1, batch, config.rows, columns, config.width)
        return x.transpose(0, 1, 3, 2, 4).reshape(-1, batch, columns, config.output_width)

    def embed(
        self, log_mel: Float[Array, "C A t F"], place: Int[Array, "C A"] | None = None
    ) -> Float[Array, "C P D"]:
        """Returns the patches of columns with their positions, lowest bands first.

        Arguments as `__call__`.
        """
        config, (batch, columns, side, _) = self.config, log_mel.shape
        rows, width = config.rows, config.width
        # (C, columns, time, rows, band) -> frequency-major patches of (band, time)
        patches = log_mel.reshape(batch, columns, side, rows, side).transpose(0, 3, 1, 4, 2)
        x = self.patch_embed(patches.reshape(batch, rows, columns, side * side))
        positions = self.pos_embed[0, 1:].reshape(rows, -1, width)
        x = x + (positions[:, :columns] if place is None else positions[:, place].swapaxes(0, 1))
        return x.reshape(batch, rows * columns, width)

    def encode(
        self,
        patches: Float[Array, "C P D"],
        mask: Bool[Array, "C T T"] | None = None,
        num_chunks: int = 1,
        all_layers: bool = False,
    ) -> Float[Array, "L C T D"]:
        """Runs patches through the blocks, a class token for each chunk in front of them."""
        cls_token = self.cls_token + self.pos_embed[:, :1]
        cls_token = jnp.broadcast_to(cls_token, (len(patches), num_chunks, self.config.width))
        x = jnp.concatenate([cls_token, patches], axis=1)
        return self.transformer(x, mask, all_layers)

    def encode_waveform(
        self,
        samples: Float[Array, "C A n"],
        num_frames: Int[Array, "C A"],
        place: Int[Array, "C A"] | None = None,
        chunk: Int[Array, "C A"] | None = None,
        num_chunks: int = 1,
        all_layers: bool = False,
    ) -> Float[Array, "L C A E"]:
        """Encodes columns of 16 kHz samples (`tinymu_jax.audio.log_mel.column_samples` each).

        Frames of a column from `num_frames` on are zeros, as published; the other arguments are
        those of `__call__`.
        """
        log_mel = self.log_mel(samples)
        real = jnp.arange(log_mel.shape[2]) < num_frames[..., None]
        log_mel = jnp.where(real[..., None], log_mel, 0.0)
        return self(log_mel, place, chunk, num_chunks, all_layers)

    def classify(
        self, vectors: Float[Array, "B A E"], valid: Bool[Array, "B A"] | None = None
    ) -> Float[Array, "B classes"]:
        """Returns class probabilities from a clip's vectors (config.head must be set)."""
        return self.head(vectors, valid)

    def init_all(self, samples: Float[Array, "C A n"]) -> Array:
        """Touches every parameter, for `init`; returns the vectors."""
        vectors = self.encode_waveform(
            samples, jnp.full(samples.shape[:2], self.config.patch_size)
        )[-1]
        if self.config.head:
            self.classify(vectors)
        return vectors
