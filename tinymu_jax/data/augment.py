"""Clips changed at random while training: a model seldom hears the same samples twice.

Effects, order and ranges are those of the published data set class (`AudioDataset` with `wav_aug`
on). Tempo and pitch are changed by librosa's phase vocoder, the published code's (audiomentations
0.40) by Signalsmith's stretcher: the same changes, with other artefacts.
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
"""Samples of the phase vocoder's window, as librosa has it; shorter clips get a shorter one."""


def max_columns(dataset: Dataset, config: TinyMUConfig, augment: AugmentConfig) -> int | None:
    """Returns the most vectors that the encoder gives for a clip, or None if none is cropped.

    Whoever plans a run takes its lengths with this cap: `dataset.lengths(config, cap)`.

    Args:
        dataset: whose clips are read.
        config: of the model.
        augment: how they are changed.

    Raises:
        InputError: a probability or range that cannot be; the data set does not hold what is to be
            changed: waveforms, and longer ones where they are to be cropped.
    """
    if not augment.enabled:
        return None
    for fits, rule in augment.rules():
        if not fits:
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
            f"{dataset.folder}: keeps {stored.max_seconds:g} s of a recording, and a random crop "
            f"to {config.max_seconds:g} s needs longer clips; prepare it with a larger "
            "--max-seconds or turn augment.crop off"
        )
    return -(-num_frames(crop_length(config)) // config.encoder.patch_size)


def crop_length(config: TinyMUConfig) -> int:
    """Returns how many samples of a clip a model hears."""
    return int(config.max_seconds * SAMPLE_RATE)


def clip_rng(seed: int, block: int, clip: int) -> np.random.Generator:
    """Returns the source of all that is random about a clip in one place of a run.

    Args:
        seed: of the run, at least 0.
        block: its number in the whole run.
        clip: its number in the block.
    """
    # A key and not a longer seed: [seed, epoch], which orders the plan, is [seed, epoch, 0] too.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block, clip)))


def augment_stored(
    stored: Int16[np.ndarray, "n"], rng: np.random.Generator, config: AugmentConfig, length: int
) -> Int16[np.ndarray, "m"]:
    """Returns a stored waveform cropped and changed; what exceeds 16 bits is clipped.

    Args:
        stored: at 16 kHz.
        rng: see `clip_rng`.
        config: how.
        length: samples of a crop.
    """
    if config.crop:
        stored = crop(stored, rng, length)
    samples = augment(stored / np.float32(32768), rng, config)
    return as_waveform(as_clip(samples, max_seconds=None))


def crop(
    samples: Shaped[np.ndarray, "n"], rng: np.random.Generator, length: int
) -> Shaped[np.ndarray, "m"]:
    """Returns `length` samples from a random place; fewer ones come back as they are."""
    if len(samples) <= length:
        return samples
    start = int(rng.integers(len(samples) - length + 1))
    return samples[start : start + length]


def augment(
    samples: Float32[np.ndarray, "n"], rng: np.random.Generator, config: AugmentConfig
) -> Float32[np.ndarray, "n"]:
    """Returns a waveform with each effect on it that chance picks; its length stays.

    Args:
        samples: at 16 kHz, full scale is 1.
        rng: what chance is.
        config: probabilities and ranges.
    """
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
    """Adds normal noise with `amplitude` as its standard deviation."""
    noise = rng.standard_normal(len(samples), np.float32)
    return samples + np.float32(amplitude) * noise


def gain(samples: Float32[np.ndarray, "n"], decibels: float) -> Float32[np.ndarray, "n"]:
    """Raises the level by decibels."""
    return samples * np.float32(10 ** (decibels / 20))


def stretch(samples: Float32[np.ndarray, "n"], rate: float) -> Float32[np.ndarray, "n"]:
    """Plays `rate` times as fast at the same pitch; the end is cut, or filled with zeros."""
    played = _effects().time_stretch(samples, rate=rate, n_fft=_frame(samples))[: len(samples)]
    return np.pad(played, (0, len(samples) - len(played)))


def shift_pitch(samples: Float32[np.ndarray, "n"], semitones: float) -> Float32[np.ndarray, "n"]:
    """Raises the pitch at the same tempo."""
    return _effects().pitch_shift(
        samples, sr=SAMPLE_RATE, n_steps=semitones, res_type="soxr_hq", n_fft=_frame(samples)
    )


def _frame(samples: np.ndarray) -> int:
    """Returns a window for the phase vocoder that is no longer than the clip."""
    return min(FRAME, 1 << (len(samples).bit_length() - 1))


_ONE_LOADS = threading.Lock()
"""Many threads read clips; librosa's lazy modules are not made for being loaded by two at once."""


def _effects() -> ModuleType:
    """Returns `librosa.effects`, ready for any thread."""
    with _ONE_LOADS:
        return _loaded_effects()


@lru_cache(maxsize=1)
def _loaded_effects() -> ModuleType:
    """Loads what the effects need: seconds, some of them for numba to compile."""
    from librosa import effects

    silence = np.zeros(FRAME, np.float32)
    effects.pitch_shift(silence, sr=SAMPLE_RATE, n_steps=1.0, res_type="soxr_hq")
    return effects
