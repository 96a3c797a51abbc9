"""Finds recordings in an index that are copies of each other, or share a passage."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinymu_jax.errors import InputError
from tinymu_jax.library.index_file import Index
from tinymu_jax.utils.progress import Progress, no_progress

THRESHOLD = 0.97
"""Least similarity of two windows of near-duplicates; docs/search.md has the measurement."""
BLOCK_ROWS = 2048
"""Windows that are compared at once with as many others."""
Kind = Literal["same audio", "same sound", "near"]


class Copy(NamedTuple):
    """A recording in a group of duplicates, beside the group's first recording."""

    file: str
    seconds: float
    kind: Kind
    """`same audio`, `same sound` (all embeddings are equal) or `near`."""
    similarity: float
    """Largest similarity of two windows of this and another recording of the group."""


class Group(NamedTuple):
    """Recordings that are duplicates of each other, directly or through others in the group."""

    file: str
    """The longest recording (of equally long ones, the first by name)."""
    seconds: float
    copies: list[Copy]


def find_duplicates(
    index: Index, threshold: float = THRESHOLD, progress: Progress = no_progress
) -> list[Group]:
    """Return the groups of duplicates in an index, sorted by file.

    Two recordings are near-duplicates if a window of one is at least `threshold` similar (cosine)
    to a window of the other. Silent windows are left out. All pairs of windows are compared.
    `progress` is called with the numbers of compared and of all blocks of windows.

    Raises:
        InputError: `threshold` is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; give more than 0 and at most 1")
    similarities: dict[tuple[int, int], float] = {}
    for i, j, similarity in _near(index, threshold, progress):
        similarities[i, j] = max(similarity, similarities.get((i, j), 0.0))
    same = _same(index)
    similarities |= dict.fromkeys(same, 1.0)
    neighbours: dict[int, dict[int, float]] = {}
    for (i, j), similarity in similarities.items():
        neighbours.setdefault(i, {})[j] = similarity
        neighbours.setdefault(j, {})[i] = similarity
    groups = []
    for members in _components(neighbours):
        first = min(members, key=lambda n: (-index.files[n].seconds, index.files[n].file))
        copies = [
            Copy(
                index.place(n),
                index.files[n].seconds,
                same.get((min(n, first), max(n, first)), "near"),
                round(max(neighbours[n].values()), 5),
            )
            for n in sorted(members - {first})
        ]
        groups.append(Group(index.place(first), index.files[first].seconds, copies))
    return sorted(groups)


def _same(index: Index) -> dict[tuple[int, int], Kind]:
    """Return the pairs of recordings with equal audio, or with equal embeddings of all windows."""
    by_audio: dict[str, list[int]] = {}
    by_sound: dict[bytes, list[int]] = {}
    for number, recording in enumerate(index.files):
        by_audio.setdefault(recording.content, []).append(number)
        rows = index.rows(number)
        if not index.window_silent[rows].all():
            by_sound.setdefault(index.windows[rows].tobytes(), []).append(number)
    pairs: dict[tuple[int, int], Kind] = {}
    for kind, groups in (("same sound", by_sound), ("same audio", by_audio)):
        for members in groups.values():
            pairs |= {(i, j): kind for k, i in enumerate(members) for j in members[k + 1 :]}
    return pairs


@jax.jit
def _compare(rows: Float[Array, "n E"], columns: Float[Array, "m E"]) -> Float[Array, "n m"]:
    return jnp.dot(rows, columns.T)


def _near(index: Index, threshold: float, progress: Progress) -> Iterator[tuple[int, int, float]]:
    """Yield the numbers of two recordings, i < j, for each pair of similar windows."""
    audible = np.flatnonzero(~index.window_silent)
    recording = index.recording_of_window[audible]
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(audible), BLOCK_ROWS)]
    total, done = len(blocks) * (len(blocks) + 1) // 2, 0

    def directions(block: slice) -> Array:
        rows = audible[block]
        vectors = index.windows[rows].astype(np.float32) / index.window_norms[rows, None]
        return jnp.asarray(np.pad(vectors, ((0, BLOCK_ROWS - len(rows)), (0, 0))))

    for a, first in enumerate(blocks):
        rows = directions(first)
        for second in blocks[a:]:
            products = np.asarray(_compare(rows, directions(second)))
            for i, j in np.argwhere(products >= threshold):
                one, other = recording[first][i], recording[second][j]
                if one < other:
                    yield int(one), int(other), min(1.0, float(products[i, j]))
            done += 1
            progress(done, total)


def _components(neighbours: dict[int, dict[int, float]]) -> Iterator[set[int]]:
    """Yield the connected components of a graph."""
    left = set(neighbours)
    while left:
        members, waiting = set[int](), [left.pop()]
        while waiting:
            node = waiting.pop()
            members.add(node)
            waiting += set(neighbours[node]) - members
        left -= members
        yield members
