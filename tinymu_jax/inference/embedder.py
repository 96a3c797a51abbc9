"""What `tinymu_jax.load()` hands out for a MATPAC checkpoint: recordings to vectors and tags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.load import Clip, as_clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.chunked_encoding import Chunking, encode_clips
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.matpac import Matpac

Audio = str | Path | np.ndarray | Clip
"""A path, 16 kHz samples of one channel, or a clip that `audio.read_clip` read."""


class Embedder:
    """A MATPAC encoder alone: embeds recordings, and tags them if it has a head."""

    def __init__(
        self,
        config: MatpacConfig,
        params: Any,
        labels: Sequence[str] | None = None,
        max_seconds: float | None = None,
    ) -> None:
        """Takes unrolled parameters; `labels` name the head's outputs in their order."""
        self.config, self.params, self.labels = config, params, labels
        self.max_seconds = max_seconds

    def embed(
        self, audio: Audio, chunking: Chunking = "precise", all_layers: bool = False
    ) -> Float32[np.ndarray, "... A E"]:
        """Returns the vectors of one recording, 160 ms a row: (A, 5 * width).

        Args:
            audio: a path, or 16 kHz samples.
            chunking: see `tinymu_jax.inference.chunked_encoding.Chunking`.
            all_layers: return every block's output, (L, A, 5 * width).

        Raises:
            InputError: as `tinymu_jax.audio.load.as_clip`.
        """
        clip = as_clip(audio, self.max_seconds)
        vectors = encode_clips(self.params, [clip.samples], self.config, chunking, all_layers)[0]
        return np.asarray(vectors if all_layers else vectors[0])

    def tag(self, audio: Audio, top: int | None = 5) -> list[tuple[str, float]]:
        """Returns the most probable classes of one recording with their probabilities.

        Raises:
            InputError: the checkpoint has no head; or as `embed`.
        """
        return self.tag_all([as_clip(audio, self.max_seconds).samples], top)[0]

    def tag_all(
        self, clips: Sequence[Float32[np.ndarray, "_"]], top: int | None = 5
    ) -> list[list[tuple[str, float]]]:
        """Returns the same of several clips of 16 kHz samples, heard together.

        Raises:
            InputError: the checkpoint has no head.
        """
        if self.config.head is None:
            raise InputError(
                "this encoder has no head to tag with; load one with its head, or give probe="
            )
        found = []
        for vectors in encode_clips(self.params, clips, self.config):
            shares = Matpac(self.config).apply({"params": self.params}, vectors, method="classify")
            order = np.argsort(-np.asarray(shares[0]), kind="stable")[:top]
            names = self.labels or [f"class {i}" for i in range(shares.shape[1])]
            found.append([(names[i], float(shares[0, i])) for i in order])
        return found
