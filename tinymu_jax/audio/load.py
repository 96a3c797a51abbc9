"""Reads recordings as 16 kHz mono samples, exactly as the published code does.

The first channel is cropped at the file's sample rate, then resampled with torchaudio's defaults.
"""

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.decode import decode
from tinymu_jax.audio.decoded import SAMPLE_RATE_RANGE
from tinymu_jax.audio.files import find_file
from tinymu_jax.audio.log_mel import SAMPLE_RATE, WINDOW
from tinymu_jax.audio.resample import RESAMPLERS, Resampler, resample
from tinymu_jax.errors import InputError, reason_of

Mono = Literal["first", "mean"]
MAX_CLIP_SECONDS = 86_400
"""Largest accepted `max_seconds`: one day."""
_FILE_TYPES = (str, Path, bytes, bytearray, memoryview)
"""Types of the path or the content of a file."""
MAX_PEAK = 8.0
"""Largest accepted absolute value of a sample; full scale is 1."""


class Clip(NamedTuple):
    """A recording, or its start, as samples."""

    samples: Float32[np.ndarray, "n"]
    """One channel of samples at 16 kHz."""
    encoded_seconds: float
    """Seconds of the recording that `samples` holds."""
    total_seconds: float
    """Seconds of the whole recording."""
    damage: str | None = None
    """What is wrong with a damaged recording of which `samples` is what can be read."""


Bytes = bytes | bytearray | memoryview
Audio = str | Path | Bytes | np.ndarray | Clip | tuple[Any, Any] | Mapping[str, Any]
"""A recording: its path ("-": stdin), the content of a file, 16 kHz samples of one channel, a clip
from `read_clip`, a pair of sample rate and samples as of Gradio, in either order, or a dict as of
`datasets`: `array` and `sampling_rate`, or `path` and `bytes`."""


def load_audio(
    path: str | Path,
    max_seconds: float | None = 10.0,
    silence_if_short: bool = False,
    keep_damaged: bool = False,
) -> Float32[np.ndarray, "n"]:
    """Read the first channel of a recording and resample it to 16 kHz, as the published code does.

    Args:
        path: path of a sound file, of a pipe, or "-" (stdin). libsndfile reads wav, flac, ogg, mp3
            and the like; FFmpeg the other formats, such as m4a and webm.
        max_seconds: seconds to read from the start of the recording; None reads everything.
        silence_if_short: whether to reproduce a bug of the published loader, which replaces a clip
            of less than 1,600 samples (before resampling) by `max_seconds` of zeros.
        keep_damaged: whether to return what can be read of a damaged recording.

    Returns:
        Samples at 16 kHz, nominally in [-1, 1].

    Raises:
        InputError: the file is missing, damaged or cannot be decoded, or its audio is unusable
            (shorter than 25 ms, not finite, far louder than full scale, or of a strange sample
            rate); or `max_seconds` is out of range.
    """
    return read_clip(path, max_seconds, silence_if_short, keep_damaged=keep_damaged).samples


def read_clip(
    path: str | Path | bytes,
    max_seconds: float | None = 10.0,
    silence_if_short: bool = False,
    mono: Mono = "first",
    resampler: Resampler = RESAMPLERS["torchaudio"],
    keep_damaged: bool = False,
    name: str = "audio bytes",
) -> Clip:
    """Read a recording as 16 kHz mono samples; return the samples and the durations.

    `path` may also be the content of a file, as bytes; error messages then call it `name`. `mono`
    selects the `first` channel (as in TinyMU) or the `mean` of all channels (as in MATPAC), and
    `resampler` the resampling kernel. For other arguments and errors, see `load_audio`.
    """
    path = path if isinstance(path, bytes) else find_file(path)
    check_max_seconds(max_seconds)
    name = name if isinstance(path, bytes) else str(path)
    channels, rate, total, damage = decode(path, max_seconds, keep_damaged, name)
    check_rate(rate, name)
    samples = check_level(channels[:, :1] if mono == "first" else channels, name)
    samples = np.ascontiguousarray(samples[:, 0] if mono == "first" else samples.mean(axis=1))
    if silence_if_short and len(samples) < 1600:
        zeros = np.zeros(int((max_seconds or 10.0) * SAMPLE_RATE), np.float32)
        return Clip(zeros, 0.0, total / rate, damage)
    seconds = len(samples) / rate
    samples = resample(samples, rate, SAMPLE_RATE, resampler)
    return Clip(check_samples(samples, name), seconds, total / rate, damage)


def as_clip(audio: Audio, max_seconds: float | None = 10.0, keep_damaged: bool = False) -> Clip:
    """Convert a recording in any form of `Audio` to a `Clip`; return a `Clip` unchanged.

    Samples without a sample rate are floats of one channel at 16 kHz. Samples with a rate may be
    integers of full range, and may have several channels, of which the first is used.

    Raises:
        InputError: the file cannot be used (see `load_audio`), the samples have another shape or
            type or are not finite, or `max_seconds` is out of range.
    """
    if isinstance(audio, Clip):
        return audio
    if isinstance(audio, Mapping) and audio.get("array") is None and audio.get("raw") is None:
        content, path = audio.get("bytes"), audio.get("path")
        recording, name = path if content is None else content, str(path or "audio bytes")
        if not isinstance(recording, _FILE_TYPES) or isinstance(content, str):
            raise InputError(
                f"audio has the keys {', '.join(map(str, audio)) or '(none)'}: give array and "
                "sampling_rate, or path (a text), or bytes"
            )
        return _read_file(recording, max_seconds, keep_damaged, name)
    if isinstance(audio, _FILE_TYPES):
        return _read_file(audio, max_seconds, keep_damaged)
    samples, rate = _as_samples(audio)
    check_max_seconds(max_seconds)
    total = len(samples)
    if max_seconds is not None:
        samples = samples[: int(max_seconds * rate)]
    seconds = len(samples) / rate
    samples = check_level(samples, "audio array").astype(np.float32)
    samples = check_samples(resample(samples, rate, SAMPLE_RATE), "audio array")
    return Clip(samples, seconds, total / rate)


