"""From a recording to the encoder's input: read, resample, log-mel.

Every step repeats the published front end number for number: the first channel, cropped at the
file's own rate, torchaudio's default sinc resampler, and MATPAC's log-mel.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from tinymu_jax.config import Mono
from tinymu_jax.decoding import decode
from tinymu_jax.errors import InputError
from tinymu_jax.resampling import RESAMPLERS, Resampler, resample

SAMPLE_RATE = 16_000
WINDOW = 400
"""Samples of one analysis window, also the length of its Fourier transform (25 ms)."""
HOP = 160
"""Samples from one frame to the next (10 ms)."""
NUM_MELS = 80
LOG_OFFSET = float(np.finfo(np.float32).eps)
RATES = (1_000, 768_000)
"""Sample rates that recordings may have; others are faults of a header."""
LONGEST = 86_400
"""Seconds that can be heard."""
MEAN, DEVIATION = -7.056, 4.193
"""Of MATPAC's training log-mels; what the encoder reads is normalised by them."""


class Clip(NamedTuple):
    """The part of a recording that is heard."""

    samples: Float32[np.ndarray, "n"]
    """At 16 kHz, one channel."""
    heard_seconds: float
    total_seconds: float


def load_audio(
    path: str | Path, max_seconds: float | None = 10.0, silence_if_short: bool = False
) -> Float32[np.ndarray, "n"]:
    """Reads the first channel of a recording at 16 kHz, as published.

    Args:
        path: wav, flac, ogg or mp3; other formats are handed to librosa's readers.
        max_seconds: crop from the start, before resampling; None reads all.
        silence_if_short: repeat a fault of the published loader, for comparisons: a clip of less
            than 1,600 samples at its own rate becomes `max_seconds` of zeros.

    Returns:
        Samples at 16 kHz, nominally in [-1, 1].

    Raises:
        InputError: the file is missing, a folder, empty, undecodable or shorter than one window.
    """
    return read_clip(path, max_seconds, silence_if_short).samples


def read_clip(
    path: str | Path,
    max_seconds: float | None = 10.0,
    silence_if_short: bool = False,
    mono: Mono = "first",
    resampler: Resampler = RESAMPLERS["torchaudio"],
) -> Clip:
    """Does what `load_audio` does and tells how much of the recording that is.

    Args:
        path: as for `load_audio`.
        max_seconds: as for `load_audio`.
        silence_if_short: as for `load_audio`.
        mono: the first channel, as TinyMU hears, or the mean of all, as MATPAC was pre-trained.
        resampler: to 16 kHz.

    Raises:
        InputError: as `load_audio`.
    """
    path = Path(path)
    check_seconds(max_seconds)
    channels, rate, total = decode(path, max_seconds)
    samples = np.ascontiguousarray(channels[:, 0] if mono == "first" else channels.mean(axis=1))
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(
            f"{path}: says that its sample rate is {rate}, {RATES[0]} to {RATES[1]} can be used; "
            "repair or leave it out"
        )
    if silence_if_short and len(samples) < 1600:
        zeros = np.zeros(int((max_seconds or 10.0) * SAMPLE_RATE), np.float32)
        return Clip(zeros, 0.0, total / rate)
    heard = len(samples) / rate
    samples = resample(samples, rate, SAMPLE_RATE, resampler)
    return Clip(check_samples(samples, str(path)), heard, total / rate)


def as_clip(audio: "str | Path | np.ndarray | Clip", max_seconds: float | None = 10.0) -> Clip:
    """Takes a path, or an array of 16 kHz samples, and returns what is heard of it.

    A clip that was read before is returned as it is.

    Raises:
        InputError: as `load_audio`; an array with another shape than (n,), or with NaN in it.
    """
    if isinstance(audio, Clip):
        return audio
    if isinstance(audio, str | Path):
        return read_clip(audio, max_seconds)
    samples = np.asarray(audio)
    if samples.ndim != 1 or samples.dtype.kind not in "fiu":
        raise InputError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: give one channel "
            "of 16 kHz samples, shape (n,), as floats in [-1, 1]"
        )
    if samples.dtype.kind in "iu":
        raise InputError(
            f"audio array of type {samples.dtype}: give floats in [-1, 1] "
            f"(for int16: samples / 32768)"
        )
    check_seconds(max_seconds)
    total = len(samples)
    if max_seconds is not None:
        samples = samples[: int(max_seconds * SAMPLE_RATE)]
    samples = check_samples(samples.astype(np.float32), "audio array")
    return Clip(samples, len(samples) / SAMPLE_RATE, total / SAMPLE_RATE)


