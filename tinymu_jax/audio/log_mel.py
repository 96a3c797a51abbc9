"""MATPAC's published log-mel front end: 16 kHz, 25 ms windows, 80 mel bands."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

SAMPLE_RATE = 16_000
WINDOW = 400
"""Samples per window (25 ms), and length of the FFT."""
HOP = 160
"""Samples between the starts of consecutive frames (10 ms)."""
NUM_MELS = 80
LOG_OFFSET = float(np.finfo(np.float32).eps)
MEAN, DEVIATION = -7.056, 4.193
"""Mean and standard deviation of the log-mels in MATPAC's training data, for normalization."""


@lru_cache(maxsize=1)
def hann_window() -> Float32[np.ndarray, "400"]:
    """Return the periodic Hann window; values differ from torch's by at most one rounding."""
    angles = np.arange(WINDOW, dtype=np.float32) * np.float32(2 * math.pi / WINDOW)
    cosines = np.cos(angles.astype(np.float64)).astype(np.float32)
    return np.float32(0.5) - np.float32(0.5) * cosines


@lru_cache(maxsize=1)
def mel_filterbank() -> Float32[np.ndarray, "201 80"]:
    """Return the Slaney mel filterbank from 50 to 8000 Hz, with area-normalized bands.

    It equals the published checkpoints' filterbank bit for bit (float32, in torchaudio's order).
    """
    # librosa.filters.mel is not used, since its first call takes seconds to compile.
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
    """Return the number of log-mel frames in `num_samples` samples at 16 kHz (998 for 10 s)."""
    return 1 + (num_samples - WINDOW) // HOP


def column_samples(frames: int) -> int:
    """Return the number of 16 kHz samples that give exactly `frames` frames (2,800 for 16)."""
    return (frames - 1) * HOP + WINDOW


def log_mel(
    samples: Float[Array | np.ndarray, "*batch n"],
    window: Float[Array | np.ndarray, "400"] | None = None,
    filterbank: Float[Array | np.ndarray, "201 80"] | None = None,
) -> Float[Array, "*batch frames 80"]:
    """Return MATPAC's normalized log-mel of 16 kHz samples.

    Args:
        samples: at least 400 samples (one window) at 16 kHz.
        window: window function; default `hann_window()`.
        filterbank: mel filterbank; default `mel_filterbank()`.

    Returns:
        `(log(mel + 1.19e-7) + 7.056) / 4.193`: `num_frames(n)` frames of 80 mel bands.
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
