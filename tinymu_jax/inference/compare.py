"""Do two checkpoints say the same? python -m conversion.verify A B recording.wav ...

Both answer the same prompts about the same recordings; then both score the first one's answer.
Prints the largest difference of their logits and the share of equal greedy tokens.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.inference.assistant import TokenAssistant


class Comparison(NamedTuple):
    """How far two models are apart on one recording."""

    logit_difference: float
    equal_tokens: int
    tokens: int


def compare_models(
    first: TokenAssistant,
    second: TokenAssistant,
    recording: str | Path | np.ndarray,
    prompt_ids: list[int],
    max_new_tokens: int = 64,
) -> Comparison:
    """Compares two models on one question.

    Returns:
        The largest difference of the logits along the first one's answer, and how many greedy
        tokens are equal, place by place (an end at different places counts as different).
    """
    answers = [
        model.generate_tokens(recording, prompt_ids, max_new_tokens) for model in (first, second)
    ]
    ends = [[*answer, -1][:max_new_tokens] for answer in answers]
    equal = sum(a == b for a, b in zip(*ends, strict=False))
    logits = [m.target_logits(recording, prompt_ids, answers[0]) for m in (first, second)]
    return Comparison(float(np.abs(logits[0] - logits[1]).max()), equal, max(map(len, ends)))
