"""Low-rank additions to linear layers (LoRA, arXiv 2106.09685)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tinymu_jax.config import LoraConfig

Axes = tuple[str | None, ...]


def starting_a(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Returns a first A (..., D, r), uniform in +-1/sqrt(D) as PEFT's Kaiming start with sqrt(5).

    B starts at zero, so that a model with fresh additions is the model without.
    """
    limit = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class LowRank(nn.Module):
    """The factors of one layer's addition, `a` (D, r) and `b` (r, M), and the input for them.

    The input loses some of its numbers to dropout where the call brings a "dropout" key, each
    layer its own. A comes multiplied with alpha / r, since it is the smallest of what takes part.
    """

    features: int
    config: LoraConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "D r"], Float[Array, "r M"]]:
        config = self.config
        a = self.param("a", starting_a, (x.shape[-1], config.rank))
        b = self.param("b", nn.initializers.zeros_init(), (config.rank, self.features))
        x = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(x)
        return x, a * (config.alpha / config.rank), b


def lora_axes(table: Mapping[str, Axes], config: LoraConfig | None) -> dict[str, Axes]:
    """Returns the rows of the additions' weights, made of those of the kernels they belong to.

    Args:
        table: logical axes by path; a kernel's end in its input's and its output's.
        config: names the layers; None adds nothing.
    """
    rows: dict[str, Axes] = {}
    for path, axes in table.items():
        *_, layer, weight = path.split("/")
        if config is not None and weight == "kernel" and layer in config.targets:
            place = path.removesuffix("kernel") + "lora"
            *leading, into, out = axes
            rows[f"{place}/a"] = (*leading, into, "rank")
            rows[f"{place}/b"] = (*leading, "rank", out)
    return rows
