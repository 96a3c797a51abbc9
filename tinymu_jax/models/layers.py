"""Layers of encoder, projectors and decoder; `tinymu_jax.models` explains the axis letters."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from tinymu_jax.errors import InputError
from tinymu_jax.mesh import constrain
from tinymu_jax.models.config import ComputeDtype, GradientDtype, LoraConfig, Remat
from tinymu_jax.models.flash_attention import ATTENTION_OUTPUT
from tinymu_jax.models.lora import LoraFactors
from tinymu_jax.models.matmul import DTYPES, int8_matmul, matmul, matmul_transposed

DENSE_OUTPUT = "dense_output"
"""Name of the outputs of `Dense` for gradient checkpointing (`checkpoint_name`)."""
MAX_UNROLLED_LAYERS = 6
"""Largest number of layers for which `nn.scan` is unrolled, to avoid copies of activations."""


class Dense(nn.Module):
    """A linear layer with parameters `kernel` (D, M) and `bias` (M,); outputs have `compute_dtype`.

    With `float32_output` the output is float32, as losses need it. For inference, the kernel may be
    replaced by its transpose `rows` (M, D) in float32, bfloat16, or int8 with a `scale` (M,). A
    layer whose name is in `lora.targets` also has a LoRA adapter with the factors `lora/a` (D, r)
    and `lora/b` (r, M).
    """

    features: int
    use_bias: bool = True
    compute_dtype: ComputeDtype = "float32"
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    lora: LoraConfig | None = None
    float32_output: bool = False
    gradient_dtype: GradientDtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch M"]:
        if self.has_variable("params", "scale"):
            rows, scale = (self.get_variable("params", name) for name in ("rows", "scale"))
            y = int8_matmul(x, rows, scale)
        elif self.has_variable("params", "rows"):
            y = matmul_transposed(x, self.get_variable("params", "rows"), self.compute_dtype)
        else:
            kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
            y = matmul(x, kernel, self.compute_dtype, self.gradient_dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,))
        if self.lora is not None and self.name in self.lora.targets:
            x, a, b = LoraFactors(self.features, self.lora, name="lora")(x)
            y = y + matmul(matmul(x, a, self.compute_dtype), b, self.compute_dtype)
        dtype = jnp.float32 if self.float32_output else DTYPES[self.compute_dtype]
        return checkpoint_name(y.astype(dtype), DENSE_OUTPUT)


class JointDense(nn.Module):
    """Several linear layers without biases on the same input; returns the list of their outputs.

    `features` maps each layer's name to its output width M; the weights are `<name>/kernel` (D, M).
    For inference, one fused weight `joined` may replace the kernels. It is faster on CPUs.
    """

    features: Mapping[str, int]
    compute_dtype: ComputeDtype = "float32"
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    lora: LoraConfig | None = None
    gradient_dtype: GradientDtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> list[Float[Array, "*batch _"]]:
        if self.has_variable("params", "joined"):
            if self.lora is not None and set(self.lora.targets) & set(self.features):
                raise InputError("lora: fused weights cannot have adapters; merge it first")
            sizes = list(self.features.values())
            y = Dense(sum(sizes), False, self.compute_dtype, name="joined")(x)
            return jnp.split(y, list(itertools.accumulate(sizes))[:-1], axis=-1)
        return [
            Dense(
                size,
                False,
                self.compute_dtype,
                self.kernel_init,
                lora=self.lora,
                gradient_dtype=self.gradient_dtype,
                name=name,
            )(x)
            for name, size in self.features.items()
        ]


def gelu(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Return the exact GELU, computed in float32 by erf as in torch (faster than by erfc)."""
    y = x.astype(jnp.float32)
    return (y * (0.5 * (1 + jax.lax.erf(y * math.sqrt(0.5))))).astype(x.dtype)


class RMSNorm(nn.Module):
    """Divides vectors by their root mean square and multiplies them by a weight `scale` (D,).

    Computed in float32; the output has the input's dtype.
    """

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + self.eps) * scale
        return y.astype(x.dtype)


def layer_norm(eps: float, name: str, compute_dtype: ComputeDtype = "float32") -> nn.LayerNorm:
    """Return a LayerNorm whose variance is the mean of (x - mean)^2, computed as in torch.

    It computes in float32; its output has `compute_dtype`.
    """
    dtype = DTYPES[compute_dtype]
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, dtype=dtype, name=name)


def run_layers(
    parent: nn.Module,
    layer: type[nn.Module],
    options: dict[str, Any],
    depth: int,
    name: str,
    x: Array,
    shared: tuple[Any, ...],
    per_layer: Any = None,
    remat: Remat = "none",
) -> tuple[Array, Any]:
    """Apply `depth` layers in sequence to x; return the last x and the extra outputs of all layers.

    Layer i, built by `layer(**options)`, is called with x, `per_layer[i]` and `*shared`. It returns
    the next x and an extra output. In `parent`, the parameters of all layers are either stacked
    under `name`, or unrolled under `<name>_<i>`. If stacked, arrays in `per_layer` and in the extra
    outputs have a leading axis L; if unrolled, both are lists of length L. `remat` (see
    `MatpacConfig.remat`) affects stacked layers only.
    """
    if parent.has_variable("params", f"{name}_0"):
        outputs = []
        for i in range(depth):
            module = layer(**options, name=f"{name}_{i}")
            x, out = module(x, None if per_layer is None else per_layer[i], *shared)
            outputs.append(out)
        return x, outputs
    # With sharded weights XLA would otherwise shard activations by width, not by batch.
    x = constrain(x, "batch", *(None,) * (x.ndim - 1))
    if remat != "none":
        names = DENSE_OUTPUT, ATTENTION_OUTPUT
        save = jax.checkpoint_policies.save_only_these_names(*names)
        policy = save if remat == "attention" else None
        layer = nn.remat(layer, prevent_cse=False, policy=policy)
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, *(nn.broadcast for _ in shared)),
        length=depth,
        # In an unrolled scan, XLA would merge recomputation and forward pass (prevent_cse=False).
        unroll=depth if depth <= MAX_UNROLLED_LAYERS and remat == "none" else 1,
    )
    return scanned(**options, name=name)(x, per_layer, *shared)
