"""Products with weights: float32 in full, bfloat16 factors, int8 weights."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int8

from tinymu_jax.models.config import ComputeDtype

DENSE_OUTPUT = "product"
"""Name of what a product with a weight gives, by which it is kept for the way back."""


def matmul(
    x: Float[Array, "*batch D"], kernel: Array, compute_dtype: ComputeDtype = "float32"
) -> Float[Array, "*batch M"]:
    """Returns `x @ kernel` in float32.

    `float32` asks for full float32 on every platform (a TPU would multiply in bfloat16 by
    default); `bfloat16` rounds both factors and sums in float32.
    """
    return checkpoint_name(_matmul(x, kernel, compute_dtype), DENSE_OUTPUT)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(x: Array, kernel: Array, compute_dtype: ComputeDtype) -> Array:
    return dot(x, kernel, (x.ndim - 1,), (0,), compute_dtype)


def dot(
    a: Array,
    b: Array,
    over_a: tuple[int, ...],
    over_b: tuple[int, ...],
    compute_dtype: ComputeDtype,
) -> Float[Array, "..."]:
    """Returns a and b summed over an axis or some of each, in float32; see `matmul`."""
    if compute_dtype == "bfloat16":
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jax.lax.dot_general(
        a,
        b,
        ((over_a, over_b), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _matmul_forward(x: Array, kernel: Array, compute_dtype: ComputeDtype) -> tuple[Array, Any]:
    return _matmul(x, kernel, compute_dtype), (x, kernel)


def _matmul_backward(compute_dtype: ComputeDtype, kept: Any, slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    # Without the barrier XLA's CPU compiler makes what leads to x and slope again, number by number
    # and on one core, in the turned order in which the kernel's gradient reads them.
    x, slope = _made_once(x, slope)
    leading = tuple(range(x.ndim - 1))
    to_x = dot(slope, kernel, (slope.ndim - 1,), (1,), compute_dtype)
    # The first factor is turned: let it be the narrower one. (XLA's CPU compiler has no product of
    # bfloat16 that is turned back at once.)
    if x.shape[-1] > slope.shape[-1]:
        (turned,) = _made_once(dot(slope, x, leading, leading, compute_dtype))
        to_kernel = turned.T
    else:
        to_kernel = dot(x, slope, leading, leading, compute_dtype)
    return to_x.astype(x.dtype), to_kernel


def _made_once(*arrays: Array) -> tuple[Array, ...]:
    """Returns arrays that a processor makes before it makes what they lead to."""
    return jax.lax.platform_dependent(
        *arrays, cpu=lambda *same: jax.lax.optimization_barrier(same), default=lambda *same: same
    )


_matmul.defvjp(_matmul_forward, _matmul_backward)


def matmul_transposed(
    x: Float[Array, "*batch D"], rows: Float[Array, "M D"], compute_dtype: ComputeDtype = "float32"
) -> Float[Array, "*batch M"]:
    """Returns `x @ rows.T`: a processor reads the weights of one output in one go."""
    if compute_dtype == "bfloat16":
        x, rows = x.astype(jnp.bfloat16), rows.astype(jnp.bfloat16)
    return jax.lax.dot_general(
        x,
        rows,
        (((x.ndim - 1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def int8_matmul(
    x: Float[Array, "*batch D"], rows: Int8[Array, "M D"], scale: Float[Array, "M"]
) -> Float[Array, "*batch M"]:
    """Returns `x @ (rows * scale).T` without ever making the float32 weights.

    Each x is written as three int8 digits to base 128 times one float; the products with the
    weights are then exact integer sums, which processors multiply several times faster than
    they turn int8 into float32. Three digits keep 2^-21 of the largest value of x.
    """
    unit = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), 1e-30) / 127
    rest, digits = x / unit, []
    for _ in range(3):
        digit = jnp.round(rest)
        digits.append(digit.astype(jnp.int8))
        rest = (rest - digit) * 128
    stacked = jnp.stack(digits).reshape(-1, x.shape[-1])
    dot = (((1,), (1,)), ((), ()))
    if stacked.shape[0] == 3:
        # One vector: with the weights first, they are read where they lie.
        sums = jax.lax.dot_general(rows, stacked, dot, preferred_element_type=jnp.int32).T
    else:
        sums = jax.lax.dot_general(stacked, rows, dot, preferred_element_type=jnp.int32)
    sums = sums.astype(jnp.float32).reshape(3, *x.shape[:-1], rows.shape[0])
    return (sums[0] + sums[1] / 128 + sums[2] / 128**2) * (unit * scale)
