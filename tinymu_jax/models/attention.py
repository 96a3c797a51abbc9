"""Softmax attention: the reference, and what it is replaced by on TPUs and GPUs in training."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import dot_product_attention
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from tinymu_jax.mesh import BATCH_AXES, LOGICAL_AXIS_RULES
from tinymu_jax.models.attention_mask import AttentionMask
from tinymu_jax.models.config import AttentionKind, ComputeDtype
from tinymu_jax.models.flash_attention import MASKED, FlashMask, flash_attention, flash_mask
from tinymu_jax.models.matmul import DTYPES

CUDNN = "cudnn"
"""Implementation of `jax.nn.dot_product_attention` on GPUs."""
CACHED_SCORES = 3 * 2**17
"""Number of float32 attention scores that fit into a CPU's cache (1.5 MB)."""
QUERY_BLOCK = 128
"""Number of queries per block in `causal_attention`; a block skips all keys that follow it."""


def prepare_mask(mask: AttentionMask, kind: AttentionKind) -> Any:
    """Return a mask in the form that `self_attention` takes; computed once for all layers."""
    return flash_mask(mask) if kind == "flash" else mask.dense()


def self_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    mask: Any,
    kind: AttentionKind,
    compute_dtype: ComputeDtype,
    causal: bool,
) -> Float[Array, "B T N*H"]:
    """Return the attention of a sequence's positions to each other; see `attend`.

    `mask` comes from `prepare_mask` for the same `kind`, or is an array as in `attend`, which the
    kernel for TPUs does not take: then attention is computed by XLA.
    """
    is_flash = isinstance(mask, FlashMask)
    if not is_flash and kind != "cudnn":
        attention = causal_attention if causal else attend
        return attention(query, key, value, mask, compute_dtype)
    query, key, value = (x.astype(DTYPES[compute_dtype]) for x in (query, key, value))
    if is_flash:
        return _on_each_device(flash_attention, query, key, value, mask)
    if mask is None:
        mask = jnp.ones((len(query), 1, key.shape[2]), bool)
    return _on_each_device(_cudnn_attention, query, key, value, mask)


def _cudnn_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    mask: Bool[Array, "B _ T"],
) -> Float[Array, "B T N*H"]:
    """Return `attend` as cuDNN computes it, which takes even lengths only."""
    batch, length, heads, width = query.shape
    odd = length % 2
    query = jnp.pad(query, ((0, 0), (0, odd), (0, 0), (0, 0)))
    key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, odd), (0, 0))) for x in (key, value))
    rows = odd if mask.shape[1] > 1 else 0
    mask = jnp.pad(mask, ((0, 0), (0, rows), (0, odd)))
    out = dot_product_attention(
        query,
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        # Heads share the mask.
        mask=mask[:, None],
        implementation=CUDNN,
    )
    return out[:, :length].reshape(batch, length, heads * width)


def _on_each_device(
    attention: Callable[..., Array], query: Array, key: Array, value: Array, mask: Any
) -> Array:
    """Run fused attention on every device of the mesh of `jax.set_mesh`, for its rows and heads.

    XLA cannot split a kernel by itself. Rows and heads that the mesh does not divide evenly are
    computed by every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return attention(query, key, value, mask)
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    axis = LOGICAL_AXIS_RULES["heads"]
    rows = BATCH_AXES if len(query) % devices == 0 else None
    heads = axis if key.shape[1] % mesh.shape[axis] == 0 else None
    split = jax.shard_map(
        attention,
        in_specs=(
            PartitionSpec(rows, None, heads),
            PartitionSpec(rows, heads),
            PartitionSpec(rows, heads),
            PartitionSpec(rows),
        ),
        out_specs=PartitionSpec(rows, None, heads),
        check_vma=False,
    )
    return split(query, key, value, mask)


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "*heads S H"],
    value: Float[Array, "*heads S H"],
    mask: Bool[Array, "B #T S"] | None = None,
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, "B T N*H"]:
    """Return the output of grouped-query softmax attention, with scores scaled by H**-0.5.

    Args:
        query: queries of N heads; N / K query heads share a key/value head.
        key: keys with leading axes (B, K), or (B*K,) in a key/value cache.
        value: values with the same leading axes as the keys.
        mask: True where query t may attend to key s; None masks no keys.
        compute_dtype: data type of the inputs of the matrix products, and of the output.
    """
    batch, num_queries, num_heads, width = query.shape
    # XLA would copy a cache that is reshaped between its update and its use: accept both shapes.
    heads, num_keys = key.shape[:-2], key.shape[-2]
    head_block = max(1, CACHED_SCORES // (num_queries * num_keys))
    if heads == (1, num_heads) and head_block < num_heads:
        # For one long sequence, compute a few heads at a time: their scores fit into the cache.
        blocks = [slice(i, i + head_block) for i in range(0, num_heads, head_block)]
        outputs = [
            attend(query[:, :, b], key[:, b], value[:, b], mask, compute_dtype) for b in blocks
        ]
        return jnp.concatenate(outputs, axis=-1)
    num_kv_heads = math.prod(heads) // batch
    grouped = query.reshape(batch, num_queries, num_kv_heads, -1, width).transpose(0, 2, 3, 1, 4)
    grouped = (grouped * width**-0.5).reshape(*heads, -1, num_queries, width)
    dtype = DTYPES[compute_dtype]
    options = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    scores = jnp.einsum("...GTH,...SH->...GTS", grouped.astype(dtype), key.astype(dtype), **options)
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, None, None], (batch, num_kv_heads, 1, *mask.shape[1:]))
        mask = mask.reshape(*heads, 1, *mask.shape[-2:])
        scores = jnp.where(mask, scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1)
    out = jnp.einsum("...GTS,...SH->...GTH", weights.astype(dtype), value.astype(dtype), **options)
    out = out.reshape(batch, num_kv_heads, -1, num_queries, width).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, num_queries, num_heads * width).astype(dtype)


def causal_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "*heads T H"],
    value: Float[Array, "*heads T H"],
    mask: Bool[Array, "B T T"],
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, "B T N*H"]:
    """Return the output of `attend` for a causal mask, at about half the cost."""
    ends = [*range(QUERY_BLOCK, query.shape[1], QUERY_BLOCK), query.shape[1]]
    outputs = [
        attend(query[:, a:b], key[..., :b, :], value[..., :b, :], mask[:, a:b, :b], compute_dtype)
        for a, b in itertools.pairwise([0, *ends])
    ]
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)
