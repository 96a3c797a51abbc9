"""Questions side by side: padded to few compiled shapes, answered, and read back one by one."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from tinymu_jax.config import TinyMUConfig
from tinymu_jax.generate import Decoding, Question, Sampling, decode, prefill
from tinymu_jax.hearing import Heard
from tinymu_jax.mesh import spread
from tinymu_jax.padding import round_up

MAX_BATCH = 16
"""Questions answered in one compiled call."""
SLOT_STEP = 16
"""Audio and prompt slots are padded to multiples of this, so that few shapes are compiled."""
ROOM_STEP = 64
"""The cache's room for answer tokens is padded to a multiple of this."""


def pad_questions(
    heard: Sequence[Heard], prompts: Sequence[Sequence[int]], config: TinyMUConfig
) -> Question:
    """Pads clips and prompts to common lengths, and their number to a power of two."""
    rows = 1 << (len(heard) - 1).bit_length()
    audio_slots = round_up(max(len(h.vectors) for h in heard), SLOT_STEP)
    prompt_slots = min(round_up(max(map(len, prompts)), SLOT_STEP), config.max_text_tokens)
    audio = np.zeros((rows, audio_slots, config.decoder.width), np.float32)
    prompt = np.zeros((rows, prompt_slots), np.int32)
    num_audio, num_prompt = np.zeros(rows, np.int32), np.ones(rows, np.int32)
    for row, (h, ids) in enumerate(zip(heard, prompts, strict=True)):
        audio[row, : len(h.vectors)], num_audio[row] = h.vectors, len(h.vectors)
        prompt[row, : len(ids)], num_prompt[row] = ids, len(ids)
    return Question(audio, num_audio, prompt, num_prompt)


def start_answers(
    params: Any,
    heard: Sequence[Heard],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    config: TinyMUConfig,
    mesh: Mesh | None = None,
) -> Decoding:
    """Computes a batch of questions and the first token of each answer; a mesh parts the rows."""
    padded = pad_questions(heard, prompts, config)
    active = np.arange(len(padded.num_audio)) < len(heard)
    return prefill(
        params,
        *spread((padded, active), mesh),
        jax.random.key(sampling.seed),
        _knobs(sampling),
        config=config,
        room=round_up(max_new_tokens, ROOM_STEP),
        strategy=sampling.strategy,
    )


def go_on(
    params: Any, state: Decoding, until: int, sampling: Sampling, config: TinyMUConfig
) -> Decoding:
    """Goes on to `until` tokens, or until every answer has ended."""
    knobs, strategy = _knobs(sampling), sampling.strategy
    return decode(params, state, np.int32(until), knobs, config=config, strategy=strategy)


def _knobs(sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    return np.float32(sampling.top_p), np.float32(sampling.temperature)


def read_answer(
    state: Decoding, row: int, limit: int, config: TinyMUConfig
) -> tuple[list[int], bool]:
    """Returns one row's tokens before the end token, and whether that came."""
    tokens = np.asarray(state.tokens[row])[: min(int(state.step), limit)].tolist()
    end = config.end_token
    return (tokens[: tokens.index(end)], True) if end in tokens else (tokens, False)
