"""Fine-tuning loss: cross-entropy of answer tokens in packed blocks of questions."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import ComputeDtype, TinyMUConfig
from tinymu_jax.models.matmul import dot, matmul_transposed
from tinymu_jax.models.packing import PackedBlock
from tinymu_jax.models.tinymu import TinyMU, loss_mask

CHUNK = 512
"""Maximum number of labels per block whose logits are in memory at once."""
FLOAT16_SCALE = 2**12
"""Factor of the gradients of logits, which are at most 1, in float16 products."""


class LossSum(NamedTuple):
    """Loss summed over a batch, and number of targets; sum / number is the mean loss."""

    loss_sum: Float[Array, ""]
    num_targets: Float[Array, ""]
    """Number of tokens, clips or patches in `loss_sum`."""
    aux: Any = ()
    """Tree of further sums over the batch, for `TrainTask.post_update`."""


def sum_loss(
    params: Any,
    vectors: Float[Array, "N C A E"] | Int[Array, "N C A"],
    num_vectors: Int[Array, "N C"],
    blocks: PackedBlock,
    config: TinyMUConfig,
    key: Array | None = None,
) -> LossSum:
    """Return the cross-entropy summed over the answer tokens of N blocks, and the token count.

    Args:
        params: model parameters; only projector and decoder are used.
        vectors: encoder outputs of each block's C clips, A per clip; or token ids of C texts.
        num_vectors: number of valid vectors of each clip.
        blocks: N packed blocks of questions, stacked.
        config: model config.
        key: random key of the dropout in projector and LoRA; None: no dropout.
    """
    model = TinyMU(config)
    rngs = {} if key is None else {"dropout": key}

    def hidden_states(m: TinyMU) -> Array:
        if jnp.issubdtype(vectors.dtype, jnp.integer):
            embedded = m.decoder.embed(vectors.reshape(-1, vectors.shape[-1]))
            return m.decode_packed(embedded.reshape(*vectors.shape, -1), blocks.rows)
        flat = vectors.reshape(-1, *vectors.shape[2:])
        audio, _ = m.project(flat, num_vectors.reshape(-1), train=key is not None)
        return m.decode_packed(audio.reshape(*vectors.shape[:2], *audio.shape[1:]), blocks.rows)

    hidden = model.apply({"params": params}, method=hidden_states, rngs=rngs)
    predicting = jnp.take_along_axis(hidden, blocks.label_positions[..., None], axis=1)
    counted = loss_mask(blocks.labels, blocks.label_mask, config)

    table = params["decoder"]["embed_tokens"]["embedding"]
    compute_dtype = config.decoder.compute_dtype
    loss_sum = cross_entropy(predicting, table, blocks.labels, counted, compute_dtype)
    return LossSum(loss_sum, counted.sum() * 1.0)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    hidden: Float[Array, "N Y D"],
    table: Float[Array, "V D"],
    labels: Int[Array, "N Y"],
    counted: Bool[Array, "N Y"],
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, ""]:
    """Return the summed cross-entropy of the counted labels, computed in chunks of labels.

    The forward pass also computes the gradients, so that the full logits are never in memory.
    `hidden` holds decoder outputs of width D that predict Y `labels` in each of N blocks. `table`
    holds the token embeddings, which are also the output layer. `counted` marks the labels to sum.
    """

    def add(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return total + _chunk_loss(table, compute_dtype, *chunk)[0], None

    return jax.lax.scan(add, jnp.float32(0), _chunks(hidden, labels, counted))[0]


def _forward(
    hidden: Array, table: Array, labels: Array, counted: Array, compute_dtype: ComputeDtype
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Return the summed cross-entropy, and its gradients with respect to `hidden` and `table`.

    The gradients stay float32 until they are multiplied by a loss scale. An empty array tells the
    dtype of `hidden`.
    """

    # Probabilities of one of 50,000 tokens are too small for float16.
    scale = FLOAT16_SCALE if compute_dtype == "float16" else 1

    def add(carry: tuple[Array, Array], chunk: tuple[Array, Array, Array]) -> tuple:
        total, d_table = carry
        loss, d_logits = _chunk_loss(table, compute_dtype, *chunk)
        d_logits = d_logits * scale
        d_hidden = dot(d_logits, table, (2,), (0,), compute_dtype) / scale
        d_table += dot(d_logits, chunk[0], (0, 1), (0, 1), compute_dtype) / scale
        return (total + loss, d_table), d_hidden

    start = (jnp.float32(0), jnp.zeros_like(table))
    (total, d_table), d_hidden = jax.lax.scan(add, start, _chunks(hidden, labels, counted))
    blocks, count = labels.shape
    d_hidden = jnp.moveaxis(d_hidden, 0, 1).reshape(blocks, -1, hidden.shape[-1])[:, :count]
    return total, (d_hidden, d_table, jnp.zeros(0, hidden.dtype))


def _backward(compute_dtype: ComputeDtype, gradients: tuple[Array, ...], factor: Array) -> tuple:
    """Multiply the gradients from `_forward` by the incoming gradient `factor`."""
    d_hidden, d_table, hidden = gradients
    return (factor * d_hidden).astype(hidden.dtype), factor * d_table, None, None


cross_entropy.defvjp(_forward, _backward)


def _chunk_loss(
    table: Array, compute_dtype: ComputeDtype, hidden: Array, labels: Array, counted: Array
) -> tuple[Array, Array]:
    """Return a chunk's summed cross-entropy, and its gradient with respect to the logits."""
    logits = matmul_transposed(hidden, table, compute_dtype)
    norm = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    one_hot = jnp.arange(table.shape[0]) == labels[..., None]
    d_logits = jnp.where(counted[..., None], jnp.exp(logits - norm) - one_hot, 0)
    return jnp.where(counted, (norm - picked)[..., 0], 0).sum(), d_logits


def _chunks(*arrays: Array) -> tuple[Array, ...]:
    """Zero-pad axis 1 (labels) of each array and cut it into chunks, which become axis 0."""
    count = arrays[0].shape[1]
    chunks = -(-count // CHUNK)
    size = -(-count // chunks)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, chunks * size - count)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(x.shape[0], chunks, size, *x.shape[2:]), 1, 0)

    return tuple(map(split, arrays))
