"""Stored features to the encoder's vectors, inside the training step."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.audio import log_mel as log_mel_module
from tinymu_jax.audio.log_mel import HOP, NUM_MELS, WINDOW
from tinymu_jax.data.config import FeatureKind
from tinymu_jax.inference.chunked_encoding import MERGE_SHORT_TAIL
from tinymu_jax.models.config import MatpacConfig
from tinymu_jax.models.matpac import Matpac


def encode_features(
    params: Any,
    features: Array,
    lengths: Int[Array, "C"],
    store: FeatureKind,
    config: MatpacConfig,
) -> tuple[Float[Array, "C A E"], Int[Array, "C"]]:
    """Returns the encoder's vectors of clips as `precise` chunking gives them, and their number.

    Args:
        params: of the encoder; unused for embeddings.
        features: (C, ...) padded, as stored.
        lengths: samples, frames or vectors of each clip.
        store: what the features are.
        config: of the encoder.
    """
    if store == "embeddings":
        return features.astype(jnp.float32), lengths
    if store == "waveform":
        log_mel = log_mel_module.log_mel(features.astype(jnp.float32) / 32768)
        frames = jnp.where(lengths > 0, 1 + (lengths - WINDOW) // HOP, 0)
    else:
        log_mel, frames = features.astype(jnp.float32), lengths
    clips, size = log_mel.shape[:2]
    side, unit = config.patch_size, config.columns
    count = -(-size // side)
    # One row of a full chunk and what rides with it, or as many full chunks as are needed.
    rows, row = (1, count) if count <= unit + MERGE_SHORT_TAIL else (-(-count // unit), unit)
    real = jnp.arange(size) < frames[:, None]
    log_mel = jnp.where(real[..., None], log_mel, 0.0)
    log_mel = jnp.pad(log_mel, ((0, 0), (0, rows * row * side - size), (0, 0)))
    number = jnp.arange(rows * row)
    vectors = -(-frames // side)
    own = number // unit if rows == 1 else 0
    chunk = jnp.where(number < vectors[:, None], own, -1)
    place = jnp.broadcast_to(number % unit, chunk.shape)
    shape = (clips * rows, row)
    encoded = Matpac(config).apply(
        {"params": params},
        log_mel.reshape(*shape, side, NUM_MELS),
        place.reshape(shape),
        chunk.reshape(shape),
        num_chunks=1 if row <= unit else 2,
    )[0]
    return encoded.reshape(clips, rows * row, -1), vectors
