"""Runs the encoder on clips of any length with few compiled shapes.

A clip is cut into chunks as published, and a chunk into columns of 160 ms. Each chunk becomes a row
(a short last chunk shares a row); rows are padded to a few lengths and batched over all clips. A
chunk attends only to itself, so that padding and other clips do not change a clip's embeddings.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from tinymu_jax.audio import log_mel
from tinymu_jax.audio.log_mel import HOP, column_samples
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import shard_local_batch
from tinymu_jax.models.config import MatpacConfig, TinyMUConfig
from tinymu_jax.models.matpac import Matpac
from tinymu_jax.models.tinymu import TinyMU
from tinymu_jax.utils.shapes import round_up

Chunking = Literal["precise", "fast", "fast-interleaved"]
"""How a clip is cut into chunks. `precise`: the last chunk ends with the clip, as in the published
results. `fast`: the last chunk is padded with zeros. `fast-interleaved`: `fast`, with embeddings in
the order of the published fast mode, which puts column t of chunk c at t * chunks + c."""
ROW_LENGTHS = (1, 2, 4, 8, 16, 24, 32, 48)
"""Rows shorter than a chunk are padded to the next of these numbers of columns, or to a chunk.
Longer rows (a chunk with or without a short tail) are not padded."""
MERGE_SHORT_TAIL = 2
"""Maximum number of columns of a short tail: a last chunk that shares a row with the chunk before,
so that the weights are read once for both. 10 s are a chunk of 62 columns and a tail of 1."""
MAX_ROWS = 8
"""Maximum number of rows per call of the encoder. On a CPU each call encodes one row, which fills
all cores; several rows would not fit into the CPU's cache."""


class Columns(NamedTuple):
    """A clip's waveform, cut into columns of 160 ms that overlap as log-mel windows do.

    A is the number of columns.
    """

    samples: Float32[np.ndarray, "A n"]
    num_frames: Int[np.ndarray, "A"]
    """Number of log-mel frames of each column; the column's further frames are padding."""


class _Row(NamedTuple):
    """A row of the encoder's batch: columns `start` to `stop - 1` of a clip."""

    clip: int
    start: int
    stop: int


def chunk_layout(
    column: Int[np.ndarray, "*rows A"],
    num_columns: Int[Array | np.ndarray, "..."],
    config: MatpacConfig,
) -> tuple[Int[np.ndarray, "*rows A"], Int[Array | np.ndarray, "..."]]:
    """Assigns the columns of a row to chunks; inference and training share this definition.

    Args:
        column: index of each column in its clip; a row starts where a chunk starts.
        num_columns: number of columns of each clip, or the end of each row; columns with this index
            or a larger one are padding. Broadcasts with `column`.
        config: config of the encoder; a chunk has `config.columns` columns.

    Returns:
        The index of each column in its chunk, and the index of the chunk in its row (-1: padding).
    """
    chunk = column // config.columns - column[..., :1] // config.columns
    real = column < num_columns
    where = jnp.where if isinstance(real, jax.Array) else np.where
    return column % config.columns, where(real, chunk, -1)