def check_seconds(max_seconds: float | None) -> None:
    """Raises `InputError` if `max_seconds` of a recording are less than one window."""
    if max_seconds is not None and not WINDOW / SAMPLE_RATE <= max_seconds <= LONGEST:
        raise InputError(
            f"max_seconds is {max_seconds}: give {WINDOW / SAMPLE_RATE} (one window) to {LONGEST} "
            "(a day)"
        )


def check_samples(samples: np.ndarray, name: str) -> Float32[np.ndarray, "n"]:
    """Returns the samples if the log-mel can be taken of them, else raises `InputError`."""
    if len(samples) < WINDOW:
        raise InputError(
            f"{name}: {len(samples)} samples at 16 kHz are less than one window of {WINDOW} "
            "(25 ms); give a longer recording"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: holds NaN or infinite samples; repair or leave it out")
    return samples


@lru_cache(maxsize=1)
def hann_window() -> Float32[np.ndarray, "400"]:
    """Returns the periodic Hann window of one frame (within one rounding of torch's)."""
    angles = np.arange(WINDOW, dtype=np.float32) * np.float32(2 * math.pi / WINDOW)
    cosines = np.cos(angles.astype(np.float64)).astype(np.float32)
    return np.float32(0.5) - np.float32(0.5) * cosines


@lru_cache(maxsize=1)
def mel_filterbank() -> Float32[np.ndarray, "201 80"]:
    """Returns Slaney's triangles of equal area, 50 to 8000 Hz, as torchaudio lays them out.

    Made in numpy: the first call of `librosa.filters.mel` costs seconds of compilation. Bit for
    bit the table of the published checkpoints, hence the float32 steps in torchaudio's order.
    """
    single = np.float32
    hertz_per_mel, knee, step = 200 / 3, 15.0, math.log(6.4) / 27
    low = single(50.0 / hertz_per_mel)
    high = single(knee + math.log(SAMPLE_RATE / 2 / 1000) / step)
    spacing, index = float((high - low) / single(NUM_MELS + 1)), np.arange(NUM_MELS + 2)
    upwards, downwards = low + spacing * index, high - spacing * (NUM_MELS + 1 - index)
    mels = np.where(index < NUM_MELS // 2 + 1, upwards, downwards).astype(single)
    above_knee = np.exp((single(step) * (mels - single(knee))).astype(np.float64)).astype(single)
    edges = np.where(mels >= knee, single(1000) * above_knee, single(hertz_per_mel) * mels)
    bins = np.arange(WINDOW // 2 + 1, dtype=single) * single(SAMPLE_RATE / WINDOW)
    widths = np.diff(edges)
    distances = edges[None, :] - bins[:, None]
    rising, falling = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
    triangles = np.maximum(single(0), np.minimum(rising, falling))
    return triangles * (single(2) / (edges[2:] - edges[:-2]))


def num_frames(num_samples: int) -> int:
    """Returns how many log-mel frames `num_samples` samples give (998 for 10 s)."""
    return 1 + (num_samples - WINDOW) // HOP


def column_samples(frames: int) -> int:
    """Returns how many samples give exactly `frames` frames (2,800 for a patch's 16)."""
    return (frames - 1) * HOP + WINDOW


def log_mel(
    samples: Float[Array | np.ndarray, "*batch n"],
    window: Float[Array | np.ndarray, "400"] | None = None,
    filterbank: Float[Array | np.ndarray, "201 80"] | None = None,
) -> Float[Array, "*batch frames 80"]:
    """Returns MATPAC's normalised log-mel; jittable, any leading axes.

    Args:
        samples: at 16 kHz, at least one window of 400.
        window: of one frame; default `hann_window()`. A checkpoint may carry its own.
        filterbank: default `mel_filterbank()`.

    Returns:
        `(log(mel + 1.19e-7) + 7.056) / 4.193`, `num_frames(n)` frames of 80 bands.
    """
    window = hann_window() if window is None else window
    filterbank = mel_filterbank() if filterbank is None else filterbank
    samples = jnp.asarray(samples)
    starts = HOP * np.arange(num_frames(samples.shape[-1]))
    frames = samples[..., starts[:, None] + np.arange(WINDOW)] * window
    spectrum = jnp.fft.rfft(frames)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    mel = jnp.matmul(power, filterbank, precision=jax.lax.Precision.HIGHEST)
    return (jnp.log(mel + LOG_OFFSET) - MEAN) / DEVIATION
