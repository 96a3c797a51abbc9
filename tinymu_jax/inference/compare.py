"""Compares the logits and the greedily generated tokens of two models on a recording."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.inference.assistant import Assistant


class Comparison(NamedTuple):
    """Differences between two models on one prompt about one recording."""

    logit_difference: float
    """Largest absolute difference between the two models' logits."""
    equal_tokens: int
    tokens: int


def compare_models(
    first: Assistant,
    second: Assistant,
    recording: str | Path | np.ndarray,
    prompt: list[int],
    max_new_tokens: int = 64,
) -> Comparison:
    """Compares two models on one prompt (token ids) about one recording.

    Returns:
        The largest difference between the models' logits for the first model's answer, the number
        of positions at which the greedy answers have equal tokens (end tokens included), and the
        number of tokens of the longer answer.
    """
    answers = [
        model.generate_tokens(recording, prompt, max_new_tokens) for model in (first, second)
    ]
    tokens = [[*answer, -1][:max_new_tokens] for answer in answers]
    equal = sum(a == b for a, b in zip(*tokens, strict=False))
    logits = [model.target_logits(recording, prompt, answers[0]) for model in (first, second)]
    return Comparison(float(np.abs(logits[0] - logits[1]).max()), equal, max(map(len, tokens)))
