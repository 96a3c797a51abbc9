"""Masking of patches, and the prediction and classification losses of masked patches.

A patch order (C, P) is a permutation of the patch indices of each crop, visible patches first.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

EPS = 1e-12
"""Smallest norm by which `normalize` divides, as in torch."""


def normalize(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Scale each vector to length 1; zero vectors stay zero, with a finite gradient."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, EPS**2))


def prediction_losses(
    predictions: Float[Array, "C masked hypotheses D"], targets: Float[Array, "C masked D"]
) -> Float[Array, "C masked hypotheses"]:
    """Return 2 - 2 cos(prediction, target) for each prediction of a patch, all of length 1."""
    highest = jax.lax.Precision.HIGHEST
    return 2 - 2 * jnp.einsum("CMYD,CMD->CMY", predictions, targets, precision=highest)


def mcl_loss(
    losses: Float[Array, "C masked hypotheses"], temperature: Float[Array, ""], hard: Array
) -> tuple[Float[Array, "C masked"], Int[Array, "C masked"]]:
    """Return each patch's multiple choice learning loss, and the index of its best hypothesis.

    `losses` are those of a patch's several predictions (hypotheses). They are averaged with weights
    softmax(-losses / temperature), which get no gradient; with `hard`, only the lowest loss counts.
    """
    best = jnp.argmin(losses, axis=-1)
    soft = jax.nn.softmax(-jax.lax.stop_gradient(losses) / temperature, axis=-1)
    one_hot = jax.nn.one_hot(best, losses.shape[-1], dtype=losses.dtype)
    return jnp.sum(jnp.where(hard, one_hot, soft) * losses, axis=-1), best


def class_losses(
    student: Float[Array, "C masked classes"],
    teacher: Float[Array, "C masked classes"],
    temperature: float,
) -> Float[Array, "C masked"]:
    """Return each patch's cross-entropy between teacher's and student's class probabilities.

    `student` has class logits, `teacher` probabilities; `temperature` applies to the logits.
    """
    return -jnp.sum(teacher * jax.nn.log_softmax(student / temperature, axis=-1), axis=-1)


def random_patch_orders(key: Array, clips: int, patches: int) -> Int[Array, "C P"]:
    """Return a random permutation of the patch indices for each crop."""
    return patch_order(jax.random.uniform(key, (clips, patches)))


def patch_order(noise: Float[Array, "C P"]) -> Int[Array, "C P"]:
    """Return each crop's patch indices sorted by noise (published: `random_unstructured_mask`)."""
    return jnp.argsort(noise, axis=1)


def gather_patches(
    patches: Float[Array, "C P D"], order: Int[Array, "C part"]
) -> Float[Array, "C part D"]:
    """Return each crop's patches at the indices in `order`."""
    return jnp.take_along_axis(patches, order[..., None], axis=1)
