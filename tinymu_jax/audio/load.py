"""Reads recordings as 16 kHz mono samples, exactly as the published code does.

The first channel is cropped at the file's sample rate, then resampled with torchaudio's defaults.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.files import find_file
from tinymu_jax.audio.log_mel import SAMPLE_RATE, WINDOW
from tinymu_jax.audio.resample import RESAMPLERS, Resampler, resample
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_content, exists

Mono = Literal["first", "mean"]
SAMPLE_RATE_RANGE = (1_000, 768_000)
"""Lowest and highest accepted sample rate of a file in Hz; others mean a broken header."""
MAX_CLIP_SECONDS = 86_400
"""Largest accepted `max_seconds`: one day."""


class Clip(NamedTuple):
    """A recording, or its start, as samples."""

    samples: Float32[np.ndarray, "n"]
    """One channel of samples at 16 kHz."""
    encoded_seconds: float
    """Seconds of the recording that `samples` holds."""
    total_seconds: float
    """Seconds of the whole recording."""


def load_audio(
    path: str | Path, max_seconds: float | None = 10.0, silence_if_short: bool = False
) -> Float32[np.ndarray, "n"]:
    """Read the first channel of a recording and resample it to 16 kHz, as the published code does.

    Args:
        path: path of a wav, flac, ogg or mp3 file; other formats are read by librosa.
        max_seconds: seconds to read from the start of the recording; None reads everything.
        silence_if_short: whether to reproduce a bug of the published loader, which replaces a clip
            of less than 1,600 samples (before resampling) by `max_seconds` of zeros.

    Returns:
        Samples at 16 kHz, nominally in [-1, 1].

    Raises:
        InputError: the file is missing or cannot be decoded, or its audio is unusable (shorter than
            25 ms, not finite, or of a strange sample rate); or `max_seconds` is out of range.
    """
    return read_clip(path, max_seconds, silence_if_short).samples


def read_clip(
    path: str | Path,
    max_seconds: float | None = 10.0,
    silence_if_short: bool = False,
    mono: Mono = "first",
    resampler: Resampler = RESAMPLERS["torchaudio"],
) -> Clip:
    """Read a recording as 16 kHz mono samples; return the samples and the durations.

    Arguments and errors are those of `load_audio`. In addition, `mono` selects the `first` channel
    (as in TinyMU) or the `mean` of all channels (as in MATPAC), and `resampler` the kernel.
    """
    path = find_file(path)
    check_max_seconds(max_seconds)
    channels, rate, total = decode(path, max_seconds)
    samples = np.ascontiguousarray(channels[:, 0] if mono == "first" else channels.mean(axis=1))
    low, high = SAMPLE_RATE_RANGE
    if not low <= rate <= high:
        raise InputError(
            f"{path}: has a sample rate of {rate}, accepted are {low} to {high}; repair or skip it"
        )
    if silence_if_short and len(samples) < 1600:
        zeros = np.zeros(int((max_seconds or 10.0) * SAMPLE_RATE), np.float32)
        return Clip(zeros, 0.0, total / rate)
    seconds = len(samples) / rate
    samples = resample(samples, rate, SAMPLE_RATE, resampler)
    return Clip(check_samples(samples, str(path)), seconds, total / rate)


def as_clip(audio: "str | Path | np.ndarray | Clip", max_seconds: float | None = 10.0) -> Clip:
    """Convert a path, or an array of 16 kHz samples, to a `Clip`; return a `Clip` unchanged.

    Raises:
        InputError: the file cannot be used (see `load_audio`), the array is not (n,) finite floats,
            or `max_seconds` is out of range.
    """
    if isinstance(audio, Clip):
        return audio
    if isinstance(audio, str | Path):
        return read_clip(audio, max_seconds)
    samples = np.asarray(audio)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise InputError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: give one channel of "
            "16 kHz samples, shape (n,), as floats in [-1, 1] (for int16: samples / 32768)"
        )
    check_max_seconds(max_seconds)
    total = len(samples)
    if max_seconds is not None:
        samples = samples[: int(max_seconds * SAMPLE_RATE)]
    samples = check_samples(samples.astype(np.float32), "audio array")
    return Clip(samples, len(samples) / SAMPLE_RATE, total / SAMPLE_RATE)


def check_max_seconds(max_seconds: float | None) -> None:
    """Raise `InputError` if `max_seconds` is less than one window (25 ms) or more than a day."""
    if max_seconds is not None and not WINDOW / SAMPLE_RATE <= max_seconds <= MAX_CLIP_SECONDS:
        raise InputError(
            f"max_seconds is {max_seconds}: give {WINDOW / SAMPLE_RATE} (one window) to "
            f"{MAX_CLIP_SECONDS} (a day)"
        )


def check_samples(samples: np.ndarray, name: str) -> Float32[np.ndarray, "n"]:
    """Return 16 kHz `samples`; raise `InputError` if they are shorter than 25 ms or not finite."""
    if len(samples) < WINDOW:
        raise InputError(
            f"{name}: {len(samples)} samples at 16 kHz are less than one window of {WINDOW} "
            "(25 ms); give a longer recording"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: contains NaN or infinite samples; repair or skip it")
    return samples


def _check_file(path: Path) -> None:
    """Raise `InputError` if the file is missing, a folder, unreadable or empty."""
    check_content(path, may_be_empty=True)
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
        raise InputError(f"{path}: is empty; replace or skip it")


def decode(
    path: Path, max_seconds: float | None
) -> tuple[Float32[np.ndarray, "n channels"], int, int]:
    """Decode the first `max_seconds` seconds (None: all) of a recording, without resampling.

    Returns the samples of all channels, the sample rate in Hz, and the whole recording's number of
    samples per channel. Raises `InputError` if the file is missing, empty, or cannot be decoded.
    """
    _check_file(path)
    import soundfile

    try:
        # The path is passed as bytes, since a file name may be in any encoding.
        with quiet_decoders(), soundfile.SoundFile(os.fsencode(path)) as file:
            rate, total = file.samplerate, file.frames
            frames = -1 if max_seconds is None else int(max_seconds * rate)
            samples = file.read(frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError):
        return _decode_with_librosa(path, max_seconds)
    if len(samples) == 0:
        raise InputError(f"{path}: has no samples; replace or skip it")
    return samples, rate, max(total, len(samples))


_STDERR_LOCK = threading.Lock()


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Discard what C decoders write to stderr while the context is open."""
    # stderr belongs to the whole process, so only one thread at a time may redirect it.
    with _STDERR_LOCK:
        try:
            stderr = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(devnull)


def _decode_with_librosa(
    path: Path, max_seconds: float | None
) -> tuple[Float32[np.ndarray, "n channels"], int, int]:
    """Decode a file that libsndfile cannot read, such as m4a; see `decode`."""
    import warnings

    import librosa

    try:
        with quiet_decoders(), warnings.catch_warnings():
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
