"""From clips of any length to audio vectors, in few compiled shapes.

A clip is cut into chunks as published; chunks of all clips are computed together, sorted by their
length, each padded to the next of a few lengths and masked, so that a clip's vectors depend
neither on its padding nor on what else is in the batch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from tinymu_jax import audio
from tinymu_jax.config import MatpacConfig, TinyMUConfig
from tinymu_jax.models.matpac import Matpac, chunk_samples
from tinymu_jax.models.tinymu import TinyMU

Chunking = Literal["precise", "fast", "fast-interleaved"]
"""`precise`: the last chunk is as short as the clip; the published results. `fast`: the last
chunk is filled with zeros. `fast-interleaved`: the order of the published fast mode,
row = time * chunks + chunk."""

COLUMN_STEPS = (1, 2, 4, 8, 16, 24, 32, 48)
"""Lengths, in columns of 160 ms, that chunks are padded to; full chunks are a length too."""
MAX_CHUNKS = 8
"""Chunks computed in one call."""


class Chunk(NamedTuple):
    """One piece of one clip."""

    clip: int
    samples: Float32[np.ndarray, "n"]
    num_frames: int
    """Frames of log-mel; those behind are zeros."""
    num_columns: int
    """Columns of patches that are attended to."""


def cut(samples: Float32[np.ndarray, "n"], clip: int, config: MatpacConfig, fast: bool) -> list:
    """Cuts a clip's samples so that each chunk has at most `config.num_frames` frames."""
    frames, unit = audio.num_frames(len(samples)), config.num_frames
    chunks = []
    for first in range(0, frames, unit):
        here = min(unit, frames - first)
        start = first * audio.HOP
        piece = samples[start : start + (here - 1) * audio.HOP + audio.WINDOW]
        columns = config.columns if fast else -(-here // config.patch_size)
        chunks.append(Chunk(clip, piece, here, columns))
    return chunks


@partial(jax.jit, static_argnames=("config", "all_layers"))
def encode_chunks(
    params: Any,
    samples: Float[Array, "C n"],
    num_frames: Int[Array, "C"],
    num_columns: Int[Array, "C"] | None,
    *,
    config: MatpacConfig,
    all_layers: bool = False,
) -> Float[Array, "L C A E"]:
    """Runs front end and encoder over chunks of one padded length."""
    return Matpac(config).apply(
        {"params": params}, samples, num_frames, num_columns, all_layers, method="listen"
    )


def listen(
    params: Any,
    clips: Sequence[Float32[np.ndarray, "n"]],
    config: MatpacConfig,
    chunking: Chunking = "precise",
    all_layers: bool = False,
) -> list[Float[Array, "L A E"]]:
    """Returns each clip's vectors, 160 ms a row; all layers, or the last alone (L = 1).

    Args:
        params: of the encoder.
        clips: 16 kHz samples, each at least one window long.
        config: of the encoder.
        chunking: see `Chunking`.
        all_layers: return every block's output.
    """
    fast = chunking != "precise"
    chunks = [c for i, samples in enumerate(clips) for c in cut(samples, i, config, fast)]
    vectors: list[Any] = [None] * len(chunks)
    for width, members in _by_length(chunks, config).items():
        for start in range(0, len(members), MAX_CHUNKS):
            group = members[start : start + MAX_CHUNKS]
            out = _encode_group([chunks[i] for i in group], width, params, config, all_layers)
            for row, i in enumerate(group):
                vectors[i] = out[:, row, : chunks[i].num_columns]
    joined = []
    for clip in range(len(clips)):
        own = [v for v, c in zip(vectors, chunks, strict=True) if c.clip == clip]
        whole = own[0] if len(own) == 1 else jnp.concatenate(own, axis=1)
        if chunking == "fast-interleaved":
            layers, rows, width = whole.shape
            whole = whole.reshape(layers, len(own), rows // len(own), width).swapaxes(1, 2)
            whole = whole.reshape(layers, rows, width)
        joined.append(whole)
    return joined


def _by_length(chunks: list[Chunk], config: MatpacConfig) -> dict[int, list[int]]:
    """Sorts chunks, by index, under the padded length that holds them."""
    steps = [step for step in COLUMN_STEPS if step < config.columns] + [config.columns]
    sorted_chunks: dict[int, list[int]] = {}
    for i, chunk in enumerate(chunks):
        width = next(step for step in steps if step >= chunk.num_columns)
        sorted_chunks.setdefault(width, []).append(i)
    return sorted_chunks


def _encode_group(
    group: list[Chunk], width: int, params: Any, config: MatpacConfig, all_layers: bool
) -> Float[Array, "L C A E"]:
    """Pads chunks to one length and their number to a power of two, and encodes them."""
    count = 1 << (len(group) - 1).bit_length()
    samples = np.zeros((count, chunk_samples(width, config.patch_size)), np.float32)
    num_frames, num_columns = np.ones((2, count), np.int32)
    for row, chunk in enumerate(group):
        samples[row, : len(chunk.samples)] = chunk.samples
        num_frames[row], num_columns[row] = chunk.num_frames, chunk.num_columns
    # Full chunks need no mask: every column is attended to.
    mask = None if width == config.columns else num_columns
    return encode_chunks(params, samples, num_frames, mask, config=config, all_layers=all_layers)


@partial(jax.jit, static_argnames=("config",))
def _project(
    params: Any, vectors: Float[Array, "B A E"], num_vectors: Int[Array, "B"], config: TinyMUConfig
) -> Float[Array, "B A D"]:
    return TinyMU(config).apply({"params": params}, vectors, num_vectors, method="project")[0]


def project(
    params: Any, vectors: Float[Array, "A E"], config: TinyMUConfig
) -> Float32[np.ndarray, "A D"]:
    """Turns one clip's vectors into what the decoder reads in their place."""
    real = vectors.shape[0]
    slots = -(-real // 16) * 16
    padded = jnp.pad(vectors, ((0, slots - real), (0, 0)))[None]
    projected = _project(params, padded, np.array([real], np.int32), config)
    return np.asarray(projected[0, : config.projector.num_outputs(real // config.pooling)])
