"""From clips of any length to audio vectors, in few compiled shapes.

A clip is cut into chunks as published, and a chunk into columns of 160 ms. Chunks of all clips are
computed together in rows of a few padded lengths; each chunk sees itself alone, so that a clip's
vectors depend neither on padding nor on what else is in the batch.
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
"""`precise`: the last chunk is as short as the clip; the published results. `fast`: the last
chunk is filled with zeros. `fast-interleaved`: the order of the published fast mode,
row = time * chunks + chunk."""

ROW_STEPS = (1, 2, 4, 8, 16, 24, 32, 48)
"""Lengths, in columns of 160 ms, that rows are padded to; a full chunk and what rides with it are
lengths too."""

MERGE_SHORT_TAIL = 2
"""A last chunk of at most so many columns is computed in one row with the chunk before it: the
weights are read once for both. 10 s are 62 columns and 1."""

MAX_ROWS = 8
"""Rows computed in one call. On a processor, where one fills all cores and several do not stay in
its cache, they come one by one."""


class Columns(NamedTuple):
    """A clip as the encoder takes it, or several clips' worth of rows: A columns of 160 ms."""

    samples: Float32[np.ndarray, "*rows A n"]
    num_frames: Int[np.ndarray, "*rows A"]
    """Frames of log-mel in each column; those behind are zeros."""
    place: Int[np.ndarray, "*rows A"]
    """Of each column in its chunk."""
    chunk: Int[np.ndarray, "*rows A"]
    """Which chunk a column belongs to."""


def to_patches(
    samples: Float32[np.ndarray, "n"], config: MatpacConfig, fast: bool = False
) -> Columns:
    """Cuts a clip into columns and tells which chunk, of at most `config.columns`, each is in."""
    side, frames = config.patch_size, log_mel.num_frames(len(samples))
    count = -(-frames // side)
    if fast:
        count = round_up(count, config.columns)
    step, length = side * HOP, column_samples(side)
    padded = np.zeros((count - 1) * step + length, np.float32)
    used = samples[: len(padded)]
    padded[: len(used)] = used
    number = np.arange(count)
    return Columns(
        np.lib.stride_tricks.sliding_window_view(padded, length)[::step],
        np.clip(frames - side * number, 0, side).astype(np.int32),
        (number % config.columns).astype(np.int32),
        (number // config.columns).astype(np.int32),
    )


@partial(jax.jit, static_argnames=("config", "num_chunks", "all_layers"))
def encode_rows(
    params: Any,
    rows: Columns,
    *,
    config: MatpacConfig,
    num_chunks: int,
    all_layers: bool = False,
) -> Float[Array, "L C A E"]:
    """Runs front end and encoder over rows of one padded length."""
    return Matpac(config).apply(
        {"params": params},
        *rows,
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
    """Returns each clip's vectors, 160 ms a row; all layers, or the last alone (L = 1).

    Args:
        params: of the encoder.
        clips: 16 kHz samples, each at least one window long.
        config: of the encoder.
        chunking: see `Chunking`.
        all_layers: return every block's output.
        mesh: of this process, whose devices part the rows; the parameters lie on all of them.
    """
    if chunking not in get_args(Chunking):
        raise InputError(f"chunking {chunking!r}: use one of {', '.join(get_args(Chunking))}")
    cuts = [to_patches(samples, config, fast=chunking != "precise") for samples in clips]
    spans = [(clip, span) for clip, columns in enumerate(cuts) for span in _rows(columns, config)]
    by_length: dict[int, list[int]] = {}
    for i, (_, span) in enumerate(spans):
        by_length.setdefault(_padded(span.stop - span.start, config), []).append(i)
    vectors: dict[int, Any] = {}
    most = 1 if mesh is None and jax.default_backend() == "cpu" else MAX_ROWS
    for length, members in by_length.items():
        for start in range(0, len(members), most):
            group = members[start : start + most]
            pieces = [Columns(*(part[spans[i][1]] for part in cuts[spans[i][0]])) for i in group]
            out = _encode_group(pieces, length, params, config, all_layers, mesh)
            for row, (i, piece) in enumerate(zip(group, pieces, strict=True)):
                vectors[i] = out[:, row, : len(piece.place)]
    joined = []
    for clip, columns in enumerate(cuts):
        own = [vectors[i] for i, (owner, _) in enumerate(spans) if owner == clip]
        whole = own[0] if len(own) == 1 else jnp.concatenate(own, axis=1)
        if chunking == "fast-interleaved":
            layers, count, width = whole.shape
            whole = whole.reshape(layers, columns.chunk[-1] + 1, -1, width).swapaxes(1, 2)
            whole = whole.reshape(layers, count, width)
        joined.append(whole)
    return joined


def _rows(columns: Columns, config: MatpacConfig) -> list[slice]:
    """Splits a clip's columns into rows: a chunk each, a very short last one with its neighbour."""
    count, unit = len(columns.place), config.columns
    edges = [*range(0, count, unit), count]
    if len(edges) > 2 and edges[-1] - edges[-2] <= MERGE_SHORT_TAIL:
        del edges[-2]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _padded(length: int, config: MatpacConfig) -> int:
    """Returns the length that a row is padded to."""
    steps = [step for step in ROW_STEPS if step < config.columns]
    steps += [config.columns + extra for extra in range(MERGE_SHORT_TAIL + 1)]
    return next(step for step in steps if step >= length)


def _encode_group(
    pieces: Sequence[Columns],
    length: int,
    params: Any,
    config: MatpacConfig,
    all_layers: bool,
    mesh: Mesh | None,
) -> Float[Array, "L C A E"]:
    """Pads rows to one length and their number to a power of two, and encodes them."""
    count = 1 << (len(pieces) - 1).bit_length()
    samples = np.zeros((count, length, column_samples(config.patch_size)), np.float32)
    num_frames, place = np.zeros((2, count, length), np.int32)
    chunk = np.full((count, length), -1, np.int32)
    for row, piece in enumerate(pieces):
        own = slice(len(piece.place))
        samples[row, own], num_frames[row, own] = piece.samples, piece.num_frames
        place[row, own], chunk[row, own] = piece.place, piece.chunk - piece.chunk[0]
    return encode_rows(
        params,
        shard_local_batch(Columns(samples, num_frames, place, chunk), mesh),
        config=config,
        num_chunks=2 if length > config.columns else 1,
        all_layers=all_layers,
    )


@partial(jax.jit, static_argnames=("config",))
def _project(
    params: Any, vectors: Float[Array, "B A E"], num_vectors: Int[Array, "B"], config: TinyMUConfig
) -> Float[Array, "B P D"]:
    return TinyMU(config).apply({"params": params}, vectors, num_vectors, method="project")[0]


def project(
    params: Any, vectors: Float[Array, "A E"], config: TinyMUConfig
) -> Float32[np.ndarray, "P D"]:
    """Turns one clip's vectors into what the decoder reads in their place."""
    real = vectors.shape[0]
    if real < config.pooling:
        raise InputError(
            f"the recording gives {real} vectors, fewer than the {config.pooling} that this model "
            "pools into one; give a longer recording"
        )
    slots = round_up(real, 16)
    padded = jnp.pad(vectors, ((0, slots - real), (0, 0)))[None]
    projected = _project(params, padded, np.array([real], np.int32), config)
    return np.asarray(projected[0, : config.projector.num_outputs(real // config.pooling)])
