"""Random augmentation of waveforms during training.

Effects, order and ranges are those of the published class `AudioDataset` with `wav_aug` on. Tempo
and pitch are changed with librosa's phase vocoder; the published code (audiomentations 0.40) uses
Signalsmith's stretcher, which leaves other artefacts.
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
from tinymu_jax.utils.compilation_cache import import_librosa

FRAME = 2048
"""Window of the phase vocoder in samples (librosa's default); shorter clips get shorter windows."""


def max_columns(dataset: Dataset, config: TinyMUConfig, augment: AugmentConfig) -> int | None:
    """Return how many encoder outputs a randomly cropped clip has; None if clips are not cropped.

    Pass this number to `dataset.lengths(config, max_columns)` to get the lengths for packing.

    Raises:
        InputError: a probability or range is invalid; the data set does not store waveforms; or
            crops are on, and no stored waveform is longer than a crop.
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
    """Return the length of a crop in samples: the model's `max_seconds` at 16 kHz."""
    return int(config.max_seconds * SAMPLE_RATE)


def clip_rng(seed: int, block: int, clip: int) -> np.random.Generator:
    """Return the random generator of one clip, which depends on the three numbers alone.

    `block` counts blocks from the start of the run (a block is the part of a batch that goes to one
    device), and `clip` counts clips in the block.
    """
    # Trailing zeros do not count: [seed, block, 0] would repeat [seed, epoch], which orders clips.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block, clip)))


def augment_stored(
    stored: Int16[np.ndarray, "n"], rng: np.random.Generator, config: AugmentConfig, length: int
) -> Int16[np.ndarray, "m"]:
    """Crop a waveform to `length` samples if `config.crop`; return it augmented, as int16."""
    if config.crop:
        stored = crop(stored, rng, length)
    samples = augment(stored / np.float32(32768), rng, config)
    return as_waveform(as_clip(samples, max_seconds=None))


def crop(
    samples: Shaped[np.ndarray, "n"], rng: np.random.Generator, length: int
) -> Shaped[np.ndarray, "m"]:
    """Return `length` consecutive samples from a random start; return shorter clips unchanged."""
    if len(samples) <= length:
        return samples
    start = int(rng.integers(len(samples) - length + 1))
    return samples[start : start + length]


def augment(
    samples: Float32[np.ndarray, "n"], rng: np.random.Generator, config: AugmentConfig
) -> Float32[np.ndarray, "n"]:
    """Apply each effect with its probability and a random strength to samples in -1 to 1."""
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
    """Add Gaussian noise with standard deviation `amplitude` to samples in -1 to 1."""
    noise = rng.standard_normal(len(samples), np.float32)
    return samples + np.float32(amplitude) * noise


def gain(samples: Float32[np.ndarray, "n"], decibels: float) -> Float32[np.ndarray, "n"]:
    """Raise the level of a waveform by a number of decibels, which may be negative."""
    return samples * np.float32(10 ** (decibels / 20))


def stretch(samples: Float32[np.ndarray, "n"], rate: float) -> Float32[np.ndarray, "n"]:
    """Speed a waveform up by a factor at constant pitch; cut or zero-pad it to its old length."""
    played = _effects().time_stretch(samples, rate=rate, n_fft=_frame(samples))[: len(samples)]
    return np.pad(played, (0, len(samples) - len(played)))


def shift_pitch(samples: Float32[np.ndarray, "n"], semitones: float) -> Float32[np.ndarray, "n"]:
    """Raise the pitch of a waveform by a number of semitones at constant tempo."""
    return _effects().pitch_shift(
        samples, sr=SAMPLE_RATE, n_steps=semitones, res_type="soxr_hq", n_fft=_frame(samples)
    )


def _frame(samples: np.ndarray) -> int:
    """Return the phase vocoder's window in samples: `FRAME`, or less for shorter clips."""
    return min(FRAME, 1 << (len(samples).bit_length() - 1))


# Clips are read in threads, and librosa's lazy imports are not thread-safe.
_IMPORT_LOCK = threading.Lock()


def _effects() -> ModuleType:
    """Return the module `librosa.effects`; the first call initializes it."""
    with _IMPORT_LOCK:
        return _initialized_effects()


@lru_cache(maxsize=1)
def _initialized_effects() -> ModuleType:
    effects = import_librosa().effects
    # Triggers the other lazy imports and compilations, which take seconds.
    silence = np.zeros(FRAME, np.float32)
    effects.pitch_shift(silence, sr=SAMPLE_RATE, n_steps=1.0, res_type="soxr_hq")
    return effects
