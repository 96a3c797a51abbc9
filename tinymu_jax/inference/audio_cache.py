"""What was heard of recordings, as the decoder reads it; the last ones are remembered."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from tinymu_jax.audio.load import Clip, as_clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.chunked_encoding import encode_clips, project
from tinymu_jax.inference.embedder import Audio
from tinymu_jax.models.config import TinyMUConfig

CACHE_SIZE = 16
"""Recordings whose vectors are kept: a second question on one does not listen again."""


class EncodedAudio(NamedTuple):
    """A clip as the decoder reads it."""

    vectors: Float32[np.ndarray, "A D"]
    clip: Clip


class AudioCache:
    """Encoder and projector of a TinyMU, and what they gave for the last recordings."""

    def __init__(self, config: TinyMUConfig, params: Any, mesh: Mesh | None = None) -> None:
        """Takes the parameters of the whole model; on a mesh, they lie on all of its devices."""
        self.config, self.params, self.mesh = config, params, mesh
        self._remembered: dict[Any, EncodedAudio] = {}

    def clear(self) -> None:
        """Listens anew from here on."""
        self._remembered.clear()

    def encode_one(self, audio: Audio) -> EncodedAudio:
        """Listens to one recording.

        Raises:
            InputError: as `tinymu_jax.audio.load.as_clip`.
        """
        heard = self.encode([audio])[0]
        if isinstance(heard, InputError):
            raise heard
        return heard

    def encode(self, audios: Iterable[Audio]) -> list[EncodedAudio | InputError]:
        """Listens to recordings, to each only once; faults stand in their places."""
        audios, found, kept = list(audios), {}, self._remembered
        order = [_identity(audio) for audio in audios]
        for key, audio in zip(order, audios, strict=True):
            if key in found or key in kept:
                continue
            try:
                found[key] = as_clip(audio, self.config.max_seconds)
            except InputError as error:
                found[key] = error
        clips = {key: clip for key, clip in found.items() if isinstance(clip, Clip)}
        samples = [clip.samples for clip in clips.values()]
        vectors = encode_clips(self.params["encoder"], samples, self.config.encoder, mesh=self.mesh)
        fresh: dict[Any, EncodedAudio] = {}
        for (key, clip), layers in zip(clips.items(), vectors, strict=True):
            try:
                projected = project({"projector": self.params["projector"]}, layers[0], self.config)
                fresh[key] = EncodedAudio(projected, clip)
            except InputError as error:
                audio = audios[order.index(key)]
                name = f"{audio}: " if isinstance(audio, str | Path) else ""
                found[key] = InputError(f"{name}{error}")
        known = kept | fresh
        faults = {key: e for key, e in found.items() if isinstance(e, InputError)}
        self._remembered = dict(list(known.items())[-CACHE_SIZE:])
        return [faults[key] if key in faults else known[key] for key in order]


def _identity(audio: Audio) -> Any:
    """Returns what tells one recording from another, also after a file has changed."""
    if isinstance(audio, Clip):
        audio = audio.samples
    if isinstance(audio, str | Path):
        try:
            status = os.stat(audio)
        except (OSError, ValueError):
            return str(audio)
        return str(audio), status.st_mtime_ns, status.st_size
    array = np.asarray(audio)
    return array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest()