def to_patches(
    samples: Float32[np.ndarray, "n"], config: MatpacConfig, fast: bool = False
) -> Columns:
    """Cuts the samples of a clip into columns, padded with zeros to whole chunks if `fast`."""
    patch, frames = config.patch_size, log_mel.num_frames(len(samples))
    count = -(-frames // patch)
    if fast:
        count = round_up(count, config.columns)
    step, length = patch * HOP, column_samples(patch)
    padded = np.zeros((count - 1) * step + length, np.float32)
    used = samples[: len(padded)]
    padded[: len(used)] = used
    return Columns(
        np.lib.stride_tricks.sliding_window_view(padded, length)[::step],
        np.clip(frames - patch * np.arange(count), 0, patch).astype(np.int32),
    )


@partial(jax.jit, static_argnames=("config", "num_chunks", "all_layers"))
def encode_rows(
    params: Any,
    samples: Float[Array | np.ndarray, "B A n"],
    num_frames: Int[Array | np.ndarray, "B A"],
    place: Int[Array | np.ndarray, "B A"],
    chunk: Int[Array | np.ndarray, "B A"],
    *,
    config: MatpacConfig,
    num_chunks: int,
    all_layers: bool = False,
) -> Float[Array, "L B A E"]:
    """Computes the encoder's embeddings of B rows of A columns from the columns' samples.

    `place` is each column's index in its chunk, and `chunk` is the chunk's index in the row (see
    `chunk_layout`); a row has up to `num_chunks` chunks. Returns the output of the last encoder
    block (L = 1), or with `all_layers` the outputs of all L blocks.
    """
    return Matpac(config).apply(
        {"params": params},
        samples,
        num_frames,
        place,
        chunk,
        num_chunks=num_chunks,
        all_layers=all_layers,
        method="encode_waveform",
    )


def encode_clips(
    params: Any,
    clips: Sequence[Float32[np.ndarray, "_"]],
    config: MatpacConfig,
    chunking: Chunking = "precise",
    all_layers: bool = False,
    mesh: Mesh | None = None,
) -> list[Float[Array, "L _ E"]]:
    """Returns the encoder's embeddings of each clip, one per 160 ms.

    Args:
        params: parameters of the encoder, replicated on the mesh.
        clips: 16 kHz samples of each clip, at least one log-mel window long.
        config: config of the encoder.
        chunking: how clips are cut into chunks, see `Chunking`.
        all_layers: return the output of every encoder block (L blocks) instead of the last (L = 1).
        mesh: mesh of this process's devices, which share the rows; None: the default device.

    Raises:
        InputError: `chunking` is unknown.
    """
    if chunking not in get_args(Chunking):
        raise InputError(f"chunking {chunking!r}: use one of {', '.join(get_args(Chunking))}")
    columns = [to_patches(samples, config, fast=chunking != "precise") for samples in clips]
    rows = [
        _Row(clip, *span)
        for clip, cut in enumerate(columns)
        for span in _row_spans(len(cut.num_frames), config)
    ]
    by_length: dict[int, list[_Row]] = {}
    for row in rows:
        by_length.setdefault(_padded_length(row.stop - row.start, config), []).append(row)
    vectors: dict[_Row, Any] = {}
    batch_size = 1 if mesh is None and jax.default_backend() == "cpu" else MAX_ROWS
    for length, members in by_length.items():
        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            encoded = encode_rows(
                params,
                *shard_local_batch(_batch_rows(batch, columns, length, config), mesh),
                config=config,
                num_chunks=1 if length <= config.columns else 2,
                all_layers=all_layers,
            )
            for i, row in enumerate(batch):
                vectors[row] = encoded[:, i, : row.stop - row.start]
    results = []
    for clip in range(len(clips)):
        parts = [vectors[row] for row in rows if row.clip == clip]
        joined = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        if chunking == "fast-interleaved":
            layers, count, width = joined.shape
            joined = joined.reshape(layers, -1, config.columns, width).swapaxes(1, 2)
            joined = joined.reshape(layers, count, width)
        results.append(joined)
    return results


def _row_spans(count: int, config: MatpacConfig) -> list[tuple[int, int]]:
    """Splits a clip of `count` columns into rows; returns the (start, stop) columns of each row.

    A row holds one chunk; a short tail shares the row of the chunk before.
    """
    edges = [*range(0, count, config.columns), count]
    if len(edges) > 2 and edges[-1] - edges[-2] <= MERGE_SHORT_TAIL:
        del edges[-2]
    return list(itertools.pairwise(edges))


def _padded_length(length: int, config: MatpacConfig) -> int:
    lengths = [step for step in ROW_LENGTHS if step < config.columns]
    lengths += [config.columns + extra for extra in range(MERGE_SHORT_TAIL + 1)]
    return next(padded for padded in lengths if padded >= length)


def _batch_rows(
    rows: Sequence[_Row], columns: Sequence[Columns], length: int, config: MatpacConfig
) -> tuple[np.ndarray, ...]:
    """Stacks rows as arrays for `encode_rows`, padded to `length` columns.

    The number of rows is padded to a power of 2.
    """
    count = 1 << (len(rows) - 1).bit_length()
    samples = np.zeros((count, length, column_samples(config.patch_size)), np.float32)
    num_frames, start, stop = np.zeros((count, length), np.int32), *np.zeros((2, count, 1), int)
    for i, (clip, first, end) in enumerate(rows):
        samples[i, : end - first] = columns[clip].samples[first:end]
        num_frames[i, : end - first] = columns[clip].num_frames[first:end]
        start[i], stop[i] = first, end
    place, chunk = chunk_layout(start + np.arange(length), stop, config)
    return samples, num_frames, place.astype(np.int32), chunk.astype(np.int32)


@partial(jax.jit, static_argnames=("config", "length"))
def _project(
    params: Any,
    vectors: Float[Array, "B A E"],
    num_vectors: Int[Array, "B"],
    config: TinyMUConfig,
    length: int,
) -> Float[Array, "P D"]:
    projected, count = TinyMU(config).apply(
        {"params": params}, vectors, num_vectors, method="project"
    )
    projected = jnp.where(jnp.arange(projected.shape[1])[:, None] < count, projected, 0)[0]
    return jnp.pad(projected, ((0, max(length - len(projected), 0)), (0, 0)))[:length]


def project(
    params: Any, vectors: Float[Array, "A E"], config: TinyMUConfig
) -> tuple[Float[Array, "P D"], int]:
    """Pools one clip's A embeddings and projects them to P audio vectors of the decoder's width D.

    Returns:
        The audio vectors, padded with zero vectors to a multiple of 16, and the number of audio
        vectors without padding.

    Raises:
        InputError: the clip has fewer embeddings than the model pools into one audio vector.
    """
    count = vectors.shape[0]
    if count < config.pooling:
        raise InputError(
            f"the recording gives {count} vectors, fewer than the {config.pooling} that this model "
            "pools into one; give a longer recording"
        )
    padded = jnp.pad(vectors, ((0, round_up(count, 16) - count), (0, 0)))[None]
    num_outputs = config.projector.num_outputs(count // config.pooling)
    num_vectors = np.array([count], np.int32)
    return _project(params, padded, num_vectors, config, round_up(num_outputs, 16)), num_outputs
