"""Cuts whole recordings into windows, which are decoded as a stream."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.decode import decode_blocks
from tinymu_jax.audio.files import find_file
from tinymu_jax.audio.load import (
    MAX_CLIP_SECONDS,
    Audio,
    as_clip,
    check_level,
    check_rate,
    check_samples,
)
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.audio.resample import resample
from tinymu_jax.errors import InputError

MIN_SECONDS = 3.0
"""Length of the shortest window; a shorter rest of a recording becomes the end of a full window."""
SILENCE_PEAK = 10 ** (-60 / 20)
"""Largest absolute value of a sample in silence: -60 dB of full scale."""


def is_silent(samples: Float32[np.ndarray, "n"]) -> bool:
    """Return whether no sample is louder than `SILENCE_PEAK`."""
    return float(max(-samples.min(initial=0), samples.max(initial=0))) <= SILENCE_PEAK


class AudioWindow(NamedTuple):
    """A window of a recording."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    samples: Float32[np.ndarray, "n"]
    """One channel at 16 kHz."""

    @property
    def is_silent(self) -> bool:
        """Whether no sample is louder than `SILENCE_PEAK`."""
        return is_silent(self.samples)


def read_windows(
    recording: Audio, seconds: float, hop: float | None = None, keep_damaged: bool = False
) -> Iterator[AudioWindow]:
    """Yield the windows of a recording, which is read as a stream.

    Each window is what `read_clip` returns for a file of that part of the recording: it is cut at
    the recording's sample rate, and then resampled.

    Args:
        recording: the recording, in any form of `Audio`.
        seconds: length of a window.
        hop: seconds from the start of a window to the start of the next; None: `seconds`. A rest of
            less than `MIN_SECONDS` at the end is read as part of a full window that ends there.
        keep_damaged: whether to yield what can be read of a damaged recording.

    Raises:
        InputError: the recording cannot be used (see `load_audio`; damage is an error after the
            windows before it), or `seconds` or `hop` is too short.
    """
    hop = seconds if hop is None else hop
    for name, value, least in (("window", seconds, MIN_SECONDS), ("hop", hop, 0.1)):
        if not least <= value <= MAX_CLIP_SECONDS:
            raise InputError(f"{name} is {value}; give {least} to {MAX_CLIP_SECONDS} seconds")
    if isinstance(recording, str | Path | bytes):
        path = recording if isinstance(recording, bytes) else find_file(recording)
        name = "audio bytes" if isinstance(path, bytes) else str(path)
        rate, blocks = decode_blocks(path, keep_damaged, name)
        check_rate(rate, name)
    else:
        name, rate = "audio array", SAMPLE_RATE
        blocks = iter([as_clip(recording, None, keep_damaged).samples])
    for start, samples in _cut(blocks, int(seconds * rate), int(hop * rate), rate):
        end = (start + len(samples)) / rate
        samples = resample(check_level(samples, name), rate, SAMPLE_RATE)
        yield AudioWindow(start / rate, end, check_samples(samples, name))


def _cut(
    blocks: Iterable[np.ndarray], size: int, step: int, rate: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a stream of samples into windows of `size` samples, `step` apart.

    Yields the first sample's number and the samples of each window; see `read_windows` for the end.
    """
    buffer, first, start = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while first + len(buffer) >= start + size:
            yield start, buffer[start - first : start - first + size]
            start += step
        # A last window may have to begin before the next one would.
        drop = min(start, first + len(buffer) - size) - first
        if drop > 0:
            buffer, first = buffer[drop:], first + drop
    total = first + len(buffer)
    if start > 0 and start - step + size >= total:
        return  # the last window ends with the recording
    if total - start < min(MIN_SECONDS * rate, size):
        start = max(0, total - size)
    if start < total:
        yield start, buffer[start - first :]


def seconds_of_each(windows: Iterable[AudioWindow | tuple[float, float]]) -> list[float]:
    """Return the seconds of a recording that each (start, end) stands for.

    Windows that overlap share the seconds they have in common, so that each counts once.
    """
    spans = [(window[0], window[1]) for window in windows]
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    # Up to each edge, how many seconds a window counts that covers everything before it.
    counted, at, covering, last = 0.0, dict[float, float](), 0, 0.0
    for edge, change in edges:
        counted += (edge - last) / covering if covering else 0.0
        at[edge] = counted
        covering, last = covering + change, edge
    return [at[end] - at[start] for start, end in spans]
