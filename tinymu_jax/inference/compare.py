"""Comparison of two checkpoints: logits and greedy tokens on the same recordings."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.inference.assistant import Assistant


class Comparison(NamedTuple):
    """Differences of two models on one recording."""

    logit_difference: float
    """Largest absolute difference."""
    equal_tokens: int
    tokens: int


def compare_models(
    first: Assistant,
    second: Assistant,
    recording: str | Path | np.ndarray,
    prompt: list[int],
    max_new_tokens: int = 64,
) -> Comparison:
    """Compares two models on one prompt about one recording.

    Returns:
        The largest difference of the logits along the first model's answer, and how many greedy
        tokens are equal, position by position (ends at different positions are different).
    """
    answers = [
        model.generate_tokens(recording, prompt, max_new_tokens) for model in (first, second)
    ]
    tokens = [[*answer, -1][:max_new_tokens] for answer in answers]
    equal = sum(a == b for a, b in zip(*tokens, strict=False))
    logits = [model.target_logits(recording, prompt, answers[0]) for model in (first, second)]
    return Comparison(float(np.abs(logits[0] - logits[1]).max()), equal, max(map(len, tokens)))
