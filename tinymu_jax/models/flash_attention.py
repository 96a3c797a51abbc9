"""Fused attention for TPUs whose mask is computed in the kernel from a few ids per position.

Scores and masks stay in on-chip memory (Dao et al., arXiv 2205.14135). Keys of other groups are
skipped by blocks, since a row's groups follow each other. Arrays have positions as the last axis:
on TPUs, a head width of 64 there would be padded to 128.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from tinymu_jax.models.attention_mask import AttentionMask

MASKED = -1e30
"""Score of a masked key; finite, so that a query without visible keys gives no NaN."""
LOWEST_MAX = -1e29
"""Initial maximum of a query's scores; far above `MASKED`, so that a masked key's weight is 0."""
BLOCK_SIZES = (256, 128)
"""Numbers of queries and keys per block, best first; the first that divides a row is taken."""
ATTENTION_OUTPUT = "attention_output"
"""Name of the outputs for gradient checkpointing: with them, no attention is computed again."""
UNROLL = 4
"""Number of heads that are computed side by side, unless more share a key/value head."""
HIDDEN_KEY, NO_QUERY = -2, -3
"""Ids of keys that no query attends to, and of queries that pad a row."""


class _CallOptions(NamedTuple):
    """Static sizes and options of a call."""

    heads: int
    kv_heads: int
    block: int
    causal: bool
    interpret: bool

    def for_each_head(self, run: Callable[[Any, Any], None]) -> None:
        """Call `run` with the index of each head and of its key/value head.

        A few heads at a time are unrolled, so that their products and exponentials overlap.
        """
        group = self.heads // self.kv_heads
        sizes = [n for n in range(2, UNROLL // group + 1) if self.kv_heads % n == 0]
        kv_heads_per_step = max(sizes, default=1)

        def run_step(step: Any, _: None) -> None:
            for kv_head in (step * kv_heads_per_step + i for i in range(kv_heads_per_step)):
                for i in range(group):
                    run(kv_head * group + i, kv_head)

        jax.lax.fori_loop(0, self.kv_heads // kv_heads_per_step, run_step, None)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["bounds", "query", "key"],
    meta_fields=["block", "causal"],
)
@dataclass(frozen=True)
class FlashMask:
    """What the kernel computes the mask from: ids, padded to whole blocks of positions."""

    # Any: jax also puts other things than arrays into a pytree.
    bounds: Any
    """(B, blocks, 2): first and last key block, exclusive, that a block of queries attends to."""
    query: Any
    """(B, ids, S): the group and the levels of queries."""
    key: Any
    """(B, blocks, block, ids): the same of keys; the group of hidden keys is `HIDDEN_KEY`."""
    block: int
    """Number of queries, and of keys, that are computed together."""
    causal: bool


def block_size(length: int) -> int:
    """Return the number of positions per block for rows of a length; rows are padded to blocks."""
    padded = -(-length // BLOCK_SIZES[-1]) * BLOCK_SIZES[-1]
    return next(size for size in BLOCK_SIZES if padded % size == 0)


def flash_mask(mask: AttentionMask) -> FlashMask:
    """Return a mask as the kernel takes it."""
    group = mask.group
    block = block_size(group.shape[1])
    length = -(-group.shape[1] // block) * block
    pad = ((0, 0), (0, length - group.shape[1]))
    key_group = group if mask.key_mask is None else jnp.where(mask.key_mask, group, HIDDEN_KEY)
    levels = [jnp.pad(level, pad) for level in mask.levels]
    query = [jnp.pad(group, pad, constant_values=NO_QUERY), *levels]
    key = [jnp.pad(key_group, pad, constant_values=HIDDEN_KEY), *levels]
    blocks = length // block
    last = jnp.arange(1, blocks + 1) if mask.causal else jnp.full(blocks, blocks)
    first = jnp.zeros((len(group), blocks), jnp.int32)
    if mask.causal:
        # A group's positions follow each other: no query attends to what precedes its group.
        begins = jnp.diff(query[0], axis=1, prepend=query[0][:, :1]) != 0
        start = jax.lax.cummax(jnp.where(begins, jnp.arange(length), 0), axis=1)
        first = start[:, ::block] // block
    bounds = jnp.stack([first, jnp.broadcast_to(last, first.shape)], -1).astype(jnp.int32)
    keys = jnp.stack(key, -1).reshape(len(group), blocks, block, -1).astype(jnp.int32)
    return FlashMask(bounds, jnp.stack(query, 1).astype(jnp.int32), keys, block, mask.causal)


def flash_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    mask: FlashMask,
) -> Float[Array, "B T N*H"]:
    """Return the output of grouped-query softmax attention, with scores scaled by H**-0.5.

    Matrix products take the arrays' dtype and sum in float32; softmax is float32. A query that
    attends to no key gives zeros. On other platforms than TPUs, Pallas interprets the kernel.
    """
    batch, length, heads, _ = query.shape
    pad = mask.query.shape[-1] - length
    query, key, value = (
        jnp.pad(x, [(0, pad if i == axis else 0) for i in range(4)])
        for x, axis in ((query, 1), (key, 2), (value, 2))
    )
    arguments = (
        query.transpose(0, 2, 3, 1),  # (B, N, H, T)
        *(_key_blocks(x, mask.block) for x in (key, value)),
        mask,
    )
    options = _CallOptions(heads, key.shape[1], mask.block, mask.causal, interpret=False)
    out = jax.lax.platform_dependent(
        *arguments,
        tpu=partial(_attention, options=options),
        default=partial(_attention, options=options._replace(interpret=True)),
    )
    return out[..., :length].transpose(0, 3, 1, 2).reshape(batch, length, -1)


def _key_blocks(x: Array, block: int) -> Float[Array, "B blocks K H block"]:
    """Split the positions of keys or values (B, K, T, H) into blocks, and put them last."""
    batch, heads, length, width = x.shape
    return x.reshape(batch, heads, length // block, block, width).transpose(0, 2, 1, 4, 3)


@partial(jax.custom_vjp, nondiff_argnames=("options",))
def _attention(
    query: Array, key: Array, value: Array, ids: FlashMask, options: _CallOptions
) -> Array:
    return _run_forward(query, key, value, ids, options)[0]


def _attention_forward(
    query: Array, key: Array, value: Array, ids: FlashMask, options: _CallOptions
) -> tuple[Array, Any]:
    out, log_sum = _run_forward(query, key, value, ids, options)
    out = checkpoint_name(out, ATTENTION_OUTPUT)
    log_sum = checkpoint_name(log_sum, ATTENTION_OUTPUT)
    return out, (query, key, value, ids, out, log_sum)


def _attention_backward(options: _CallOptions, residuals: Any, grad: Array) -> tuple[Any, ...]:
    return (*_run_backward(*residuals, grad, options), None)


_attention.defvjp(_attention_forward, _attention_backward)


def _dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Float[Array, "_ _"]:
    """Return the float32 product of two matrices over an axis of each."""
    return jax.lax.dot_general(
        a,
        b,
        (((a_axis,), (b_axis,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def _visible(query_ids: Any, key_ids: Any, i: Array, j: Array, options: _CallOptions) -> Array:
    """Return the mask (keys, queries) of a block of queries i and a block of keys j."""
    keys, queries = key_ids[0, j], query_ids[0]
    visible = keys[:, :1] == queries[:1]
    for level in range(1, queries.shape[0]):
        ids = keys[:, level : level + 1]
        visible &= (ids == queries[level : level + 1]) | (ids == 0)
    if options.causal:
        size = (options.block, options.block)
        key_place, query_place = (
            number * options.block + jax.lax.broadcasted_iota(jnp.int32, size, axis)
            for axis, number in enumerate((j, i))
        )
        visible &= key_place <= query_place
    return visible


def _forward_kernel(
    bounds: Any,
    query_ids: Any,
    key_ids: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    log_sum: Any,
    *scratch: Any,
    options: _CallOptions,
) -> None:
    """Compute the attention of one block of queries of one row, over all heads."""
    highest, total, weighted = scratch
    row, i = pl.program_id(0), pl.program_id(1)
    scale = query.shape[2] ** -0.5
    highest[...] = jnp.full(highest.shape, LOWEST_MAX, jnp.float32)
    total[...] = jnp.zeros(total.shape, jnp.float32)
    weighted[...] = jnp.zeros(weighted.shape, jnp.float32)

    def add_keys(j: Array, _: None) -> None:
        visible = _visible(query_ids, key_ids, i, j, options)

        def add(head: Any, kv_head: Any) -> None:
            scores = _dot(key[0, j, kv_head], query[0, head], 0, 0) * scale
            scores = jnp.where(visible, scores, MASKED)
            old = highest[head]
            new = jnp.maximum(old, scores.max(0, keepdims=True))
            weights, shrink = jnp.exp(scores - new), jnp.exp(old - new)
            highest[head] = new
            total[head] = total[head] * shrink + weights.sum(0, keepdims=True)
            weights = weights.astype(value.dtype)
            weighted[head] = weighted[head] * shrink + _dot(value[0, j, kv_head], weights, 1, 0)

        options.for_each_head(add)

    def finish(head: Any, _: Any) -> None:
        empty = total[head] == 0
        divisor = jnp.where(empty, 1.0, total[head])
        out[0, head] = (weighted[head] / divisor).astype(out.dtype)
        log_sum[0, head] = jnp.where(empty, 0.0, highest[head] + jnp.log(divisor))

    jax.lax.fori_loop(bounds[row, i, 0], bounds[row, i, 1], add_keys, None)
    options.for_each_head(finish)


def _backward_kernel(
    bounds: Any,
    query_ids: Any,
    key_ids: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    log_sum: Any,
    grad: Any,
    query_grad: Any,
    key_grad: Any,
    value_grad: Any,
    *scratch: Any,
    options: _CallOptions,
) -> None:
    """Compute one block of queries' gradients, and add to those of the row's keys and values."""
    query_sum, key_sum, value_sum, mean = scratch
    row, i = pl.program_id(0), pl.program_id(1)
    scale = query.shape[2] ** -0.5
    query_sum[...] = jnp.zeros(query_sum.shape, jnp.float32)

    @pl.when(i == 0)
    def _() -> None:
        key_sum[...] = jnp.zeros(key_sum.shape, jnp.float32)
        value_sum[...] = jnp.zeros(value_sum.shape, jnp.float32)

    def average(head: Any, _: Any) -> None:
        product = grad[0, head].astype(jnp.float32) * out[0, head].astype(jnp.float32)
        mean[head] = product.sum(0, keepdims=True)

    def add_keys(j: Array, _: None) -> None:
        visible = _visible(query_ids, key_ids, i, j, options)

        def add(head: Any, kv_head: Any) -> None:
            keys, queries, grads = key[0, j, kv_head], query[0, head], grad[0, head]
            scores = _dot(keys, queries, 0, 0) * scale
            weights = jnp.exp(jnp.where(visible, scores, MASKED) - log_sum[0, head])
            value_sum[j, kv_head] += _dot(grads, weights.astype(grads.dtype), 1, 1)
            weight_grad = _dot(value[0, j, kv_head], grads, 0, 0)
            score_grad = (weights * (weight_grad - mean[head]) * scale).astype(queries.dtype)
            key_sum[j, kv_head] += _dot(queries, score_grad, 1, 1)
            query_sum[head] += _dot(keys, score_grad, 1, 0)

        options.for_each_head(add)

    options.for_each_head(average)
    jax.lax.fori_loop(bounds[row, i, 0], bounds[row, i, 1], add_keys, None)
    query_grad[0] = query_sum[...].astype(query_grad.dtype)

    @pl.when(i == pl.num_programs(1) - 1)
    def _() -> None:
        key_grad[0] = key_sum[...].astype(key_grad.dtype)
        value_grad[0] = value_sum[...].astype(value_grad.dtype)


def _specs(query: Array, key: Array, ids: FlashMask, block: int) -> tuple[pl.BlockSpec, ...]:
    """Return the blocks of ids of queries and keys, queries, keys or values, and log-sums."""
    _, heads, width, _ = query.shape

    def whole(x: Array) -> pl.BlockSpec:
        return pl.BlockSpec((1, *x.shape[1:]), lambda b, i, _: (b, *(0,) * (x.ndim - 1)))

    return (
        pl.BlockSpec((1, ids.query.shape[1], block), lambda b, i, _: (b, 0, i)),
        whole(ids.key),
        pl.BlockSpec((1, heads, width, block), lambda b, i, _: (b, 0, 0, i)),
        whole(key),
        pl.BlockSpec((1, heads, 1, block), lambda b, i, _: (b, 0, 0, i)),
    )


def _call(
    kernel: Any,
    ids: FlashMask,
    arrays: tuple[Array, ...],
    outputs: list[jax.ShapeDtypeStruct],
    specs: tuple[list[pl.BlockSpec], list[pl.BlockSpec]],
    scratch: list[tuple[int, ...]],
    products: int,
    options: _CallOptions,
) -> tuple[Array, ...]:
    """Run a kernel for every block of queries of every row, whose blocks run one after another."""
    batch, heads, width, length = arrays[0].shape
    pairs = batch * heads * length * length // (2 if options.causal else 1)
    size = sum(x.size * x.dtype.itemsize for x in (*arrays, *outputs))
    results = pl.pallas_call(
        partial(kernel, options=options),
        out_shape=outputs,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, length // options.block),
            in_specs=specs[0],
            out_specs=specs[1],
            scratch_shapes=[pltpu.VMEM(sizes, jnp.float32) for sizes in scratch],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * pairs * width, bytes_accessed=size, transcendentals=pairs
        ),
        interpret=options.interpret,
        name=kernel.__name__.strip("_"),
    )(ids.bounds, ids.query, ids.key, *arrays)
    return tuple(results)


def _run_forward(
    query: Array, key: Array, value: Array, ids: FlashMask, options: _CallOptions
) -> tuple[Array, Array]:
    """Return the output and the logarithm of each query's sum of exponentials."""
    batch, heads, width, length = query.shape
    query_ids, key_ids, queries, keys, sums = _specs(query, key, ids, options.block)
    outputs = [
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        jax.ShapeDtypeStruct((batch, heads, 1, length), jnp.float32),
    ]
    specs = [query_ids, key_ids, queries, keys, keys], [queries, sums]
    scratch = [(heads, 1, options.block)] * 2 + [(heads, width, options.block)]
    arrays = (query, key, value)
    out, log_sum = _call(_forward_kernel, ids, arrays, outputs, specs, scratch, 2, options)
    return out, log_sum


def _run_backward(
    query: Array,
    key: Array,
    value: Array,
    ids: FlashMask,
    out: Array,
    log_sum: Array,
    grad: Array,
    options: _CallOptions,
) -> tuple[Array, ...]:
    """Return the gradients of queries, keys and values."""
    _, heads, width, _ = query.shape
    query_ids, key_ids, queries, keys, sums = _specs(query, key, ids, options.block)
    specs = (
        [query_ids, key_ids, queries, keys, keys, queries, sums, queries],
        [queries, keys, keys],
    )
    outputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)]
    block = options.block
    scratch = [(heads, width, block), key.shape[1:], key.shape[1:], (heads, 1, block)]
    arrays = (query, key, value, out, log_sum, grad)
    return _call(_backward_kernel, ids, arrays, outputs, specs, scratch, 5, options)
