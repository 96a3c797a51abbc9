"""From a recording to the encoder's input: read, resample, log-mel.

Every step repeats the published front end number for number: the first channel, cropped at the
file's own rate, torchaudio's default sinc resampler, and MATPAC's log-mel.
"""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

SAMPLE_RATE = 16_000

WINDOW = 400
"""Samples of one analysis window, also the length of its Fourier transform (25 ms)."""

HOP = 160
"""Samples from one frame to the next (10 ms)."""

NUM_MELS = 80

LOG_OFFSET = float(np.finfo(np.float32).eps)

MEAN, DEVIATION = -7.056, 4.193
"""Of MATPAC's training log-mels; what the encoder reads is normalised by them."""


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
