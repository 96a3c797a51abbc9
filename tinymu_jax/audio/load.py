"""From a recording to the encoder's input: read, resample, log-mel.

Every step repeats the published front end number for number: the first channel, cropped at the
file's own rate, torchaudio's default sinc resampler, and MATPAC's log-mel.
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

from tinymu_jax.audio.log_mel import SAMPLE_RATE, WINDOW
from tinymu_jax.audio.resample import RESAMPLERS, Resampler, resample
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists

Mono = Literal["first", "mean"]

SAMPLE_RATE_RANGE = (1_000, 768_000)
"""Sample rates that recordings may have; others are faults of a header."""

MAX_CLIP_SECONDS = 86_400
"""Seconds that can be heard."""


class Clip(NamedTuple):
    """The part of a recording that is heard."""

    samples: Float32[np.ndarray, "n"]
    """At 16 kHz, one channel."""
    encoded_seconds: float
    total_seconds: float


def load_audio(
    path: str | Path, max_seconds: float | None = 10.0, silence_if_short: bool = False
) -> Float32[np.ndarray, "n"]:
    """Reads the first channel of a recording at 16 kHz, as published.

    Args:
        path: wav, flac, ogg or mp3; other formats are handed to librosa's readers.
        max_seconds: crop from the start, before resampling; None reads all.
        silence_if_short: repeat a fault of the published loader, for comparisons: a clip of less
            than 1,600 samples at its own rate becomes `max_seconds` of zeros.

    Returns:
        Samples at 16 kHz, nominally in [-1, 1].

    Raises:
        InputError: the file is missing, a folder, empty, undecodable or shorter than one window.
    """
    return read_clip(path, max_seconds, silence_if_short).samples


def read_clip(
    path: str | Path,
    max_seconds: float | None = 10.0,
    silence_if_short: bool = False,
    mono: Mono = "first",
    resampler: Resampler = RESAMPLERS["torchaudio"],
) -> Clip:
    """Does what `load_audio` does and tells how much of the recording that is.

    Args:
        path: as for `load_audio`.
        max_seconds: as for `load_audio`.
        silence_if_short: as for `load_audio`.
        mono: the first channel, as TinyMU hears, or the mean of all, as MATPAC was pre-trained.
        resampler: to 16 kHz.

    Raises:
        InputError: as `load_audio`.
    """
    path = Path(path)
    check_max_seconds(max_seconds)
    channels, rate, total = decode(path, max_seconds)
    samples = np.ascontiguousarray(channels[:, 0] if mono == "first" else channels.mean(axis=1))
    if not SAMPLE_RATE_RANGE[0] <= rate <= SAMPLE_RATE_RANGE[1]:
        raise InputError(
            f"{path}: says that its sample rate is {rate}, {SAMPLE_RATE_RANGE[0]} to {SAMPLE_RATE_RANGE[1]} can be used; "
            "repair or leave it out"
        )
    if silence_if_short and len(samples) < 1600:
        zeros = np.zeros(int((max_seconds or 10.0) * SAMPLE_RATE), np.float32)
        return Clip(zeros, 0.0, total / rate)
    heard = len(samples) / rate
    samples = resample(samples, rate, SAMPLE_RATE, resampler)
    return Clip(check_samples(samples, str(path)), heard, total / rate)


def as_clip(audio: "str | Path | np.ndarray | Clip", max_seconds: float | None = 10.0) -> Clip:
    """Takes a path, or an array of 16 kHz samples, and returns what is heard of it.

    A clip that was read before is returned as it is.

    Raises:
        InputError: as `load_audio`; an array with another shape than (n,), or with NaN in it.
    """
    if isinstance(audio, Clip):
        return audio
    if isinstance(audio, str | Path):
        return read_clip(audio, max_seconds)
    samples = np.asarray(audio)
    if samples.ndim != 1 or samples.dtype.kind not in "fiu":
        raise InputError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: give one channel "
            "of 16 kHz samples, shape (n,), as floats in [-1, 1]"
        )
    if samples.dtype.kind in "iu":
        raise InputError(
            f"audio array of type {samples.dtype}: give floats in [-1, 1] "
            f"(for int16: samples / 32768)"
        )
    check_max_seconds(max_seconds)
    total = len(samples)
    if max_seconds is not None:
        samples = samples[: int(max_seconds * SAMPLE_RATE)]
    samples = check_samples(samples.astype(np.float32), "audio array")
    return Clip(samples, len(samples) / SAMPLE_RATE, total / SAMPLE_RATE)


def check_max_seconds(max_seconds: float | None) -> None:
    """Raises `InputError` if `max_seconds` of a recording are less than one window."""
    if max_seconds is not None and not WINDOW / SAMPLE_RATE <= max_seconds <= MAX_CLIP_SECONDS:
        raise InputError(
            f"max_seconds is {max_seconds}: give {WINDOW / SAMPLE_RATE} (one window) to {MAX_CLIP_SECONDS} "
            "(a day)"
        )


def check_samples(samples: np.ndarray, name: str) -> Float32[np.ndarray, "n"]:
    """Returns the samples if the log-mel can be taken of them, else raises `InputError`."""
    if len(samples) < WINDOW:
        raise InputError(
            f"{name}: {len(samples)} samples at 16 kHz are less than one window of {WINDOW} "
            "(25 ms); give a longer recording"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: holds NaN or infinite samples; repair or leave it out")
    return samples


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


SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def list_audio_files(folder: str | Path) -> list[Path]:
    """Returns the recordings in a folder and those below it, sorted.

    Raises:
        InputError: there are none.
    """
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: has no recordings ({', '.join(SUFFIXES)}); name others")
    return found
