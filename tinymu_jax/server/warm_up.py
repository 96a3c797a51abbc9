"""Compiles the programs that requests need, before the first request."""

import numpy as np

from tinymu_jax.audio.load import Clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.audio_cache import AudioCache
from tinymu_jax.inference.continuous import ContinuousDecoder
from tinymu_jax.inference.generate import Sampling

QUESTION = "Describe the music you hear."


def warm_up(assistant: Assistant, batch: int) -> None:
    """Answer a question about a clip of full length, alone and in batches of up to `batch` rows."""
    noise = np.random.default_rng(0).standard_normal(round(assistant.max_seconds * SAMPLE_RATE))
    samples = (0.01 * noise).astype(np.float32)
    audio = AudioCache(assistant.config, assistant.params).encode_one(
        Clip(samples, assistant.max_seconds, assistant.max_seconds)
    )
    prompt = assistant.encode_prompt(QUESTION, truncate=True)
    decoder = ContinuousDecoder(assistant.params, assistant.config, batch)
    while not decoder.is_full:
        # Almost uniform sampling rarely draws the end token, so that the batch fills up.
        sampling = Sampling("top-p", 1.0, 1000.0, seed=len(decoder.answers))
        decoder.add(audio, prompt, 4 * batch, sampling)
        if len(decoder.answers).bit_count() == 1 or decoder.is_full:
            decoder.step()
    for answer in decoder.answers[1:]:
        decoder.remove(answer)
        if len(decoder.answers).bit_count() == 1:
            decoder.step()
