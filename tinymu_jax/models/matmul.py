"""Matrix products of activations and weights in float32, bfloat16, float16 or int8."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from tinymu_jax.models.config import ComputeDtype, GradientDtype

DTYPES: dict[ComputeDtype, Any] = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float16": jnp.float16,
}
"""Dtypes by name."""


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def matmul(
    x: Float[Array, "*batch D"],
    kernel: Array,
    compute_dtype: ComputeDtype = "float32",
    gradient_dtype: GradientDtype = "float32",
) -> Float[Array, "*batch M"]:
    """Return `x @ kernel` in float32, for a kernel (D, M).

    `compute_dtype` float32 means full float32 on every platform (a TPU's default is bfloat16);
    otherwise both operands are rounded, and sums are float32. The kernel's gradient is rounded to
    `gradient_dtype` before devices add theirs up.
    """
    return dot(x, kernel, (x.ndim - 1,), (0,), compute_dtype)


def dot(
    a: Array,
    b: Array,
    a_axes: tuple[int, ...],
    b_axes: tuple[int, ...],
    compute_dtype: ComputeDtype,
    out_dtype: ComputeDtype = "float32",
) -> Float[Array, "..."]:
    """Return the tensordot of a and b over `a_axes` and `b_axes`; see also `matmul`."""
    if compute_dtype != "float32":
        a, b = a.astype(DTYPES[compute_dtype]), b.astype(DTYPES[compute_dtype])
    return jax.lax.dot_general(
        a,
        b,
        ((a_axes, b_axes), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=DTYPES[out_dtype],
    )


def _matmul_forward(
    x: Array, kernel: Array, compute_dtype: ComputeDtype, gradient_dtype: GradientDtype
) -> tuple[Array, Any]:
    return matmul(x, kernel, compute_dtype), (x, kernel)


def _matmul_backward(
    compute_dtype: ComputeDtype, gradient_dtype: GradientDtype, residuals: Any, grad: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    # Without the barrier, XLA's CPU compiler fuses the operations that produce x and grad into the
    # transposed product for the kernel, and computes them one element at a time on one core.
    x, grad = _cpu_barrier(x, grad)
    batch_axes = tuple(range(x.ndim - 1))
    x_grad = dot(grad, kernel, (grad.ndim - 1,), (1,), compute_dtype)
    # dot_general transposes its first operand, so the narrower array goes first. (XLA's CPU
    # compiler cannot fuse the final transpose into a bfloat16 product, hence the second barrier.)
    if x.shape[-1] > grad.shape[-1]:
        product = dot(grad, x, batch_axes, batch_axes, compute_dtype, gradient_dtype)
        (transposed,) = _cpu_barrier(product)
        kernel_grad = transposed.T
    else:
        kernel_grad = dot(x, grad, batch_axes, batch_axes, compute_dtype, gradient_dtype)
    return x_grad.astype(x.dtype), kernel_grad.astype(kernel.dtype)


def _cpu_barrier(*arrays: Array) -> tuple[Array, ...]:
    """Return the arrays unchanged; on CPUs, keep XLA from fusing producers with consumers."""
    return jax.lax.platform_dependent(
        *arrays, cpu=lambda *same: jax.lax.optimization_barrier(same), default=lambda *same: same
    )


matmul.defvjp(_matmul_forward, _matmul_backward)


def matmul_transposed(
    x: Float[Array, "*batch D"], rows: Float[Array, "M D"], compute_dtype: ComputeDtype = "float32"
) -> Float[Array, "*batch M"]:
    """Return `x @ rows.T` in float32; on CPUs, this is faster than `matmul`."""
    return dot(x, rows, (x.ndim - 1,), (1,), compute_dtype)


def int8_matmul(
    x: Float[Array, "*batch D"], rows: Int8[Array, "M D"], scale: Float[Array, "M"]
) -> Float[Array, "*batch M"]:
    """Return `(x @ rows.T) * scale` in float32 without dequantizing the int8 weights `rows`.

    Each vector x is written as u (d0 + d1 / 128 + d2 / 128^2), with int8 vectors d and a number u.
    Integer products are exact and, on CPUs, several times faster than a conversion of the weights
    to float32. The rounding error is 2^-21 of a vector's largest |x|.
    """
    unit = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), 1e-30) / 127
    rest, digits = x / unit, []
    for _ in range(3):
        digit = jnp.round(rest)
        digits.append(digit.astype(jnp.int8))
        rest = (rest - digit) * 128
    stacked = jnp.stack(digits).reshape(-1, x.shape[-1])
    contract = (((1,), (1,)), ((), ()))
    if stacked.shape[0] == 3:
        # x is a single vector: as the first operand, the weights are read in place.
        sums = jax.lax.dot_general(rows, stacked, contract, preferred_element_type=jnp.int32).T
    else:
        sums = jax.lax.dot_general(stacked, rows, contract, preferred_element_type=jnp.int32)
    sums = sums.astype(jnp.float32).reshape(3, *x.shape[:-1], rows.shape[0])
    return (sums[0] + sums[1] / 128 + sums[2] / 128**2) * (unit * scale)
