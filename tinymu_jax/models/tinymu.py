"""TinyMU (arXiv 2604.15849), which combines encoder, projector and decoder, and its loss."""

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
    """Return the logical axes (names for sharding) of each weight of the model, keyed by path."""
    parts = {
        "encoder": matpac.param_axes(config.encoder),
        "projector": projector.param_axes(config.projector),
        "decoder": smollm2.param_axes(config.decoder),
    }
    return {f"{part}/{path}": axes for part, rows in parts.items() for path, axes in rows.items()}


class TinyMU(nn.Module):
    """The full model: encoder, projector and decoder."""

    config: TinyMUConfig

    def setup(self) -> None:
        self.encoder = Matpac(self.config.encoder)
        self.projector = make_projector(self.config.projector, self.config.encoder.compute_dtype)
        self.decoder = SmolLM2(self.config.decoder)

    def project(
        self, vectors: Float[Array, "B A E"], num_vectors: Int[Array, "B"], train: bool = False
    ) -> tuple[Float[Array, "B vectors D"], Int[Array, "B"]]:
        """Average each `config.pooling` consecutive encoder vectors, and project the averages.

        Returns the projected vectors, and the number of projected vectors of each clip.
        """
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
    ) -> tuple[Float[Array, "B T D"], smollm2.Cache]:
        """Run the decoder on audio vectors, then text; return hidden states and a new cache."""
        text = self.decoder.embed(sequence.tokens)
        x = jnp.concatenate([audio.astype(text.dtype), text], axis=1)
        return self.decoder(x, sequence.positions, sequence.mask)

    def decode_packed(
        self, audio: Float[Array, "blocks C A D"], rows: PackedRows
    ) -> Float[Array, "blocks _ D"]:
        """Return the decoder's hidden states of packed rows; a block's rows are concatenated.

        A block is the rows that one device computes together. `audio` holds the projected vectors
        of each block's C clips.
        """
        blocks, num_rows, length = rows.tokens.shape
        flat = (blocks * num_rows, length)
        # Clips are indexed within their block, so the gather needs no data from other devices.
        audio = constrain(audio, "batch", None, None, None)
        audio_inputs = jax.vmap(lambda clips, clip, vector: clips[clip, vector])(
            audio, jnp.maximum(rows.clip, 0), jnp.where(rows.clip >= 0, rows.positions, 0)
        ).reshape(*flat, -1)
        text_inputs = self.decoder.embed(rows.tokens.reshape(flat))
        is_audio = (rows.clip >= 0).reshape(flat)[..., None]
        x = jnp.where(is_audio, audio_inputs.astype(text_inputs.dtype), text_inputs)
        mask = packed_mask(rows).reshape(*flat)
        hidden, _ = self.decoder(x, rows.positions.reshape(flat), mask)
        return hidden.reshape(blocks, num_rows * length, -1)

    def answer_logits(
        self,
        audio: Float[Array, "B A D"],
        num_audio: Int[Array, "B"],
        prompt: Int[Array, "B prompt"],
        num_prompt: Int[Array, "B"],
        answer: Int[Array, "B answer"],
        num_answer: Int[Array, "B"],
    ) -> Float[Array, "B answer V"]:
        """Return the logits that predict each answer token, computed by teacher forcing."""
        # The last answer token predicts nothing and is not computed.
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
        """Call every submodule, so that `init` creates all parameters; return logits."""
        vectors = self.encoder.init_all(samples)
        self.project(vectors, jnp.full((vectors.shape[0],), vectors.shape[1]))
        return self.decoder.init_all(jnp.zeros((1, 2), jnp.int32))


def loss_mask(
    labels: Int[Array | np.ndarray, "*batch answer"],
    valid: Bool[Array | np.ndarray, "*batch answer"],
    config: TinyMUConfig,
) -> Bool[Array | np.ndarray, "*batch answer"]:
    """Return a mask that is True for the labels that count in the loss.

    If `config.ignore_pad_labels`, the pad token's id (17) never counts, as in the published code.
    This excludes every "!" of an answer, since "!" has the same id.
    """
    return valid & (labels != config.pad_token) if config.ignore_pad_labels else valid


def label_loss(
    logits: Float[Array, "B answer V"],
    labels: Int[Array | np.ndarray, "B answer"],
    num_labels: Int[Array | np.ndarray, "B"],
    config: TinyMUConfig,
) -> Float[Array, ""]:
    """Return the mean cross-entropy of a batch's answer tokens that `loss_mask` selects.

    The first `num_labels` labels of an answer are its token ids; the others are padding.
    """
    mask = loss_mask(labels, jnp.arange(labels.shape[1]) < num_labels[:, None], config)
    log_probs = jax.nn.log_softmax(logits)
    label_log_probs = jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return -jnp.where(mask, label_log_probs, 0).sum() / jnp.maximum(mask.sum(), 1)
