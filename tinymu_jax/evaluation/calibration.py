"""Whether what is said with some probability is right as often (Guo et al., arXiv 1706.04599)."""

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.results import Reliability

BINS = 15


def softmax(log_likelihoods: Float[np.ndarray, "R C"]) -> Float[np.ndarray, "R C"]:
    """Returns the probabilities among the options of each row."""
    weights = np.exp(log_likelihoods - log_likelihoods.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def calibration(
    title: str,
    confidence: Float[np.ndarray, "R"],
    right: Bool[np.ndarray, "R"],
    bins: int = BINS,
) -> Reliability:
    """Returns how often answers of like confidence are right, and the expected calibration error.

    Args:
        title: of the picture.
        confidence: probability of each answer, 0 to 1.
        right: whether it is.
        bins: of equal width; one takes its upper end, not its lower one. Empty ones are left out.

    Raises:
        InputError: no bins.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}: give 1 or more")
    inner = np.arange(1, bins) / bins
    bin_of = np.digitize(confidence, inner, right=True)
    counts = np.bincount(bin_of, minlength=bins)
    filled = counts > 0
    means = [
        np.bincount(bin_of, weights=values, minlength=bins)[filled] / counts[filled]
        for values in (confidence, right.astype(np.float64))
    ]
    gaps = np.abs(means[0] - means[1])
    return Reliability(
        title,
        confidence=means[0].tolist(),
        accuracy=means[1].tolist(),
        counts=counts[filled].tolist(),
        ece=float((gaps * counts[filled]).sum() / counts.sum()),
    )
