"""Layers of encoder, projectors and decoder; `tinymu_jax.models` explains the axis letters."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tinymu_jax.errors import InputError
from tinymu_jax.mesh import constrain
from tinymu_jax.models.config import ComputeDtype, LoraConfig, Remat
from tinymu_jax.models.lora import LoraFactors
from tinymu_jax.models.matmul import DENSE_OUTPUT, int8_matmul, matmul, matmul_transposed

MASKED = -1e30
"""Attention score of a masked key; finite, so that a query without visible keys gives no NaN."""
CACHED_SCORES = 3 * 2**17
"""Number of float32 attention scores that fit into a CPU's cache (1.5 MB)."""
QUERY_BLOCK = 128
"""Number of queries per block in `causal_attention`; a block skips all keys that follow it."""
MAX_UNROLLED_LAYERS = 6
"""Largest number of layers for which `nn.scan` is unrolled, to avoid copies of activations."""


class Dense(nn.Module):
    """A linear layer with float32 input and output, and parameters `kernel` (D, M), `bias` (M,).

    For inference, the kernel may be replaced by its transpose `rows` (M, D) in float32, bfloat16,
    or int8 with a `scale` (M,). A layer whose name is in `lora.targets` also has a LoRA adapter
    with the factors `lora/a` (D, r) and `lora/b` (r, M).
    """

    features: int
    use_bias: bool = True
    compute_dtype: ComputeDtype = "float32"
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch M"]:
        if self.has_variable("params", "scale"):
            rows, scale = (self.get_variable("params", name) for name in ("rows", "scale"))
            y = int8_matmul(x, rows, scale)
        elif self.has_variable("params", "rows"):
            y = matmul_transposed(x, self.get_variable("params", "rows"), self.compute_dtype)
        else:
            kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
            y = matmul(x, kernel, self.compute_dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,))
        if self.lora is not None and self.name in self.lora.targets:
            x, a, b = LoraFactors(self.features, self.lora, name="lora")(x)
            y = y + matmul(matmul(x, a, self.compute_dtype), b, self.compute_dtype)
        return y


class JointDense(nn.Module):
    """Several linear layers without biases on the same input; returns the list of their outputs.

    `features` maps each layer's name to its output width M; the weights are `<name>/kernel` (D, M).
    For inference, one fused weight `joined` may replace the kernels. It is faster on CPUs.
    """

    features: Mapping[str, int]
    compute_dtype: ComputeDtype = "float32"
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> list[Float[Array, "*batch _"]]:
        if self.has_variable("params", "joined"):
            if self.lora is not None and set(self.lora.targets) & set(self.features):
                raise InputError("lora: fused weights cannot have adapters; merge it first")
            sizes = list(self.features.values())
            y = Dense(sum(sizes), False, self.compute_dtype, name="joined")(x)
            return jnp.split(y, list(itertools.accumulate(sizes))[:-1], axis=-1)
        return [
            Dense(size, False, self.compute_dtype, self.kernel_init, lora=self.lora, name=name)(x)
            for name, size in self.features.items()
        ]


def gelu(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Return the exact GELU, computed by erf as in torch (three times faster than by erfc)."""
    return x * (0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))))


class RMSNorm(nn.Module):
    """Divides vectors by their root mean square and multiplies them by a weight `scale` (D,)."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale


def layer_norm(eps: float, name: str) -> nn.LayerNorm:
    """Return a LayerNorm whose variance is the mean of (x - mean)^2, computed as in torch."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, name=name)


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
        compute_dtype: data type of the inputs of the matrix products; see `matmul`.
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
    dtype = jnp.bfloat16 if compute_dtype == "bfloat16" else jnp.float32
    options = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    scores = jnp.einsum("...GTH,...SH->...GTS", grouped.astype(dtype), key.astype(dtype), **options)
    if mask is not None:
        mask = jnp.broadcast_to(mask[:, None, None], (batch, num_kv_heads, 1, *mask.shape[1:]))
        mask = mask.reshape(*heads, 1, *mask.shape[-2:])
        scores = jnp.where(mask, scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1)
    out = jnp.einsum("...GTS,...SH->...GTH", weights.astype(dtype), value.astype(dtype), **options)
    out = out.reshape(batch, num_kv_heads, -1, num_queries, width).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, num_queries, num_heads * width)


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
        save_dense = jax.checkpoint_policies.save_only_these_names(DENSE_OUTPUT)
        policy = save_dense if remat == "attention" else None
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
