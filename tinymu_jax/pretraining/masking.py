"""Which patches are seen and which are masked, as orders that can be given from outside.

An order (C, P) has each patch's number once a clip: the first ones are visible, the rest masked.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def draw_orders(key: Array, clips: int, patches: int) -> Int[Array, "C P"]:
    """Returns a random order for each clip: uniform noise, sorted."""
    return order_of(jax.random.uniform(key, (clips, patches)))


def order_of(noise: Float[Array, "C P"]) -> Int[Array, "C P"]:
    """Returns the order of noise, smallest first (published: `random_unstructured_mask`)."""
    return jnp.argsort(noise, axis=1)


def gather_patches(patches: Float[Array, "C P D"], order: Int[Array, "C K"]) -> Array:
    """Returns some patches of each clip, by their numbers: (C, K, D)."""
    return jnp.take_along_axis(patches, order[..., None], axis=1)
