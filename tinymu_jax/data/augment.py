"""Random augmentation of waveforms during training.

Effects, order and ranges are those of the published data set class (`AudioDataset` with `wav_aug`
on). Tempo and pitch are changed with librosa's phase vocoder; the published code (audiomentations
0.40) uses Signalsmith's stretcher, whose artefacts differ.
"""

import threading
from functools import lru_cache
from types import ModuleType

import numpy as np
from jaxtyping import Float32, Int16, Shaped

from tinymu_jax.audio.load import as_clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE, num_frames
from tinymu_jax.data.config import AugmentConfig
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.features import as_waveform
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig

FRAME = 2048
"""Window of the phase vocoder in samples, librosa's default; shorter for shorter clips."""


def max_columns(dataset: Dataset, config: TinyMUConfig, augment: AugmentConfig) -> int | None:
    """Returns the most encoder outputs of a cropped clip, or None if clips are not cropped.

    Packing must be planned from lengths with this cap: `dataset.lengths(config, cap)`.

    Raises:
        InputError: a probability or range is invalid; the data set does not hold waveforms, or
            none that are longer than the crop.
    """
    if not augment.enabled:
        return None
    for holds, rule in augment.rules():
        if not holds:
            raise InputError(f"augment: {rule}; correct it")
    stored = dataset.features
    if stored.kind != "waveform":
        raise InputError(
            f"{dataset.folder}: stores {stored.kind}, and only waveforms can be augmented; "
            "prepare it with --features waveform or turn augmentation off"
        )
    if not augment.crop:
        return None
    if stored.max_seconds <= config.max_seconds:
        raise InputError(
            f"{dataset.folder}: stores {stored.max_seconds:g} s of a recording, and a random crop "
            f"to {config.max_seconds:g} s needs longer clips; prepare it with a larger "
            "--max-seconds or turn augment.crop off"
        )
    return -(-num_frames(crop_length(config)) // config.encoder.patch_size)


def crop_length(config: TinyMUConfig) -> int:
    """Returns the samples of a clip that a model takes."""
    return int(config.max_seconds * SAMPLE_RATE)


def clip_rng(seed: int, block: int, clip: int) -> np.random.Generator:
    """Returns the random generator for a clip in a block of a run, both by index."""
    # A spawn key, since the plan's order is seeded with [seed, epoch], equal to [seed, epoch, 0].
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block, clip)))


def augment_stored(
    stored: Int16[np.ndarray, "n"], rng: np.random.Generator, config: AugmentConfig, length: int
) -> Int16[np.ndarray, "m"]:
    """Crops a stored waveform to `length` and augments it; values beyond 16 bits are clipped."""
    if config.crop:
        stored = crop(stored, rng, length)
    samples = augment(stored / np.float32(32768), rng, config)
    return as_waveform(as_clip(samples, max_seconds=None))


def crop(
    samples: Shaped[np.ndarray, "n"], rng: np.random.Generator, length: int
) -> Shaped[np.ndarray, "m"]:
    """Returns a random stretch of `length` samples; shorter clips are returned unchanged."""
    if len(samples) <= length:
        return samples
    start = int(rng.integers(len(samples) - length + 1))
    return samples[start : start + length]


def augment(
    samples: Float32[np.ndarray, "n"], rng: np.random.Generator, config: AugmentConfig
) -> Float32[np.ndarray, "n"]:
    """Applies each effect with its probability to samples of -1 to 1; the length stays the same."""
    if rng.random() < config.polarity_probability:
        samples = -samples
    if rng.random() < config.noise_probability:
        samples = add_noise(samples, rng, rng.uniform(config.noise_min, config.noise_max))
    if rng.random() < config.gain_probability:
        samples = gain(samples, rng.uniform(-config.gain_db, config.gain_db))
    if rng.random() < config.stretch_probability:
        samples = stretch(samples, rng.uniform(config.stretch_min, config.stretch_max))
    if rng.random() < config.pitch_probability:
        samples = shift_pitch(samples, rng.uniform(-config.semitones, config.semitones))
    return samples


def add_noise(
    samples: Float32[np.ndarray, "n"], rng: np.random.Generator, amplitude: float
) -> Float32[np.ndarray, "n"]:
    """Adds Gaussian noise with standard deviation `amplitude`."""
    noise = rng.standard_normal(len(samples), np.float32)
    return samples + np.float32(amplitude) * noise


def gain(samples: Float32[np.ndarray, "n"], decibels: float) -> Float32[np.ndarray, "n"]:
    """Raises the level by decibels."""
    return samples * np.float32(10 ** (decibels / 20))


def stretch(samples: Float32[np.ndarray, "n"], rate: float) -> Float32[np.ndarray, "n"]:
    """Plays `rate` times as fast at the same pitch; the end is cut or padded with zeros."""
    played = _effects().time_stretch(samples, rate=rate, n_fft=_frame(samples))[: len(samples)]
    return np.pad(played, (0, len(samples) - len(played)))


def shift_pitch(samples: Float32[np.ndarray, "n"], semitones: float) -> Float32[np.ndarray, "n"]:
    """Raises the pitch at the same tempo."""
    return _effects().pitch_shift(
        samples, sr=SAMPLE_RATE, n_steps=semitones, res_type="soxr_hq", n_fft=_frame(samples)
    )


def _frame(samples: np.ndarray) -> int:
    """Returns the phase vocoder's window, no longer than the clip."""
    return min(FRAME, 1 << (len(samples).bit_length() - 1))


# Clips are read in threads, and librosa's lazy imports are not thread-safe.
_IMPORT_LOCK = threading.Lock()


def _effects() -> ModuleType:
    """Returns `librosa.effects`, initialized once for all threads."""
    with _IMPORT_LOCK:
        return _initialized_effects()


@lru_cache(maxsize=1)
def _initialized_effects() -> ModuleType:
    from librosa import effects

    # Triggers the lazy imports and numba's compilation, which take seconds.
    silence = np.zeros(FRAME, np.float32)
    effects.pitch_shift(silence, sr=SAMPLE_RATE, n_steps=1.0, res_type="soxr_hq")
    return effects
