"""Log-likelihoods of given answers to many questions, packed as in training.

A clip's questions share its audio and a question's options its prompt, so that each is computed
once; every option gets what it gets alone (`tinymu_jax.inference.option_scoring`). Rows hold several clips, and each
device of a mesh computes rows of its own.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from tinymu_jax.inference.audio_cache import EncodedAudio
from tinymu_jax.mesh import BATCH_AXES, shard_local_batch
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import (
    PackedBlock,
    PackedGroup,
    PackedQuestion,
    PackingConfig,
    build_block,
    comparison_length,
)
from tinymu_jax.models.tinymu import TinyMU
from tinymu_jax.utils.shapes import round_up

ROW_SLOTS = 384
"""Slots of a row: two clips of 10 s with two questions each."""

SLOT_STEP, LABEL_STEP = 32, 32
"""Rows and labels are padded to multiples of these, so that few shapes are compiled."""

WAITING = 48
"""Groups that wait to be placed, for each device: the more, the fuller the rows."""


class Compared(NamedTuple):
    """A question whose options are to be compared."""

    number: int
    """By which its scores are found again."""
    prompt: Sequence[int]
    options: Sequence[Sequence[int]]
    """Their tokens, with end tokens."""

    @property
    def question(self) -> PackedQuestion:
        """The question as rows take it."""
        return PackedQuestion(self.prompt, self.options[0], self.options[1:])


class _Group(NamedTuple):
    """Questions that share a clip, and the slots that they take with it."""

    heard: EncodedAudio
    questions: list[Compared]
    slots: int


@partial(jax.jit, static_argnames=("config",))
def label_log_probabilities(
    params: Any, audio: Float[Array, "N C A D"], block: PackedBlock, *, config: TinyMUConfig
) -> Float[Array, "N Y"]:
    """Returns the log-probability of every label of N blocks."""

    def run(m: TinyMU) -> Array:
        hidden = m.decode_packed(audio, block.rows)
        picked = jnp.take_along_axis(hidden, block.label_positions[..., None], axis=1)
        return m.decoder.logits(picked)

    logits = TinyMU(config).apply({"params": params}, method=run)
    chosen = jnp.take_along_axis(logits, block.labels[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


class OptionScorer:
    """Collects questions until rows are full, then scores them together."""

    def __init__(self, params: Any, config: TinyMUConfig, mesh: Mesh | None = None) -> None:
        """Takes a TinyMU's parameters; on a mesh, they lie on all of its devices."""
        self.params, self.config, self.mesh = params, config, mesh
        self._rows_at_once = (
            1 if mesh is None else mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
        )
        self._waiting: list[_Group] = []

    def add(
        self, heard: EncodedAudio, questions: Sequence[Compared]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Takes a clip's questions; yields number and scores of those that are computed by then."""
        self._waiting += self._groups(heard, questions)
        while len(self._waiting) >= WAITING * self._rows_at_once:
            yield from self._score()

    def finish(self) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Yields number and scores of all that wait."""
        while self._waiting:
            yield from self._score()

    def _take_row(self) -> list[_Group]:
        """Takes the group that waits longest, and then the largest ones that there is room for."""
        row, left = [self._waiting.pop(0)], sorted(self._waiting, key=lambda one: -one.slots)
        for group in left:
            if sum(own.slots for own in row) + group.slots <= ROW_SLOTS:
                row.append(group)
        taken = {id(group) for group in row}
        self._waiting = [group for group in self._waiting if id(group) not in taken]
        return row

    def _groups(self, heard: EncodedAudio, questions: Sequence[Compared]) -> Iterator[_Group]:
        """Yields a clip's questions, as many together as a row takes."""
        together: list[Compared] = []
        for question in questions:
            if together and self._group(heard, [*together, question]).slots > ROW_SLOTS:
                yield self._group(heard, together)
                together = []
            together.append(question)
        if together:
            yield self._group(heard, together)

    def _group(self, heard: EncodedAudio, questions: list[Compared]) -> _Group:
        slots = comparison_length([one.question for one in questions], self.config)
        return _Group(heard, questions, len(heard.vectors) + 1 + slots)

    def _score(self) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Computes a row on each device; yields number and scores of its questions."""
        rows = [self._take_row() for _ in range(self._rows_at_once) if self._waiting]
        labels = [sum(_labels(group) for group in row) for row in rows]
        packing = PackingConfig(
            row_length=round_up(max(sum(group.slots for group in row) for row in rows), SLOT_STEP),
            rows=1,
            max_clips=max(map(len, rows)),
            max_labels=round_up(max(labels), LABEL_STEP),
        )
        filled = [*rows, *[()] * (self._rows_at_once - len(rows))]
        blocks = [build_block(_placed(row), packing, self.config, compare=True) for row in filled]
        block = jax.tree.map(lambda *parts: np.stack(parts), *blocks)
        found = label_log_probabilities(
            self.params,
            *shard_local_batch((_audio(filled, self.config.decoder.width), block), self.mesh),
            config=self.config,
        )
        for row, values in zip(rows, np.asarray(found, np.float64), strict=False):
            yield from _by_option(row, values)


def _labels(group: _Group) -> int:
    return sum(len(option) for question in group.questions for option in question.options)


def _placed(row: Sequence[_Group]) -> list[PackedGroup]:
    """Returns the groups of a row in the places that they get."""
    return [
        PackedGroup(
            0,
            clip,
            len(group.heard.vectors),
            [one.question for one in group.questions],
        )
        for clip, group in enumerate(row)
    ]


def _audio(rows: Sequence[Sequence[_Group]], width: int) -> np.ndarray:
    """Returns what the decoder reads of each row's clips, (N, C, A, D), padded with zeros."""
    longest = max(len(group.heard.vectors) for row in rows for group in row)
    # One slot more where nothing is heard: an array of none cannot be looked up.
    shape = len(rows), max(map(len, rows)), max(round_up(longest, 16), 1), width
    audio = np.zeros(shape, np.float32)
    for number, row in enumerate(rows):
        for clip, group in enumerate(row):
            audio[number, clip, : len(group.heard.vectors)] = group.heard.vectors
    return audio


def _by_option(
    row: Sequence[_Group], values: np.ndarray
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yields each question's number, and the sum over the labels of each of its options."""
    at = 0
    for group in row:
        for question in group.questions:
            scores = []
            for option in question.options:
                scores.append(float(values[at : at + len(option)].sum()))
                at += len(option)
            yield question.number, tuple(scores)
