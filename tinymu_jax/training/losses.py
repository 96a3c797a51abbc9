"""The fine-tuning loss: cross-entropy of the answers' tokens, and of nothing else."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.config import TinyMUConfig
from tinymu_jax.data.packing import Block
from tinymu_jax.models.tinymu import TinyMU, counted_labels

SCORED_TOGETHER = 512
"""Labels of a block whose scores exist at one time: 49,152 float32 numbers each."""


class LossSum(NamedTuple):
    """What adds up over blocks, devices and accumulated steps; the loss is their quotient."""

    total: Float[Array, ""]
    """Sum of the cross-entropies."""
    count: Float[Array, ""]
    """How many tokens were counted."""


def sum_loss(
    params: Any,
    vectors: Float[Array, "N C A E"],
    num_vectors: Int[Array, "N C"],
    blocks: Block,
    config: TinyMUConfig,
    key: Array | None = None,
) -> LossSum:
    """Returns the summed cross-entropy of all labels of N blocks.

    Args:
        params: of projector and decoder; other parts are not read.
        vectors: the encoder's, of each block's clips.
        num_vectors: real ones of each clip.
        blocks: with a leading axis N.
        config: of the model.
        key: of dropout, the projector's and LoRA's; None leaves it out.
    """
    model = TinyMU(config)
    rngs = {} if key is None else {"dropout": key}

    def hidden_states(m: TinyMU) -> Array:
        flat = vectors.reshape(-1, *vectors.shape[2:])
        audio, _ = m.project(flat, num_vectors.reshape(-1), train=key is not None)
        return m.decode_packed(audio.reshape(*vectors.shape[:2], *audio.shape[1:]), blocks.rows)

    hidden = model.apply({"params": params}, method=hidden_states, rngs=rngs)
    predicting = jnp.take_along_axis(hidden, blocks.label_slots[..., None], axis=1)
    counted = counted_labels(blocks.labels, blocks.counted, config)

    def score(x: Array) -> Array:
        return model.apply({"params": params}, x, method=lambda m, x: m.decoder.logits(x))

    return LossSum(cross_entropy(score, predicting, blocks.labels, counted), counted.sum() * 1.0)


def cross_entropy(
    score: Callable[[Float[Array, "N y D"]], Float[Array, "N y V"]],
    hidden: Float[Array, "N Y D"],
    labels: Int[Array, "N Y"],
    counted: Bool[Array, "N Y"],
) -> Float[Array, ""]:
    """Returns the summed cross-entropy, a few labels at a time.

    The scores of one piece are made again on the way back, so that (labels, vocabulary) never
    exists whole.

    Args:
        score: turns hidden states into scores over the vocabulary.
        hidden: states that predict the labels.
        labels: token ids.
        counted: which labels are summed.
    """
    count = labels.shape[1]
    pieces = -(-count // SCORED_TOGETHER)
    size = -(-count // pieces)

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, pieces * size - count)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(x.shape[0], pieces, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def add(total: Array, piece: tuple[Array, Array, Array]) -> tuple[Array, None]:
        x, wanted, real = piece
        scores = score(x)
        picked = jnp.take_along_axis(scores, wanted[..., None], axis=-1)[..., 0]
        lost = jax.nn.logsumexp(scores, axis=-1) - picked
        return total + jnp.where(real, lost, 0).sum(), None

    pieces_of = tuple(cut(x) for x in (hidden, labels, counted))
    return jax.lax.scan(add, jnp.float32(0), pieces_of)[0]
