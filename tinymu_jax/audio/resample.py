"""Windowed-sinc resampling that reproduces torchaudio's results."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class Resampler(NamedTuple):
    """Settings of the resampling kernel; the defaults are torchaudio's (`sinc_interp_hann`)."""

    zero_crossings: int = 6
    """Zero crossings on each side of the sinc (torchaudio: `lowpass_filter_width`)."""
    rolloff: float = 0.99
    """Cutoff frequency, as a fraction of the lower of the two Nyquist frequencies."""
    beta: float | None = None
    """Shape parameter beta of the Kaiser window; None selects a Hann window."""


RESAMPLERS = {
    "torchaudio": Resampler(),
    "kaiser-best": Resampler(64, 0.9475937167399596, 14.769656459379492),
}
"""Resamplers by name: TinyMU uses `torchaudio`, MATPAC's pre-training uses `kaiser-best`."""


@lru_cache(maxsize=8)
def _sinc_kernels(
    old: int, new: int, resampler: Resampler
) -> tuple[Float32[np.ndarray, "phases taps"], np.ndarray, np.ndarray]:
    """Return torchaudio's windowed-sinc kernels for resampling by new / old, without taps of 0.

    There is one kernel for each of the `new` output phases. Also returns the index of each kernel's
    first tap, relative to the start of a block of `old` input samples, and the numbers of padding
    samples before and after the signal.
    """
    crossings = resampler.zero_crossings
    base = min(old, new) * resampler.rolloff
    width = math.ceil(crossings * old / base)
    offsets = (np.arange(0, -new, -1).astype(np.float32) / np.float32(new)).astype(np.float64)
    first = np.floor(np.arange(new) * old / new).astype(np.int64) - width
    taps = first[:, None] + np.arange(2 * width + 2)
    t = (offsets[:, None] + taps / old) * base
    # Taps outside torchaudio's range are zero.
    inside = (taps >= -width) & (taps < width + old)
    t = np.clip(t, -crossings, crossings)
    window = _window(t, resampler)
    t *= math.pi
    sinc = np.where(t == 0, 1.0, np.sin(t) / np.where(t == 0, 1.0, t))
    kernels = np.where(inside, sinc * window * (base / old), 0.0).astype(np.float32)
    return kernels, first, np.array([width, int(taps.max()) + 1])


def _window(t: np.ndarray, resampler: Resampler) -> np.ndarray:
    """Return the window's values at times t, in zero crossings from the window's centre."""
    if resampler.beta is None:
        return np.cos(t * math.pi / resampler.zero_crossings / 2) ** 2
    # torchaudio stores beta, and the normalization of the window, in float32.
    beta = np.float64(np.float32(resampler.beta))
    kaiser = np.i0(beta * np.sqrt(1 - (t / resampler.zero_crossings) ** 2))
    return kaiser / np.float64(np.float32(np.i0(beta)))


def resample(
    samples: Float32[np.ndarray, "n"],
    rate: int,
    new_rate: int = 16_000,
    resampler: Resampler = RESAMPLERS["torchaudio"],
) -> Float32[np.ndarray, "m"]:
    """Resample a signal from `rate` to `new_rate` Hz as `torchaudio.functional.resample` does.

    Returns ceil(float32(n * new_rate / rate)) samples, or `samples` itself if the rates are equal.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    kernels, first, (before, after) = _sinc_kernels(old, new, resampler)
    blocks = len(samples) // old + 1
    padded = np.zeros(before + blocks * old + after, np.float32)
    padded[before : before + len(samples)] = samples
    out = np.empty((blocks, new), np.float32)
    for phase in range(new):
        start = before + first[phase]
        windows = np.lib.stride_tricks.as_strided(
            padded[start:], (blocks, kernels.shape[1]), (old * padded.itemsize, padded.itemsize)
        )
        out[:, phase] = windows @ kernels[phase]
    # torchaudio rounds this quotient to float32, so that some results are one sample shorter.
    return out.reshape(-1)[: math.ceil(np.float32(new * len(samples) / old))]
