"""Losses of pre-training, a number for each masked patch."""

#
# An order (C, P) has each patch's number once a clip: the first ones are visible, the rest masked.
#
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

EPS = 1e-12
"""Shortest vector that is normalised as it is, as torch has it."""


def normalise(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Returns vectors of length 1; one of zeros stays, and its gradient is finite."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, EPS**2))


def prediction_losses(
    predictions: Float[Array, "C M Y D"], targets: Float[Array, "C M D"]
) -> Float[Array, "C M Y"]:
    """Returns 2 - 2 cos(prediction, target) for each of Y hypotheses; both are normalised."""
    return 2 - 2 * jnp.einsum("CMYD,CMD->CMY", predictions, targets)


def mcl_loss(
    losses: Float[Array, "C M Y"], temperature: Float[Array, ""], hard: Array
) -> tuple[Float[Array, "C M"], Int[Array, "C M"]]:
    """Returns the loss of multiple choice learning, and which hypothesis is best.

    Args:
        losses: of each hypothesis.
        temperature: of the weights, which depend on the losses and are not differentiated.
        hard: whether the best hypothesis alone counts.
    """
    best = jnp.argmin(losses, axis=-1)
    weights = jax.nn.softmax(-jax.lax.stop_gradient(losses) / temperature, axis=-1)
    alone = jax.nn.one_hot(best, losses.shape[-1], dtype=losses.dtype)
    return jnp.sum(jnp.where(hard, alone, weights) * losses, axis=-1), best


def class_losses(
    student: Float[Array, "C M classes"],
    teacher: Float[Array, "C M classes"],
    temperature: float,
) -> Float[Array, "C M"]:
    """Returns the cross-entropy of the student's classes to the teacher's probabilities.

    Args:
        student: logits.
        teacher: probabilities.
        temperature: of the student.
    """
    return -jnp.sum(teacher * jax.nn.log_softmax(student / temperature, axis=-1), axis=-1)


def random_patch_orders(key: Array, clips: int, patches: int) -> Int[Array, "C P"]:
    """Returns a random order for each clip: uniform noise, sorted."""
    return patch_order(jax.random.uniform(key, (clips, patches)))


def patch_order(noise: Float[Array, "C P"]) -> Int[Array, "C P"]:
    """Returns the order of noise, smallest first (published: `random_unstructured_mask`)."""
    return jnp.argsort(noise, axis=1)


def gather_patches(patches: Float[Array, "C P D"], order: Int[Array, "C K"]) -> Array:
    """Returns some patches of each clip, by their numbers: (C, K, D)."""
    return jnp.take_along_axis(patches, order[..., None], axis=1)
