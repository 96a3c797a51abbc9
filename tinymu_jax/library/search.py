"""Finds the recordings or windows in an index that are nearest to a recording."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float16, Float32, Int, Int32

from tinymu_jax.errors import InputError
from tinymu_jax.library.index_file import Index, blocks, norms

CACHED_ROWS = 256
"""Vectors that are compared at once: as many as fit into a processor's cache."""
BLOCK_ROWS = 16 * CACHED_ROWS
"""Vectors in a call of the device."""
MAX_IN_FLIGHT = 4
"""Calls of the device that are made before the first result is waited for."""


class Match(NamedTuple):
    """A recording that is similar to another, and how similar."""

    file: str
    similarity: float
    """Cosine of the angle between the embeddings: at most 1."""
    start: float
    """Start of the most similar window in seconds; 0 if whole recordings were compared."""
    end: float
    query_start: float
    """Start of the window of the query to which that window is similar."""
    query_end: float


class Query(NamedTuple):
    """A recording to search for."""

    windows: Float16[np.ndarray, "w E"]
    spans: Float32[np.ndarray, "w 2"]
    """Start and end of each window in seconds."""
    silent: Bool[np.ndarray, "w"]
    file: str | None = None
    """Name in the index of a recording that is left out of the results."""


@jax.jit
def _products(
    block: Float[Array, "n E"], queries: Float[Array, "E Q"]
) -> tuple[Float[Array, "n"], Int[Array, "n"]]:
    """Return each vector's largest product with a query, and the query's number."""

    def compare(rows: Array) -> tuple[Array, Array]:
        products = jnp.dot(rows.astype(jnp.float32), queries)
        return products.max(1), products.argmax(1)

    parts = jax.lax.map(compare, block.reshape(-1, CACHED_ROWS, block.shape[1]))
    return jax.tree.map(jnp.ravel, parts)


def nearest(
    vectors: Float16[np.ndarray, "n E"],
    lengths: Float32[np.ndarray, "n"],
    queries: Float16[np.ndarray, "Q E"],
) -> tuple[Float32[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """Return each vector's largest cosine similarity to a query, and the query's number.

    All products are computed, in float32, a block of vectors at a time. `lengths` are the vectors'
    norms.
    """
    directions = jnp.asarray((queries.astype(np.float32) / norms(queries)[:, None]).T)
    results, pending = list[tuple[np.ndarray, np.ndarray]](), []
    # The device computes while the next blocks are read from the disk.
    for block in blocks(vectors, BLOCK_ROWS):
        padding = -len(block) % CACHED_ROWS
        padded = np.pad(block, ((0, padding), (0, 0))) if padding else block
        pending.append(_products(padded, directions))
        if len(pending) == MAX_IN_FLIGHT:
            results.append(jax.device_get(pending.pop(0)))
    results += jax.device_get(pending)
    values, numbers = (
        np.concatenate(parts)[: len(vectors)] for parts in zip(*results, strict=True)
    )
    return values / lengths, numbers


def indexed_query(index: Index, path: Path, content: str) -> Query | None:
    """Return a recording as a query if its audio is in the index, else None.

    `content` is the fingerprint of the audio; see `packets.audio_fingerprint`.
    """
    numbers = [n for n, recording in enumerate(index.files) if recording.content == content]
    if not numbers:
        return None
    same = [n for n in numbers if os.path.realpath(index.place(n)) == os.path.realpath(path)]
    rows = index.rows(numbers[0])
    name = index.files[same[0]].file if same else None
    return Query(index.windows[rows], index.window_spans[rows], index.window_silent[rows], name)


def similar(index: Index, query: Query, top: int = 20, by_window: bool = False) -> list[Match]:
    """Return the recordings of an index that are most similar to a query, best first.

    Args:
        index: the index.
        query: the recording to compare.
        top: number of recordings to return.
        by_window: whether to compare windows, and name each recording's best; otherwise the means
            of all windows are compared. Silent windows, which are all alike, are left out.

    Raises:
        InputError: `top` is less than 1; the query is silent and windows are to be compared.
    """
    if top < 1:
        raise InputError(f"top is {top}; give 1 or more")
    if by_window:
        scores, spans, query_spans = _compare_windows(index, query)
    else:
        mean = query.windows.mean(0, dtype=np.float64, keepdims=True).astype(np.float16)
        scores, _ = nearest(index.recordings, index.recording_norms, mean)
        spans = np.array([(0, recording.seconds) for recording in index.files])
        query_spans = np.broadcast_to((0, query.spans[-1, 1]), spans.shape)
    matches = []
    # Rounded, so that the order of copies does not depend on the blocks they are in.
    for row in np.argsort(-scores.round(5), kind="stable"):
        if index.files[row].file == query.file or scores[row] == -np.inf:
            continue
        times = (round(float(time), 3) for time in (*spans[row], *query_spans[row]))
        matches.append(Match(index.place(row), min(1.0, float(scores[row])), *times))
        if len(matches) == top:
            break
    return matches


def _compare_windows(
    index: Index, query: Query
) -> tuple[Float32[np.ndarray, "R"], Float32[np.ndarray, "R 2"], Float32[np.ndarray, "R 2"]]:
    """Return the similarity of each recording's best window, its span and that of the query's.

    The similarity of a silent recording is minus infinity.
    """
    audible = ~query.silent
    if not audible.any():
        raise InputError("the recording is silent: compare whole recordings, without --windows")
    scores, numbers = nearest(index.windows, index.window_norms, query.windows[audible])
    scores = np.where(index.window_silent, -np.inf, scores)
    order = np.lexsort((-scores, index.recording_of_window))
    best = order[index.first_window[:-1]]  # the first of each recording's windows, best first
    return scores[best], index.window_spans[best], query.spans[audible][numbers[best]]
