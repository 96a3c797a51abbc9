"""TinyMU (arXiv 2604.15849): encoder, projector and decoder over one token sequence."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.mesh import constrain
from tinymu_jax.models import matpac, projector, smollm2
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.matpac import Matpac
from tinymu_jax.models.projector import make_projector
from tinymu_jax.models.sequence import PackedRows, TokenSequence, build_sequence, packed_mask
from tinymu_jax.models.smollm2 import SmolLM2


def param_axes(config: TinyMUConfig) -> dict[str, tuple[str | None, ...]]:
    """Returns the logical axes of every weight by its path in the stacked tree."""
    parts = {
        "encoder": matpac.param_axes(config.encoder),
        "projector": projector.param_axes(config.projector),
        "decoder": smollm2.param_axes(config.decoder),
    }
    return {f"{part}/{path}": axes for part, rows in parts.items() for path, axes in rows.items()}


class TinyMU(nn.Module):
    """Encoder, projector and decoder; each method is pure in the parameters."""

    config: TinyMUConfig

    def setup(self) -> None:
        self.encoder = Matpac(self.config.encoder)
        self.projector = make_projector(self.config.projector, self.config.encoder.compute_dtype)
        self.decoder = SmolLM2(self.config.decoder)

    def project(
        self,
        vectors: Float[Array, "B A E"],
        num_vectors: Int[Array, "B"],
        train: bool = False,
    ) -> tuple[Float[Array, "B P D"], Int[Array, "B"]]:
        """Pools and projects a clip's vectors; returns them with their number per clip."""
        pooling = self.config.pooling
        if pooling > 1:
            groups = vectors.shape[1] // pooling
            vectors = vectors[:, : groups * pooling]
            vectors = vectors.reshape(vectors.shape[0], groups, pooling, -1).mean(2)
            num_vectors = num_vectors // pooling
        valid = jnp.arange(vectors.shape[1]) < num_vectors[:, None]
        projected = self.projector(vectors, valid, train)
        if self.config.projector.kind == "transformer":
            num_vectors = jnp.full_like(num_vectors, projected.shape[1])
        return projected, num_vectors

    def decode(
        self, audio: Float[Array, "B A D"], sequence: TokenSequence
    ) -> tuple[Float[Array, "B S D"], smollm2.Cache]:
        """Runs the decoder over a whole sequence; returns hidden states and the cache."""
        x = jnp.concatenate([audio, self.decoder.embed(sequence.tokens)], axis=1)
        return self.decoder(x, sequence.positions, sequence.mask)

    def decode_packed(
        self, audio: Float[Array, "N C A D"], rows: PackedRows
    ) -> Float[Array, "N _ D"]:
        """Runs the decoder over the rows of N blocks; returns hidden states, rows end to end.

        Args:
            audio: what the decoder reads of each block's clips.
            rows: with a leading axis N.
        """
        blocks, count, slots = rows.tokens.shape
        flat = (blocks * count, slots)
        # A block's clips are its own: nothing is looked up in another device's part.
        audio = constrain(audio, "batch", None, None, None)
        heard = jax.vmap(lambda clips, clip, vector: clips[clip, vector])(
            audio,
            jnp.maximum(rows.clip, 0),
            jnp.where(rows.clip >= 0, rows.positions, 0),
        ).reshape(*flat, -1)
        said = self.decoder.embed(rows.tokens.reshape(flat))
        x = jnp.where((rows.clip >= 0).reshape(flat)[..., None], heard, said)
        mask = packed_mask(rows).reshape(*flat, slots)
        hidden, _ = self.decoder(x, rows.positions.reshape(flat), mask)
        return hidden.reshape(blocks, count * slots, -1)

    def answer_logits(
        self,
        audio: Float[Array, "B A D"],
        num_audio: Int[Array, "B"],
        prompt: Int[Array, "B P"],
        num_prompt: Int[Array, "B"],
        answer: Int[Array, "B R"],
        num_answer: Int[Array, "B"],
    ) -> Float[Array, "B R V"]:
        """Returns the scores that predict each answer token (teacher forcing)."""
        # The last answer token predicts nothing here and is not computed.
        sequence = build_sequence(
            num_audio,
            prompt,
            num_prompt,
            answer[:, :-1],
            jnp.minimum(num_answer, answer.shape[1] - 1),
            audio.shape[1],
            self.config,
        )
        hidden, _ = self.decode(audio, sequence)
        first = jnp.take_along_axis(hidden, sequence.first_logit_position[:, None, None], axis=1)
        rest = hidden[:, audio.shape[1] + prompt.shape[1] + 2 :]
        return self.decoder.logits(jnp.concatenate([first, rest], axis=1))

    def init_all(self, samples: Float[Array, "C A n"]) -> Array:
        """Touches every parameter, for `init`."""
        vectors = self.encoder.init_all(samples)
        self.project(vectors, jnp.full((vectors.shape[0],), vectors.shape[1]))
        return self.decoder.init_all(jnp.zeros((1, 2), jnp.int32))


def loss_mask(
    labels: Int[Array | np.ndarray, "*batch R"],
    real: Bool[Array | np.ndarray, "*batch R"],
    config: TinyMUConfig,
) -> Bool[Array | np.ndarray, "*batch R"]:
    """Returns which labels the loss counts.

    The published code gives pads the label "ignore" by their id 17, and with them every real "!";
    `config.ignore_pad_labels` repeats that.
    """
    return real & (labels != config.pad_token) if config.ignore_pad_labels else real


def label_loss(
    logits: Float[Array, "B R V"],
    labels: Int[Array | np.ndarray, "B R"],
    num_labels: Int[Array | np.ndarray, "B"],
    config: TinyMUConfig,
) -> Float[Array, ""]:
    """Returns the mean cross-entropy over all answer tokens of the batch, a scalar.

    Args:
        logits: that predict the labels.
        labels: token ids, padded with anything.
        num_labels: labels of each answer.
        config: says which of them count; see `loss_mask`.
    """
    real = jnp.arange(labels.shape[1]) < num_labels[:, None]
    counted = loss_mask(labels, real, config)
    log_probability = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probability, labels[..., None], axis=-1)[..., 0]
    return -jnp.where(counted, picked, 0).sum() / jnp.maximum(counted.sum(), 1)
