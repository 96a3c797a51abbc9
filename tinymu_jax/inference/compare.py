"""Compares the logits and the greedy answers of two models on a recording."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.errors import note_damage
from tinymu_jax.inference.assistant import Assistant


class Comparison(NamedTuple):
    """Differences between two models on one prompt about one recording."""

    logit_difference: float
    """Largest absolute difference between the two models' logits for the first model's answer."""
    equal_tokens: int
    """Number of positions at which the greedy answers (with end tokens) have the same token."""
    tokens: int
    """Number of tokens of the longer answer."""


def compare_models(
    first: Assistant,
    second: Assistant,
    recording: str | Path | np.ndarray,
    prompt: list[int],
    max_new_tokens: int = 64,
) -> Comparison:
    """Compare two models on one prompt (token ids) about one recording."""
    damage = first.audio_cache.encode_one(recording).clip.damage
    if damage:
        note_damage(str(recording), damage)
    answers = [
        model.generate_tokens(recording, prompt, max_new_tokens) for model in (first, second)
    ]
    tokens = [[*answer, -1][:max_new_tokens] for answer in answers]
    equal = sum(a == b for a, b in zip(*tokens, strict=False))
    logits = [model.target_logits(recording, prompt, answers[0]) for model in (first, second)]
    return Comparison(float(np.abs(logits[0] - logits[1]).max()), equal, max(map(len, tokens)))
