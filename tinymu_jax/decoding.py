"""From a file to samples, whatever decoder can read it."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tinymu_jax.errors import InputError
from tinymu_jax.files import exists


def _check_file(path: Path) -> None:
    """Raises `InputError` if there is nothing to decode."""
    if not exists(path):
        raise InputError(f"{path}: no such file; check the path of the recording")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the recordings in it ({path}/*)")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check who may read it"
        ) from error
    if empty:
        raise InputError(f"{path}: is empty; replace or leave it out")


def decode(
    path: Path, max_seconds: float | None
) -> tuple[Float32[np.ndarray, "n channels"], int, int]:
    """Returns all channels up to the crop, the rate, and the file's length in samples.

    Args:
        path: of a recording.
        max_seconds: how much of it is read; None means all.

    Raises:
        InputError: it is missing, empty, or no recording.
    """
    _check_file(path)
    import soundfile

    try:
        # As bytes: a name may be in any encoding.
        with _quiet_decoders(), soundfile.SoundFile(os.fsencode(path)) as file:
            rate, total = file.samplerate, file.frames
            frames = -1 if max_seconds is None else int(max_seconds * rate)
            samples = file.read(frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError):
        return _decode_with_librosa(path, max_seconds)
    if len(samples) == 0:
        raise InputError(f"{path}: holds no samples; replace or leave it out")
    return samples, rate, max(total, len(samples))


_ONE_AT_A_TIME = threading.Lock()
"""stderr belongs to the whole process."""


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Keeps C libraries from writing to stderr: what is wrong with a file, we say in one line."""
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(2)
        except OSError:
            # stderr is closed: nothing can be written there.
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _decode_with_librosa(
    path: Path, max_seconds: float | None
) -> tuple[Float32[np.ndarray, "n channels"], int, int]:
    """Reads what libsndfile cannot (m4a and others, where librosa finds a decoder)."""
    import warnings

    import librosa

    try:
        with _quiet_decoders(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samples, rate = librosa.load(path, sr=None, mono=False)
    except Exception as error:
        raise InputError(
            f"{path}: cannot be decoded; convert it to wav, flac, ogg or mp3"
        ) from error
    samples = np.atleast_2d(samples).T
    total = len(samples)
    if max_seconds is not None:
        samples = samples[: int(max_seconds * rate)]
    return np.asarray(samples, np.float32), int(rate), total
