"""Run the encoder on a batch's stored features, inside the compiled training step."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tinymu_jax.audio import log_mel as log_mel_module
from tinymu_jax.audio.log_mel import HOP, NUM_MELS, WINDOW
from tinymu_jax.data.config import FeatureKind
from tinymu_jax.inference.chunked_encoding import MERGE_SHORT_TAIL, chunk_layout
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.matpac import Matpac


def encode_features(
    params: Any, features: Array, lengths: Int[Array, "C"], store: FeatureKind, config: MatpacConfig
) -> tuple[Float[Array, "C A E"], Int[Array, "C"]]:
    """Return the encoder's embeddings of C clips, and the number of embeddings of each clip.

    `features` (C, ...) are the clips' stored features, padded to one length; `store` tells their
    kind. `lengths` counts each clip's samples, frames or embeddings without padding. The encoder
    sees chunks of `config.num_frames` frames, as published. The returned embeddings have width E
    and are padded to A per clip. Stored embeddings are returned unchanged, and `params` unused.
    """
    if store == "embeddings":
        return features.astype(jnp.float32), lengths
    if store == "waveform":
        log_mel = log_mel_module.log_mel(features.astype(jnp.float32) / 32768)
        frames = jnp.where(lengths > 0, 1 + (lengths - WINDOW) // HOP, 0)
    else:
        log_mel, frames = features.astype(jnp.float32), lengths
    clips, size = log_mel.shape[:2]
    patch, unit = config.patch_size, config.columns
    count = -(-size // patch)
    # A clip of at most one chunk and a short tail is one row; a longer clip has a row per chunk.
    rows, length = (1, count) if count <= unit + MERGE_SHORT_TAIL else (-(-count // unit), unit)
    real = jnp.arange(size) < frames[:, None]
    log_mel = jnp.where(real[..., None], log_mel, 0.0)
    log_mel = jnp.pad(log_mel, ((0, 0), (0, rows * length * patch - size), (0, 0)))
    vectors = -(-frames // patch)
    column = np.arange(rows * length, dtype=np.int32).reshape(rows, length)
    place, chunk = chunk_layout(column, vectors[:, None, None], config)
    shape = (clips * rows, length)
    encoded = Matpac(config).apply(
        {"params": params},
        log_mel.reshape(*shape, patch, NUM_MELS),
        jnp.broadcast_to(place, chunk.shape).reshape(shape),
        chunk.reshape(shape),
        num_chunks=1 if length <= unit else 2,
    )[0]
    return encoded.reshape(clips, rows * length, -1), vectors
