"""Layers that the encoder, the projectors and the decoder share.

Axis letters, here and in the whole project:
    B batch, T query positions, S key positions, N query heads, K key/value heads, G = N / K,
    H head width, D model width, M hidden width, L layers, V vocabulary, F mel bands, A audio
    vectors, C chunks.

A tree of parameters comes in one of two layouts, and every module takes both:
    *stacked* (training, checkpoints): one array per weight for all layers, leading axis L, run by
    `nn.scan`; *unrolled* (inference, made by `tinymu_jax.inference.param_layout`): one subtree per
    layer, projections of one input joined, weights optionally in bfloat16 or int8.
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
"""Added in place of a masked score; finite, so that a row with nothing to see stays finite."""

CACHED_SCORES = 3 * 2**17
"""Attention scores that fit into a processor's cache (1.5 MB)."""


class Dense(nn.Module):
    """A linear layer, float32 in and out: parameters `kernel` (D, M) and `bias` (M,).

    The unrolled layout has `rows` (M, D) in the kernel's place: float32, bfloat16, or int8 with a
    `scale` (M,). `lora` adds to a layer whose name is among its targets, with parameters
    `lora/a` (D, r) and `lora/b` (r, M).
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
            given = (self.get_variable("params", name) for name in ("rows", "scale"))
            y = int8_matmul(x, *given)
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
    """Several linear layers of one input, without biases: `<name>/kernel` (D, M) each.

    The unrolled layout joins them into one product, `joined`, since a small product costs a
    processor more to start than to compute.
    """

    features: Mapping[str, int]
    compute_dtype: ComputeDtype = "float32"
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> list[Float[Array, "*batch _"]]:
        if self.has_variable("params", "joined"):
            if self.lora is not None and set(self.lora.targets) & set(self.features):
                raise InputError("lora: joined weights have no room for it; merge it before")
            total = sum(self.features.values())
            y = Dense(total, use_bias=False, compute_dtype=self.compute_dtype, name="joined")(x)
            pieces, start = [], 0
            for size in self.features.values():
                pieces.append(y[..., start : start + size])
                start += size
            return pieces
        return [
            Dense(size, False, self.compute_dtype, self.kernel_init, lora=self.lora, name=name)(x)
            for name, size in self.features.items()
        ]


def gelu(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Returns the exact GELU as torch writes it: a third of the work of one by erfc."""
    return x * (0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))))


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a `scale` (D,)."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale


def layer_norm(eps: float, name: str) -> nn.LayerNorm:
    """Returns a LayerNorm whose variance is taken around the mean, as torch takes it."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, name=name)


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "*heads S H"],
    value: Float[Array, "*heads S H"],
    mask: Bool[Array, "B #T S"] | None = None,
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, "B T N*H"]:
    """Returns softmax attention, scaled by H**-0.5; G = N / K query heads share a key head.

    Args:
        query: per position and head.
        key: heads are (B, K), or (B*K,) as a cache holds them: a cache that is reshaped between
            its update and its use is copied whole by XLA on every step.
        value: as `key`.
        mask: True where query t sees key s.
        products: as in `matmul`.
    """
    batch, steps, num_heads, width = query.shape
    heads, slots = key.shape[:-2], key.shape[-2]
    together = max(1, CACHED_SCORES // (steps * slots))
    if heads == (1, num_heads) and together < num_heads:
        # A long row alone: few heads at a time, so that their scores stay in the cache.
        pieces = range(0, num_heads, together)
        cut = [
            (query[:, :, i : i + together], *(x[:, i : i + together] for x in (key, value)))
            for i in pieces
        ]
        return jnp.concatenate([attend(*piece, mask, compute_dtype) for piece in cut], axis=-1)
    num_kv_heads = math.prod(heads) // batch
    grouped = query.reshape(batch, steps, num_kv_heads, -1, width).transpose(0, 2, 3, 1, 4)
    grouped = (grouped * width**-0.5).reshape(*heads, -1, steps, width)
    dtype = jnp.bfloat16 if compute_dtype == "bfloat16" else jnp.float32
    options = {
        "precision": jax.lax.Precision.HIGHEST,
        "preferred_element_type": jnp.float32,
    }
    scores = jnp.einsum("...GTH,...SH->...GTS", grouped.astype(dtype), key.astype(dtype), **options)
    if mask is not None:
        seen = jnp.broadcast_to(mask[:, None, None], (batch, num_kv_heads, 1, *mask.shape[1:]))
        scores = jnp.where(seen.reshape(*heads, 1, mask.shape[1], slots), scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1)
    out = jnp.einsum("...GTS,...SH->...GTH", weights.astype(dtype), value.astype(dtype), **options)
    out = out.reshape(batch, num_kv_heads, -1, steps, width).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, steps, num_heads * width)


QUERY_BLOCK = 128
"""Queries of a long row that look at keys together: later keys are not computed for them."""


def causal_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "*heads T H"],
    value: Float[Array, "*heads T H"],
    mask: Bool[Array, "B T T"],
    compute_dtype: ComputeDtype = "float32",
) -> Float[Array, "B T N*H"]:
    """Returns `attend` under a mask that shows no query a later key, with about half the work."""
    ends = [*range(QUERY_BLOCK, query.shape[1], QUERY_BLOCK), query.shape[1]]
    pieces = [
        attend(query[:, a:b], key[..., :b, :], value[..., :b, :], mask[:, a:b, :b], compute_dtype)
        for a, b in itertools.pairwise([0, *ends])
    ]
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=1)


MAX_UNROLLED_LAYERS = 6
"""So many layers are compiled one by one: none writes into an array that holds what all keep."""


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
    """Runs `depth` layers of one kind over x, stacked or unrolled as the parameters are.

    Args:
        parent: the module that owns the layers.
        layer: called as `layer(**options)(x, per_layer[i], *shared) -> (x, out_i)`.
        options: its fields.
        depth: number of layers L.
        name: `<name>` holds the stacked parameters, `<name>_<i>` the unrolled ones.
        x: what flows through.
        shared: arguments that are the same for all layers.
        per_layer: a tree with a leading axis L (stacked), a list of trees (unrolled), or None.
        remat: what stacked layers compute again on the way back; see `MatpacConfig`.

    Returns:
        x after the last layer, and the layers' outputs: stacked, or a list.
    """
    if parent.has_variable("params", f"{name}_0"):
        outputs = []
        for i in range(depth):
            module = layer(**options, name=f"{name}_{i}")
            x, out = module(x, None if per_layer is None else per_layer[i], *shared)
            outputs.append(out)
        return x, outputs
    # Where weights are parted too, XLA would part the layers' width and keep all rows.
    x = constrain(x, "batch", *(None,) * (x.ndim - 1))
    if remat != "none":
        kept = {
            "attention": jax.checkpoint_policies.save_only_these_names(DENSE_OUTPUT),
            "full": None,
        }
        layer = nn.remat(layer, prevent_cse=False, policy=kept[remat])
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, *(nn.broadcast for _ in shared)),
        length=depth,
        # What is computed again must not be seen to be there already.
        unroll=depth if depth <= MAX_UNROLLED_LAYERS and remat == "none" else 1,
    )
    return scanned(**options, name=name)(x, per_layer, *shared)