def _read_file(
    recording: str | Path | Bytes,
    max_seconds: float | None,
    keep_damaged: bool,
    name: str = "audio bytes",
) -> Clip:
    recording = recording if isinstance(recording, str | Path) else bytes(recording)
    return read_clip(recording, max_seconds, keep_damaged=keep_damaged, name=name)


def is_one_recording(audio: Any) -> bool:
    """Return whether an argument is one recording (see `Audio`), not a sequence of recordings."""
    return (
        isinstance(audio, (*_FILE_TYPES, Clip, Mapping))
        or hasattr(audio, "dtype")
        or hasattr(audio, "get_all_samples")
        or (isinstance(audio, tuple) and len(audio) == 2 and any(map(_is_number, audio)))
    )


def _is_number(value: Any) -> bool:
    """Return whether a value is one number, such as a sample rate; arrays of no axes are."""
    return isinstance(value, Real) or getattr(value, "ndim", None) == 0


def _as_samples(audio: Any) -> tuple[np.ndarray, int]:
    """Return the first channel of samples as floats, and their rate."""
    if hasattr(audio, "get_all_samples"):  # torchcodec's decoder, which `datasets` returns
        decoded = audio.get_all_samples()
        return _first_channel(decoded.data, decoded.sample_rate)
    if isinstance(audio, Mapping):
        array = audio["raw"] if audio.get("array") is None else audio["array"]
        if audio.get("sampling_rate") is None:
            raise InputError("audio has an array and no sampling_rate: give both")
        return _first_channel(array, audio["sampling_rate"])
    if isinstance(audio, tuple) and is_one_recording(audio):
        first, second = audio
        return _first_channel(*((second, first) if _is_number(first) else audio))
    samples = _as_array(audio)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise InputError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: give one channel of "
            "16 kHz samples, shape (n,), as floats in [-1, 1] (for int16: samples / 32768), or "
            "give (sample rate, array)"
        )
    return samples, SAMPLE_RATE


def _as_array(audio: Any) -> np.ndarray:
    """Convert samples to an array of NumPy."""
    try:
        return np.asarray(audio.detach() if hasattr(audio, "detach") else audio)
    except Exception as error:  # of the library whose array or tensor it is
        raise InputError(
            f"audio of type {type(audio).__name__} is no array ({reason_of(error)}): give floats "
            "in [-1, 1] or integers, of shape (n,), (n, channels) or (channels, n)"
        ) from error


def _first_channel(array: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Return the first channel of samples that have a sample rate, as floats."""
    samples = _as_array(array)
    rate = rate.item() if getattr(rate, "ndim", None) == 0 else rate
    if isinstance(rate, Real):
        check_rate(rate, "audio array")
    if not isinstance(rate, Real) or rate != int(rate):
        raise InputError(f"audio array with a sample rate of {rate!r}: give a whole number of Hz")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise InputError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: give floats in "
            "[-1, 1] or integers, of shape (n,), (n, channels) or (channels, n)"
        )
    if samples.dtype.kind != "f" and samples.dtype.itemsize == 8:
        raise InputError(
            f"audio array of type {samples.dtype}, whose full scale is unknown: give floats in "
            "[-1, 1], or the integers in their own type, such as int16"
        )
    if not samples.size:
        samples = samples.reshape(-1)
    if samples.ndim == 2:
        samples = samples[:, 0] if samples.shape[0] >= samples.shape[1] else samples[0]
    if samples.dtype.kind != "f":
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = samples / scale - (samples.dtype.kind == "u")
    return samples, int(rate)


def check_rate(rate: Real, name: str) -> None:
    """Raise `InputError` if a sample rate is NaN, or outside `SAMPLE_RATE_RANGE`."""
    low, high = SAMPLE_RATE_RANGE
    if not low <= rate <= high:
        raise InputError(
            f"{name}: has a sample rate of {rate}, accepted are {low} to {high}; repair or skip it"
        )


def check_level(samples: np.ndarray, name: str) -> np.ndarray:
    """Return samples; raise `InputError` if one is NaN, infinite, or far outside [-1, 1]."""
    peak = max(-samples.min(initial=0), samples.max(initial=0))
    if not np.isfinite(peak):
        raise InputError(f"{name}: contains NaN or infinite samples; repair or skip it")
    if peak > MAX_PEAK:
        raise InputError(
            f"{name}: has samples of up to {peak:.6g}, and full scale is 1; divide them by the "
            "full scale that they have (16-bit integers: 32768)"
        )
    return samples


def check_max_seconds(max_seconds: float | None) -> None:
    """Raise `InputError` if `max_seconds` is less than one window (25 ms) or more than a day."""
    if max_seconds is not None and not WINDOW / SAMPLE_RATE <= max_seconds <= MAX_CLIP_SECONDS:
        raise InputError(
            f"max_seconds is {max_seconds}: give {WINDOW / SAMPLE_RATE} (one window) to "
            f"{MAX_CLIP_SECONDS} (a day)"
        )


def check_samples(samples: np.ndarray, name: str) -> Float32[np.ndarray, "n"]:
    """Return 16 kHz `samples`; raise `InputError` if they are too short or unusable."""
    if len(samples) < WINDOW:
        raise InputError(
            f"{name}: {len(samples)} samples at 16 kHz are less than one window of {WINDOW} "
            "(25 ms); give a longer recording"
        )
    return check_level(samples, name)
