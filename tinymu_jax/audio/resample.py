"""Windowed-sinc resampling that reproduces torchaudio's results."""

import math
from collections.abc import Iterator
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


MAX_TABLE = 2**21
"""Largest number of kernel values that are computed and kept at once, 8 MB; sample rates with few
common factors need more, and their kernels are computed in parts when they are used."""
WINDOW_NODES = 2**17
"""Number of points at which the window is computed if kernels are computed in parts."""
RESAMPLERS = {
    "torchaudio": Resampler(),
    "kaiser-best": Resampler(64, 0.9475937167399596, 14.769656459379492),
}
"""Resamplers by name: TinyMU uses `torchaudio`, MATPAC's pre-training uses `kaiser-best`."""


class _Phases(NamedTuple):
    """Where each output phase's kernel lies in the input, for resampling from `old` to `new` Hz."""

    base: float
    """Cutoff frequency in cycles per `old` input samples."""
    width: int
    """Number of input samples on each side of the kernel's centre."""
    offset: np.ndarray
    """Time of each phase, negated, as a fraction of `old` input samples."""
    first: np.ndarray
    """Index of each kernel's first tap, relative to the start of a block of `old` input samples."""


def _phases(old: int, new: int, resampler: Resampler) -> _Phases:
    base = min(old, new) * resampler.rolloff
    width = math.ceil(resampler.zero_crossings * old / base)
    offset = (np.arange(0, -new, -1).astype(np.float32) / np.float32(new)).astype(np.float64)
    first = np.floor(np.arange(new) * old / new).astype(np.int64) - width
    return _Phases(base, width, offset, first)


@lru_cache(maxsize=8)
def _sinc_kernels(old: int, new: int, resampler: Resampler) -> Float32[np.ndarray, "phases taps"]:
    """Return torchaudio's windowed-sinc kernels for resampling from `old` to `new` Hz.

    There is one kernel for each of the `new` output phases. Taps that are always 0 are left out.
    """
    base, width, offset, first = _phases(old, new, resampler)
    crossings = resampler.zero_crossings
    taps = first[:, None] + np.arange(2 * width + 2)
    t = (offset[:, None] + taps / old) * base
    # Taps outside torchaudio's range are zero.
    inside = (taps >= -width) & (taps < width + old)
    t = np.clip(t, -crossings, crossings)
    window = _window(t, resampler)
    t *= math.pi
    sinc = np.where(t == 0, 1.0, np.sin(t) / np.where(t == 0, 1.0, t))
    return np.where(inside, sinc * window * (base / old), 0.0).astype(np.float32)


def _sinc_kernels_in_parts(
    old: int, new: int, resampler: Resampler
) -> Iterator[Float32[np.ndarray, "taps"]]:
    """Yield the kernels of `_sinc_kernels` one by one, in little memory.

    They differ by at most 1e-7: the window is interpolated in a table, and sines are computed by
    the addition theorem.
    """
    base, width, offset, first = _phases(old, new, resampler)
    crossings = resampler.zero_crossings
    per_node = crossings / WINDOW_NODES
    window = _window(np.linspace(0, crossings, WINDOW_NODES + 1), resampler)
    slope = np.append(np.diff(window), 0.0)
    steps = np.arange(2 * width + 2)
    times = steps * (base / old)
    sine, cosine = np.sin(math.pi * times), np.cos(math.pi * times)
    for phase in range(new):
        start = (offset[phase] + first[phase] / old) * base
        t = start + times
        # Taps outside torchaudio's range are zero.
        inside = (np.abs(t) < crossings) & (first[phase] + steps < width + old)
        place = np.minimum(np.abs(t), crossings) / per_node
        node = place.astype(np.int64)
        kernel = (window[node] + (place - node) * slope[node]) * inside * (base / old)
        angle = math.pi * start
        is_zero = np.abs(t) < 1e-9
        kernel *= math.sin(angle) * cosine + math.cos(angle) * sine + is_zero * math.pi
        yield (kernel / (math.pi * (t + is_zero))).astype(np.float32)


def _window(t: np.ndarray, resampler: Resampler) -> np.ndarray:
    """Return the window at times `t` from its centre; the unit of time is one zero crossing."""
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
    _, before, _, first = _phases(old, new, resampler)
    taps = 2 * before + 2
    in_parts = new * taps > MAX_TABLE
    kernels = (_sinc_kernels_in_parts if in_parts else _sinc_kernels)(old, new, resampler)
    blocks = len(samples) // old + 1
    padded = np.zeros(before + blocks * old + first[-1] + taps, np.float32)
    padded[before : before + len(samples)] = samples
    out = np.empty((blocks, new), np.float32)
    for phase, kernel in enumerate(kernels):
        if phase * old >= len(samples) * new:
            break  # The rest of a first and only block is cut off.
        start = before + first[phase]
        windows = np.lib.stride_tricks.as_strided(
            padded[start:], (blocks, taps), (old * padded.itemsize, padded.itemsize)
        )
        out[:, phase] = windows @ kernel
    # torchaudio rounds this quotient to float32, so that some results are one sample shorter.
    return out.reshape(-1)[: math.ceil(np.float32(new * len(samples) / old))]
