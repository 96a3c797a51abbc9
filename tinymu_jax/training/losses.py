"""The fine-tuning loss: cross-entropy of the answers' tokens, and of nothing else."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import ComputeDtype, TinyMUConfig
from tinymu_jax.models.matmul import dot, matmul_transposed
from tinymu_jax.models.packing import PackedBlock
from tinymu_jax.models.tinymu import TinyMU, loss_mask

SCORED_TOGETHER = 512
"""Labels of a block whose scores exist at one time: 49,152 float32 numbers each."""


class LossSum(NamedTuple):
    """What adds up over blocks, devices and accumulated steps; the loss is their quotient."""

    total: Float[Array, ""]
    """Sum of the cross-entropies."""
    count: Float[Array, ""]
    """How many tokens, clips or patches were counted."""
    told: Any = ()
    """A tree of other sums, for what `Learning.after` makes of them."""


def sum_loss(
    params: Any,
    vectors: Float[Array, "N C A E"] | Int[Array, "N C A"],
    num_vectors: Int[Array, "N C"],
    blocks: PackedBlock,
    config: TinyMUConfig,
    key: Array | None = None,
) -> LossSum:
    """Returns the summed cross-entropy of all labels of N blocks.

    Args:
        params: of projector and decoder; other parts are not read.
        vectors: the encoder's, of each block's clips; or the tokens of texts in their place.
        num_vectors: real ones of each clip.
        blocks: with a leading axis N.
        config: of the model.
        key: of dropout, the projector's and LoRA's; None leaves it out.
    """
    model = TinyMU(config)
    rngs = {} if key is None else {"dropout": key}

    def hidden_states(m: TinyMU) -> Array:
        if jnp.issubdtype(vectors.dtype, jnp.integer):
            said = m.decoder.embed(vectors.reshape(-1, vectors.shape[-1]))
            return m.decode_packed(said.reshape(*vectors.shape, -1), blocks.rows)
        flat = vectors.reshape(-1, *vectors.shape[2:])
        audio, _ = m.project(flat, num_vectors.reshape(-1), train=key is not None)
        return m.decode_packed(audio.reshape(*vectors.shape[:2], *audio.shape[1:]), blocks.rows)

    hidden = model.apply({"params": params}, method=hidden_states, rngs=rngs)
    predicting = jnp.take_along_axis(hidden, blocks.label_positions[..., None], axis=1)
    counted = loss_mask(blocks.labels, blocks.label_mask, config)

    table = params["decoder"]["embed_tokens"]["embedding"]
    compute_dtype = config.decoder.compute_dtype
    total = cross_entropy(predicting, table, blocks.labels, counted, compute_dtype)
    return LossSum(total, counted.sum() * 1.0)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    hidden: Float[Array, "N Y D"],
    table: Float[Array, "V D"],
    labels: Int[Array, "N Y"],
    counted: Bool[Array, "N Y"],
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, ""]:
    """Returns the summed cross-entropy, a few labels at a time.

    The scores are computed once: where there is a gradient, each piece's is taken at once, since
    that of a sum does not depend on what comes after. (labels, vocabulary) never exists whole.

    Args:
        hidden: states that predict the labels.
        table: the decoder's embedding, which scores them.
        labels: token ids.
        counted: which labels are summed.
        products: as in `tinymu_jax.models.matmul.matmul`.
    """

    def add(total: Array, piece: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return total + _lost(table, compute_dtype, *piece)[0], None

    return jax.lax.scan(add, jnp.float32(0), _pieces(hidden, labels, counted))[0]


def _with_slopes(
    hidden: Array, table: Array, labels: Array, counted: Array, compute_dtype: ComputeDtype
) -> tuple[Array, tuple[Array, Array]]:
    """Returns the sum, and its gradient by hidden states and table."""

    def add(carry: tuple[Array, Array], piece: tuple[Array, Array, Array]) -> tuple:
        total, to_table = carry
        lost, slope = _lost(table, compute_dtype, *piece)
        to_x = dot(slope, table, (2,), (0,), compute_dtype)
        to_table += dot(slope, piece[0], (0, 1), (0, 1), compute_dtype)
        return (total + lost, to_table), to_x

    start = (jnp.float32(0), jnp.zeros_like(table))
    (total, to_table), slopes = jax.lax.scan(add, start, _pieces(hidden, labels, counted))
    blocks, count = labels.shape
    to_hidden = jnp.moveaxis(slopes, 0, 1).reshape(blocks, -1, hidden.shape[-1])[:, :count]
    return total, (to_hidden, to_table)


def _times(compute_dtype: ComputeDtype, slopes: tuple[Array, Array], factor: Array) -> tuple:
    to_hidden, to_table = slopes
    return factor * to_hidden, factor * to_table, None, None


cross_entropy.defvjp(_with_slopes, _times)


def _lost(
    table: Array, compute_dtype: ComputeDtype, x: Array, wanted: Array, real: Array
) -> tuple[Array, Array]:
    """Returns the sum over one piece, and its gradient by the scores, (N, y, V)."""
    scores = matmul_transposed(x, table, compute_dtype)
    norm = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
    picked = jnp.take_along_axis(scores, wanted[..., None], axis=-1)
    is_wanted = jnp.arange(table.shape[0]) == wanted[..., None]
    slope = jnp.where(real[..., None], jnp.exp(scores - norm) - is_wanted, 0)
    return jnp.where(real, (norm - picked)[..., 0], 0).sum(), slope


def _pieces(*arrays: Array) -> tuple[Array, ...]:
    """Cuts the label axis of each array into pieces of one length, with empty ones at the end."""
    count = arrays[0].shape[1]
    pieces = -(-count // SCORED_TOGETHER)
    size = -(-count // pieces)

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, pieces * size - count)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(x.shape[0], pieces, size, *x.shape[2:]), 1, 0)

    return tuple(map(cut, arrays))
