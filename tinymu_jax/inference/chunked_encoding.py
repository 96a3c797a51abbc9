"""Runs the encoder on clips of any length with few compiled shapes.

A column is 160 ms of a clip. A chunk is as many columns as the published encoder takes at once
(62). Each chunk becomes a row of the encoder's batch, padded to one of a few lengths; a short last
chunk shares a row. Chunks attend neither to each other nor to padding.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
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
"""How a clip is cut into chunks. `precise`: the last chunk is shorter, as in the published results.
`fast`: the last chunk is padded with zeros. `fast-interleaved`: like `fast`, but column t of chunk
c is at index t * (number of chunks) + c, as in the published fast mode."""
ROW_LENGTHS = (1, 2, 4, 8, 16, 24, 32, 48)
"""Lengths in columns to which short rows are padded; longer rows are padded to a chunk."""
MERGE_SHORT_TAIL = 2
"""A last chunk of at most this many columns shares a row with the chunk before. For example, a clip
of 10 s has chunks of 62 and 1 columns, which share one row."""
MAX_ROWS = 8
"""Maximum number of rows per call of the encoder, except on a CPU, where a call takes one row."""


class Columns(NamedTuple):
    """A clip's waveform as A overlapping columns of n samples; a column starts every 160 ms."""

    samples: Float32[np.ndarray, "A n"]
    num_frames: Int[np.ndarray, "A"]
    """Number of log-mel frames (10 ms) in each column, without padding."""


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
    """Return the index of each column in its chunk, and the index of that chunk in the row.

    A column is 160 ms, a chunk is `config.columns` columns, and a row is a sequence of chunks.
    `column` has the columns' indices in the clip. Columns from index `num_columns` on are padding,
    for which the chunk's index is -1.
    """
    chunk = column // config.columns - column[..., :1] // config.columns
    real = column < num_columns
    where = jnp.where if isinstance(real, jax.Array) else np.where
    return column % config.columns, where(real, chunk, -1)


def to_patches(
    samples: Float32[np.ndarray, "n"], config: MatpacConfig, fast: bool = False
) -> Columns:
    """Cut 16 kHz samples into columns of 160 ms; if `fast`, fill the last chunk with zeros."""
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
    """Return the encoder's embeddings of B rows of A columns (160 ms each).

    `samples` and `num_frames` are the fields of `Columns`; `place` and `chunk` are the results of
    `chunk_layout`. A row has up to `num_chunks` chunks. L is 1 (the last block's output) or, with
    `all_layers`, the number of the encoder's blocks.
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
    """Return the encoder's embeddings of each clip, one per 160 ms.

    `clips` are 16 kHz samples of at least 25 ms. L is 1 (the last block's output) or, with
    `all_layers`, the number of blocks. The devices of `mesh`, each with `params`, share the work.

    Raises:
        InputError: `chunking` is unknown; the encoder gives NaN or infinity.
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
            if mesh is not None:
                # Once for the batch: else each slice below is a transfer between devices.
                encoded = jax.device_put(encoded, NamedSharding(mesh, PartitionSpec()))
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
    _check_finite(results)
    return results


def _check_finite(results: Sequence[Float[Array, "L _ E"]]) -> None:
    """Raise `InputError` if the encoder gave NaN or infinity for a clip."""
    finite = np.array([jnp.isfinite(vectors).all() for vectors in results])
    if not finite.all():
        raise InputError(
            f"the encoder gives NaN or infinity for clip {finite.argmin() + 1} of {len(finite)}; "
            "check its weights, or use float32 (--encoder-dtype)"
        )


def _row_spans(count: int, config: MatpacConfig) -> list[tuple[int, int]]:
    """Cut a clip of `count` columns into rows; return the (start, stop) columns of each row."""
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
    """Return the array arguments of `encode_rows` for a batch of rows of the clips in `columns`.

    Each row is padded to `length` columns, and their number to a power of two.
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
    """Pool a clip's A embeddings, and project them to audio vectors, the decoder's input.

    Returns the audio vectors (of the decoder's width D), padded with zero vectors to a multiple P
    of 16, and their number without padding.

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
