"""Calibration: how far confidence differs from accuracy (Guo et al., arXiv 1706.04599)."""

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.results import Reliability

BINS = 15


def softmax(log_likelihoods: Float[np.ndarray, "R C"]) -> Float[np.ndarray, "R C"]:
    """Convert R rows of C log-likelihoods to probabilities that sum to 1 in each row."""
    weights = np.exp(log_likelihoods - log_likelihoods.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def calibration(
    title: str, confidence: Float[np.ndarray, "R"], right: Bool[np.ndarray, "R"], bins: int = BINS
) -> Reliability:
    """Return a reliability diagram of R answers, with the expected calibration error.

    `confidence` has the probability of each answer, 0 to 1, and `right` whether the answer is
    right. The bins have equal width; a value on the edge of two bins is in the lower bin. Empty
    bins are omitted.

    Raises:
        InputError: `bins` is less than 1.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}: give 1 or more")
    edges = np.arange(1, bins) / bins
    bin_ids = np.digitize(confidence, edges, right=True)
    counts = np.bincount(bin_ids, minlength=bins)
    filled = counts > 0
    mean_confidence, accuracy = (
        np.bincount(bin_ids, weights=values, minlength=bins)[filled] / counts[filled]
        for values in (confidence, right.astype(np.float64))
    )
    gaps = np.abs(mean_confidence - accuracy)
    return Reliability(
        title,
        confidence=mean_confidence.tolist(),
        accuracy=accuracy.tolist(),
        counts=counts[filled].tolist(),
        ece=float((gaps * counts[filled]).sum() / counts.sum()),
    )
