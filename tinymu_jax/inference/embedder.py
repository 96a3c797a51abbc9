"""The class `Embedder`, which `tinymu_jax.load()` returns for a MATPAC checkpoint."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.load import Audio, as_clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.chunked_encoding import Chunking, encode_clips
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.matpac import Matpac


class Embedder:
    """A MATPAC encoder that embeds recordings, and tags them if it has a classification head."""

    def __init__(
        self,
        config: MatpacConfig,
        params: Any,
        labels: Sequence[str] | None = None,
        max_seconds: float | None = None,
        keep_damaged: bool = False,
    ) -> None:
        """Build an embedder from an encoder.

        Args:
            config: config of the encoder.
            params: encoder parameters in the layout of `tinymu_jax.inference.param_layout`.
            labels: names of the head's classes, in the order of its outputs; None: "class 0", ....
            max_seconds: length in seconds to which recordings are cut; None: no limit.
            keep_damaged: whether to use what can be read of damaged recordings.
        """
        self.config, self.params, self.labels = config, params, labels
        self.max_seconds, self.keep_damaged = max_seconds, keep_damaged

    def embed(
        self, audio: Audio, chunking: Chunking = "precise", all_layers: bool = False
    ) -> Float32[np.ndarray, "... A E"]:
        """Return a recording's A embeddings, one per 160 ms, of the encoder's output width E.

        Args:
            audio: the recording: a path, samples, ...; see `Audio`.
            chunking: how a long recording is cut into chunks; see `chunked_encoding.Chunking`.
            all_layers: return the outputs of all encoder blocks, (L, A, E), instead of the last.

        Raises:
            InputError: the recording cannot be read, or is too short.
        """
        clip = as_clip(audio, self.max_seconds, self.keep_damaged)
        vectors = encode_clips(self.params, [clip.samples], self.config, chunking, all_layers)[0]
        return np.asarray(vectors if all_layers else vectors[0])

    def tag(self, audio: Audio, top: int | None = 5) -> list[tuple[str, float]]:
        """Return a recording's most probable classes as (name, probability) pairs, best first.

        Args:
            audio: the recording: a path, samples, ...; see `Audio`.
            top: number of classes to return; None: all.

        Raises:
            InputError: the encoder has no head; the recording cannot be read, or is too short.
        """
        return self.tag_all([as_clip(audio, self.max_seconds, self.keep_damaged).samples], top)[0]

    def tag_all(
        self, clips: Sequence[Float32[np.ndarray, "_"]], top: int | None = 5
    ) -> list[list[tuple[str, float]]]:
        """Return the most probable classes of each clip (16 kHz samples), like `tag`.

        Raises:
            InputError: the encoder has no head.
        """
        if self.config.head is None:
            raise InputError(
                "this encoder has no head to tag with; load one with its head, or give probe="
            )
        results = []
        for vectors in encode_clips(self.params, clips, self.config):
            probabilities = np.asarray(
                Matpac(self.config).apply({"params": self.params}, vectors, method="classify")[0]
            )
            names = self.labels or [f"class {i}" for i in range(len(probabilities))]
            order = np.argsort(-probabilities, kind="stable")[:top]
            results.append([(names[i], float(probabilities[i])) for i in order])
        return results
