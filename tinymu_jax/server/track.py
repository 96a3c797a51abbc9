"""Reads a whole recording for the page: its length, whether it is silent, its log-mel picture."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from tinymu_jax.audio.log_mel import HOP, NUM_MELS, SAMPLE_RATE, WINDOW, log_mel, num_frames
from tinymu_jax.audio.windows import read_windows

MAX_COLUMNS = 2_000
"""Largest number of columns of a picture; a longer recording has several frames per column."""

_log_mel = jax.jit(log_mel)


class Track(NamedTuple):
    """What the page knows about a recording."""

    path: str
    seconds: float
    silent: bool
    silent_start: bool
    """Whether the part that a question is about, the first `max_seconds`, is silent."""

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.path).name


def read_track(
    path: str, max_seconds: float, lock: AbstractContextManager, keep_damaged: bool = False
) -> tuple[Track, Float[np.ndarray, "columns 80"]]:
    """Read a recording of any length in windows; return facts about it and its log-mel.

    The log-mel has at most `MAX_COLUMNS` columns of equal length in time. `max_seconds` is the
    length of a window, `lock` is held while jax computes, and `keep_damaged` is whether to use what
    can be read of a damaged recording.

    Raises:
        InputError: the recording cannot be read, or is too short.
    """
    columns, frames_per_column = np.zeros((0, NUM_MELS), np.float32), 1
    silent, end = [], 0.0
    size = max(WINDOW, int(max_seconds * SAMPLE_RATE))
    for window in read_windows(path, max_seconds, keep_damaged=keep_damaged):
        # Windows of one length, so that one program is compiled.
        padded = np.pad(window.samples, (0, max(0, size - len(window.samples))))
        with lock:
            frames = np.asarray(_log_mel(padded))[: num_frames(len(window.samples))]
        end = window.end
        while end * SAMPLE_RATE / HOP / frames_per_column > MAX_COLUMNS:
            columns, frames_per_column = _pool(columns, 2), 2 * frames_per_column
        part = _pool(frames, frames_per_column)
        place = round(window.start * SAMPLE_RATE / HOP / frames_per_column)
        # The last frame of a window ends where the window does, so frames are missing between two.
        gap = np.repeat(columns[-1:], max(0, place - len(columns)), axis=0)
        columns = np.concatenate([columns[:place], gap, part])
        silent.append(window.is_silent)
    return Track(path, end, all(silent), silent[0]), columns


def _pool(frames: Float[np.ndarray, "frames 80"], count: int) -> Float[np.ndarray, "columns 80"]:
    """Return the means of every `count` frames; the last ones are repeated to fill their group."""
    padded = np.pad(frames, ((0, -len(frames) % count), (0, 0)), "edge") if len(frames) else frames
    return padded.reshape(-1, count, frames.shape[1]).mean(axis=1)
