"""Sample rate conversion by windowed sinc, number for number as torchaudio does it."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class Resampler(NamedTuple):
    """Which kernel; the default is torchaudio's (`sinc_interp_hann`)."""

    zero_crossings: int = 6
    """Of the sinc on either side; torchaudio's `lowpass_filter_width`."""
    rolloff: float = 0.99
    """How much of the lower rate's band passes."""
    beta: float | None = None
    """Of a Kaiser window; None is a Hann window."""


RESAMPLERS = {
    "torchaudio": Resampler(),
    "kaiser-best": Resampler(64, 0.9475937167399596, 14.769656459379492),
}
"""TinyMU reads its audio with the first, MATPAC's pre-training with the second."""


@lru_cache(maxsize=8)
def _sinc_kernels(
    old: int, new: int, resampler: Resampler
) -> tuple[Float32[np.ndarray, "phases taps"], np.ndarray, np.ndarray]:
    """Returns torchaudio's windowed-sinc kernels without their zeros.

    torchaudio holds one kernel of old + 2 * width taps for each of `new` output phases; all but
    about 2 * width of them are zero. Its numbers are made in float64 except the phase offset,
    a float32 division: repeated here, since the float32 results depend on it.

    Returns:
        kernels, the first tap of each phase relative to the start of its block of `old` input
        samples, and how many samples before and behind the signal are needed at most.
    """
    crossings = resampler.zero_crossings
    base = min(old, new) * resampler.rolloff
    width = math.ceil(crossings * old / base)
    offsets = (np.arange(0, -new, -1).astype(np.float32) / np.float32(new)).astype(np.float64)
    first = np.floor(np.arange(new) * old / new).astype(np.int64) - width
    taps = first[:, None] + np.arange(2 * width + 2)
    t = (offsets[:, None] + taps / old) * base
    # Beyond torchaudio's own range of taps there is nothing, whatever the formula says.
    inside = (taps >= -width) & (taps < width + old)
    t = np.clip(t, -crossings, crossings)
    window = _window(t, resampler)
    t *= math.pi
    sinc = np.where(t == 0, 1.0, np.sin(t) / np.where(t == 0, 1.0, t))
    kernels = np.where(inside, sinc * window * (base / old), 0.0).astype(np.float32)
    return kernels, first, np.array([width, int(taps.max()) + 1])


def _window(t: np.ndarray, resampler: Resampler) -> np.ndarray:
    """Returns the window at t zero crossings."""
    if resampler.beta is None:
        return np.cos(t * math.pi / resampler.zero_crossings / 2) ** 2
    # torchaudio keeps beta, and the window's height, as float32.
    beta = np.float64(np.float32(resampler.beta))
    bent = np.i0(beta * np.sqrt(1 - (t / resampler.zero_crossings) ** 2))
    return bent / np.float64(np.float32(np.i0(beta)))


def resample(
    samples: Float32[np.ndarray, "n"],
    rate: int,
    new_rate: int = 16_000,
    resampler: Resampler = RESAMPLERS["torchaudio"],
) -> Float32[np.ndarray, "m"]:
    """Resamples as `torchaudio.functional.resample` does with the resampler's settings.

    Returns:
        ceil(float32(n * new_rate / rate)) samples; the input itself where the rates are equal.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    kernels, first, (before, behind) = _sinc_kernels(old, new, resampler)
    blocks = len(samples) // old + 1
    padded = np.zeros(before + blocks * old + behind, np.float32)
    padded[before : before + len(samples)] = samples
    out = np.empty((blocks, new), np.float32)
    for phase in range(new):
        start = before + first[phase]
        windows = np.lib.stride_tricks.as_strided(
            padded[start:], (blocks, kernels.shape[1]), (old * padded.itemsize, padded.itemsize)
        )
        out[:, phase] = windows @ kernels[phase]
    # torchaudio rounds this quotient to float32 first: some lengths lose a sample by it.
    return out.reshape(-1)[: math.ceil(np.float32(new * len(samples) / old))]
