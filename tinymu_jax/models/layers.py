"""Layers shared by the encoder, the projectors and the decoder.

The package docstring has the legend of axis letters and the two parameter layouts.
"""

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
"""Score of a masked key. Finite, so that a fully masked row gives no NaN."""

CACHED_SCORES = 3 * 2**17
"""Attention scores that fit into a CPU's cache (1.5 MB)."""

QUERY_BLOCK = 128
"""Queries per block of `causal_attention`."""

MAX_UNROLLED_LAYERS = 6
"""Up to this depth `nn.scan` is unrolled, which saves writes into the stacked activations."""


class Dense(nn.Module):
    """A linear layer with float32 input and output: `kernel` (D, M) and `bias` (M,).

    The unrolled layout has `rows` (M, D) instead of the kernel: float32, bfloat16, or int8 with a
    `scale` (M,). If `lora` targets this layer's name, there are also `lora/a` (D, r) and
    `lora/b` (r, M).
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
    """Several linear layers of the same input, without biases: `<name>/kernel` (D, M) each.

    The unrolled layout fuses them into one weight `joined`: on a CPU the overhead of a small
    matrix product exceeds its compute.
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
    """Returns the exact GELU, in torch's erf form (three times cheaper than by erfc)."""
    return x * (0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))))


class RMSNorm(nn.Module):
    """Root-mean-square normalization with a `scale` (D,)."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale


def layer_norm(eps: float, name: str) -> nn.LayerNorm:
    """Returns a LayerNorm that computes the variance as torch does, around the mean."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, name=name)


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "*heads S H"],
    value: Float[Array, "*heads S H"],
    mask: Bool[Array, "B #T S"] | None = None,
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, "B T N*H"]:
    """Returns grouped-query softmax attention, with scores scaled by H**-0.5.

    Args:
        query: queries; N / K query heads share a key/value head.
        key: keys, with leading axes (B, K), or (B*K,) as in a cache.
        value: values, with the axes of `key`.
        mask: True where query t may attend to key s.
        compute_dtype: inputs of the matrix products; see `matmul`.
    """
    batch, num_queries, num_heads, width = query.shape
    # XLA copies a cache that is reshaped between its update and its use, hence the two forms.
    heads, num_keys = key.shape[:-2], key.shape[-2]
    head_block = max(1, CACHED_SCORES // (num_queries * num_keys))
    if heads == (1, num_heads) and head_block < num_heads:
        # One long sequence: a few heads at a time, so that their scores stay in the cache.
        blocks = [slice(i, i + head_block) for i in range(0, num_heads, head_block)]
        outputs = [
            attend(query[:, :, b], key[:, b], value[:, b], mask, compute_dtype) for b in blocks
        ]
        return jnp.concatenate(outputs, axis=-1)
    num_kv_heads = math.prod(heads) // batch
    grouped = query.reshape(batch, num_queries, num_kv_heads, -1, width).transpose(0, 2, 3, 1, 4)
    grouped = (grouped * width**-0.5).reshape(*heads, -1, num_queries, width)
    dtype = jnp.bfloat16 if compute_dtype == "bfloat16" else jnp.float32
    options = {
        "precision": jax.lax.Precision.HIGHEST,
        "preferred_element_type": jnp.float32,
    }
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
    """Returns `attend` for a causal mask with about half the work.

    Queries are processed in blocks of `QUERY_BLOCK`; keys after a block are not computed.
    """
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
    """Applies `depth` layers to x, with stacked or unrolled parameters.

    Args:
        parent: the module that owns the layers.
        layer: module class, called as `layer(**options)(x, per_layer[i], *shared) -> (x, out_i)`.
        options: fields of the layer.
        depth: number of layers L.
        name: `<name>` holds the stacked parameters, `<name>_<i>` the unrolled ones.
        x: input of the first layer.
        shared: arguments that are the same for all layers.
        per_layer: a tree with a leading axis L (stacked), a list of trees (unrolled), or None.
        remat: gradient checkpointing of stacked layers; see `MatpacConfig.remat`.

    Returns:
        The last layer's x, and the outputs of all layers: stacked, or a list.
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
        # Unrolled, XLA would merge the recomputation with the forward pass (prevent_cse is off).
        unroll=depth if depth <= MAX_UNROLLED_LAYERS and remat == "none" else 1,
    )
    return scanned(**options, name=name)(x, per_layer, *shared)
