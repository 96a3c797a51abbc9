"""What a decoder returns: samples at the recording's rate, its length, and its damage."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.resample import resample

Samples = Float32[np.ndarray, "n channels"]
SAMPLE_RATE_RANGE = (1_000, 768_000)
"""Lowest and highest accepted sample rate of a file in Hz; others mean a broken header."""
TOLERANCE = 0.15
"""Seconds that a compressed file may be shorter than its header says: encoders' delay."""


class Decoded(NamedTuple):
    """A recording, or its start, at its sample rate."""

    samples: Samples
    rate: int
    """Sample rate in Hz."""
    total: int
    """Samples per channel of the whole recording."""
    damage: str | None = None
    """What is wrong with the recording; None if nothing is."""

    @property
    def seconds(self) -> float:
        """Decoded seconds."""
        return len(self.samples) / max(self.rate, 1)


def damaged_after(seconds: float, total: float | None) -> str:
    """Return "damaged after 5.3 s of 12.0 s" for `seconds` = 5.3 and `total` = 12.0."""
    whole = f" of {total:.1f} s" if total is not None and total > seconds else ""
    return f"damaged after {seconds:.1f} s{whole}"


def as_format(samples: Samples, rate: int, new_rate: int, channels: int) -> np.ndarray:
    """Resample to `new_rate`, and return (n, channels) float32 samples.

    If the number of channels changes, each is a copy of the first. The result is empty if the rates
    differ and one is outside `SAMPLE_RATE_RANGE`.
    """
    low, high = SAMPLE_RATE_RANGE
    if rate != new_rate and not low <= min(rate, new_rate) <= max(rate, new_rate) <= high:
        samples = samples[:0]
    if rate != new_rate and len(samples):
        columns = [resample(np.ascontiguousarray(c), rate, new_rate) for c in samples.T]
        samples = np.stack(columns, axis=1)
    if samples.shape[1] != channels:
        # The first channel, as often as needed: right for mono, and the one that TinyMU uses.
        samples = np.repeat(samples[:, :1], channels, axis=1)
    return samples
