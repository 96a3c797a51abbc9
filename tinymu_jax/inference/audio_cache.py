"""Encodes recordings to audio vectors, the decoder's input, and caches them."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from tinymu_jax.audio.files import find_file
from tinymu_jax.audio.load import Audio, Clip, as_clip
from tinymu_jax.audio.source import is_stream
from tinymu_jax.errors import InputError
from tinymu_jax.inference.chunked_encoding import encode_clips, project
from tinymu_jax.models.config import TinyMUConfig

CACHE_SIZE = 16
"""Maximum number of recordings whose audio vectors are cached."""


class EncodedAudio(NamedTuple):
    """A recording's projected audio vectors, which the decoder takes as input."""

    vectors: Float[Array, "A D"]
    """The audio vectors on the device, padded with zero vectors to a multiple of 16."""
    num_vectors: int
    clip: Clip


class AudioCache:
    """Encodes recordings to audio vectors (the decoder's input), and caches the latest."""

    def __init__(
        self,
        config: TinyMUConfig,
        params: Any,
        mesh: Mesh | None = None,
        keep_damaged: bool = False,
    ) -> None:
        """Create an empty cache for a model; `params` must already be replicated on the mesh.

        `keep_damaged` is whether to use what can be read of damaged recordings.
        """
        self.config, self.params, self.mesh = config, params, mesh
        self.keep_damaged = keep_damaged
        self._cached: dict[Any, EncodedAudio] = {}

    def clear(self) -> None:
        """Empty the cache."""
        self._cached.clear()

    def encode_one(self, audio: Audio) -> EncodedAudio:
        """Return the audio vectors of a recording, from the cache if possible.

        Raises:
            InputError: the recording cannot be read, or is too short.
        """
        encoded = self.encode([audio])[0]
        if isinstance(encoded, InputError):
            raise encoded
        return encoded

    def encode(self, audios: Iterable[Audio | EncodedAudio]) -> list[EncodedAudio | InputError]:
        """Return each recording's audio vectors, or the error if the recording cannot be used.

        What is encoded already is returned as it is.
        """
        audios = list(audios)
        keys = [_cache_key(audio) for audio in audios]
        distinct = dict(zip(keys, audios, strict=True))
        clips: dict[Any, Clip] = {}
        results: dict[Any, EncodedAudio | InputError] = {}
        for key, audio in distinct.items():
            if isinstance(audio, EncodedAudio) or key in self._cached:
                results[key] = audio if isinstance(audio, EncodedAudio) else self._cached[key]
                continue
            try:
                clips[key] = as_clip(audio, self.config.max_seconds, self.keep_damaged)
            except InputError as error:
                results[key] = error
        for key, result in zip(clips, self.encode_clips(list(clips.values())), strict=True):
            if isinstance(result, InputError) and isinstance(distinct[key], str | Path):
                result = InputError(f"{distinct[key]}: {result}")
            results[key] = result
        encoded = {
            key: result
            for key, result in results.items()
            if isinstance(result, EncodedAudio) and not isinstance(key, _Once)
        }
        self._cached = dict(list((self._cached | encoded).items())[-CACHE_SIZE:])
        return [results[key] for key in keys]

    def encode_clips(self, clips: Sequence[Clip]) -> list[EncodedAudio | InputError]:
        """Return each clip's audio vectors, or the error if it is too short; nothing is cached."""
        samples = [clip.samples for clip in clips]
        vectors = encode_clips(self.params["encoder"], samples, self.config.encoder, mesh=self.mesh)
        projector = {"projector": self.params["projector"]}
        results: list[EncodedAudio | InputError] = []
        for clip, layers in zip(clips, vectors, strict=True):
            try:
                results.append(EncodedAudio(*project(projector, layers[0], self.config), clip))
            except InputError as error:
                results.append(error)
        return results


def stack_audio(
    encoded: Sequence[EncodedAudio], rows: int, min_length: int = 0
) -> Float[Array, "B A D"]:
    """Stack recordings' audio vectors (width D) on the device, padded to at least `min_length`.

    The result has B = `rows` rows; if there are fewer recordings, the last one is repeated.
    """
    length = max(min_length, *(len(audio.vectors) for audio in encoded))
    padded = [
        audio.vectors
        if len(audio.vectors) == length
        else jnp.pad(audio.vectors, ((0, length - len(audio.vectors)), (0, 0)))
        for audio in encoded
    ]
    return _stack([*padded, *[padded[-1]] * (rows - len(padded))])


_stack = jax.jit(lambda vectors: jnp.stack(vectors))


class _Once(NamedTuple):
    """Key of a recording that is never cached: a pipe, or samples with their sample rate."""

    name: str | int


def _cache_key(audio: Audio) -> Any:
    """Return a recording's cache key: a file's path, time and size, or a hash of the samples."""
    if isinstance(audio, str | Path) and is_stream(audio):
        return _Once(str(audio))
    if not isinstance(audio, str | Path | Clip | np.ndarray):
        return _Once(id(audio))
    if isinstance(audio, Clip):
        audio = audio.samples
    if isinstance(audio, str | Path):
        try:
            status = os.stat(find_file(audio))
        except (OSError, ValueError):
            return str(audio)
        return str(audio), status.st_mtime_ns, status.st_size
    array = np.asarray(audio)
    return array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest()
