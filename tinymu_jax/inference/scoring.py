"""Computes log-likelihoods of given answers (options).

Several recordings, each with its prompts and options, are packed into one row of the decoder's
batch, which does not change the log-likelihoods. Each device computes one row.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from tinymu_jax.inference.audio_cache import EncodedAudio, stack_audio
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

ROW_LENGTH = 384
"""Decoder positions in a row: enough for two clips of 10 s with two MuChoMusic questions each."""
ROW_STEP, LABEL_STEP = 32, 32
"""A row's positions and labels are padded to multiples of these, so that few shapes are
compiled."""
BUFFER_SIZE = 48
"""Number of waiting groups per device (see `_Group`) from which rows are packed."""


class OptionScore(NamedTuple):
    """An option's log-likelihood, and three differently normalized probabilities."""

    option: str
    log_likelihood: float
    """Sum of the log-probabilities of the option's tokens and of the end token."""
    num_tokens: int
    """Number of the option's tokens, including the end token."""
    prior: float | None
    """Log-likelihood of the option without audio; None if it was not computed."""
    probability: float
    """Softmax of `log_likelihood` over the options."""
    probability_per_token: float
    """Softmax of `log_likelihood / num_tokens`, which does not favour short options."""
    probability_over_prior: float | None
    """Softmax of `log_likelihood - prior`, the pointwise mutual information; None without prior."""


NORMALIZE = {
    "sum": "probability",
    "length": "probability_per_token",
    "pmi": "probability_over_prior",
}
"""Name of each normalization -> field of `OptionScore` with the normalized probability."""


def to_option_scores(
    options: Sequence[str],
    lengths: Sequence[int],
    with_audio: Sequence[float],
    without_audio: Sequence[float] | None = None,
) -> list[OptionScore]:
    """Compute the probabilities of options from their log-likelihoods with and without audio.

    `lengths` are the options' numbers of tokens, including the end token.
    """

    def softmax(x: np.ndarray) -> list[float]:
        weights = np.exp(x - x.max())
        return (weights / weights.sum()).tolist()

    total, num_tokens = np.asarray(with_audio, np.float64), np.asarray(lengths)
    prior = None if without_audio is None else np.asarray(without_audio, np.float64)
    none = [None] * len(options)
    columns = zip(
        options,
        total.tolist(),
        num_tokens.tolist(),
        none if prior is None else prior.tolist(),
        softmax(total),
        softmax(total / num_tokens),
        none if prior is None else softmax(total - prior),
        strict=True,
    )
    return [OptionScore(*values) for values in columns]


class OptionSet(NamedTuple):
    """A prompt, and the options to score as answers to the prompt."""

    index: int
    """Number that identifies the option set's scores."""
    prompt: Sequence[int]
    options: Sequence[Sequence[int]]
    """Token ids of each option, including the end token."""

    @property
    def question(self) -> PackedQuestion:
        """The prompt and its options in the form that `build_block` packs."""
        return PackedQuestion(self.prompt, self.options[0], self.options[1:])


class _Group(NamedTuple):
    """Option sets (prompts with options) about one recording, which are packed into one row."""

    audio: EncodedAudio
    sets: list[OptionSet]
    length: int
    """Number of decoder positions that the group takes in a row."""


Scores = Iterator[tuple[int, tuple[float, ...]]]
"""Pairs of an option set's `index` and the log-likelihoods of its options."""


@partial(jax.jit, static_argnames=("config",))
def label_log_probabilities(
    params: Any, audio: Float[Array, "N C A D"], block: PackedBlock, *, config: TinyMUConfig
) -> Float[Array, "N Y"]:
    """Return the log-probability of each of Y labels (answer tokens) in each of N packed rows.

    A row holds prompts and answers about C clips, which have A audio vectors each.
    """

    def run(m: TinyMU) -> Array:
        hidden = m.decode_packed(audio, block.rows)
        return m.decoder.logits(
            jnp.take_along_axis(hidden, block.label_positions[..., None], axis=1)
        )

    logits = TinyMU(config).apply({"params": params}, method=run)
    labels = jnp.take_along_axis(logits, block.labels[..., None], axis=-1)[..., 0]
    return labels - jax.nn.logsumexp(logits, axis=-1)


class OptionScorer:
    """Scores option sets in packed rows; option sets wait until there are enough to fill rows."""

    def __init__(self, params: Any, config: TinyMUConfig, mesh: Mesh | None = None) -> None:
        self.params, self.config, self.mesh = params, config, mesh
        self._num_shards = (
            1 if mesh is None else mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
        )
        self._buffer: list[_Group] = []

    def add(self, audio: EncodedAudio, sets: Sequence[OptionSet]) -> Scores:
        """Queue prompts with options about a recording; yield the scores of rows that are full."""
        self._buffer += self._groups(audio, sets)
        while len(self._buffer) >= BUFFER_SIZE * self._num_shards:
            yield from self._score()

    def finish(self) -> Scores:
        """Score all option sets that still wait, and yield their scores."""
        while self._buffer:
            yield from self._score()

    def _groups(self, audio: EncodedAudio, sets: Sequence[OptionSet]) -> Iterator[_Group]:
        """Split a recording's option sets into groups that fit into a row or hold a single set."""

        def group(members: list[OptionSet]) -> _Group:
            text = comparison_length([member.question for member in members], self.config)
            return _Group(audio, members, audio.num_vectors + 1 + text)

        members: list[OptionSet] = []
        for option_set in sets:
            if members and group([*members, option_set]).length > ROW_LENGTH:
                yield group(members)
                members = []
            members.append(option_set)
        if members:
            yield group(members)

    def _take_row(self) -> list[_Group]:
        """Remove a row's groups from the buffer: the oldest, then the longest that still fit."""
        row = [self._buffer.pop(0)]
        used = row[0].length
        for group in sorted(self._buffer, key=lambda group: -group.length):
            if used + group.length <= ROW_LENGTH:
                row.append(group)
                used += group.length
        taken = {id(group) for group in row}
        self._buffer = [group for group in self._buffer if id(group) not in taken]
        return row

    def _score(self) -> Scores:
        """Compute one row on each device; yield the scores of the rows' option sets."""
        rows = [self._take_row() for _ in range(self._num_shards) if self._buffer]
        labels = [
            sum(len(option) for group in row for s in group.sets for option in s.options)
            for row in rows
        ]
        packing = PackingConfig(
            row_length=round_up(max(sum(group.length for group in row) for row in rows), ROW_STEP),
            rows=1,
            max_clips=max(map(len, rows)),
            max_labels=round_up(max(labels), LABEL_STEP),
        )
        padded = [*rows, *[()] * (self._num_shards - len(rows))]
        blocks = []
        for row in padded:
            groups = [
                PackedGroup(0, clip, group.audio.num_vectors, [s.question for s in group.sets])
                for clip, group in enumerate(row)
            ]
            blocks.append(build_block(groups, packing, self.config, compare=True))
        block = jax.tree.map(lambda *parts: np.stack(parts), *blocks)
        log_probabilities = label_log_probabilities(
            self.params,
            *shard_local_batch((_row_audio(padded, packing.max_clips), block), self.mesh),
            config=self.config,
        )
        for row, values in zip(rows, np.asarray(log_probabilities, np.float64), strict=False):
            yield from _sum_by_option(row, values)


def _row_audio(rows: Sequence[Sequence[_Group]], clips: int) -> Float[Array, "N C A D"]:
    """Stack the audio of each row's groups; a row of fewer than C = `clips` groups is padded."""
    audio = [group.audio for row in rows for group in row]
    padded = [
        row[clip].audio if clip < len(row) else audio[0] for row in rows for clip in range(clips)
    ]
    # If no group has audio, one zero vector stands for it: an empty array cannot be indexed.
    stacked = stack_audio(padded, len(padded), min_length=1)
    return stacked.reshape(len(rows), clips, *stacked.shape[1:])


def _sum_by_option(row: Sequence[_Group], values: np.ndarray) -> Scores:
    """Yield each option set's log-likelihoods, summed from log-probabilities of tokens."""
    start = 0
    for group in row:
        for option_set in group.sets:
            scores = []
            for option in option_set.options:
                scores.append(float(values[start : start + len(option)].sum()))
                start += len(option)
            yield option_set.index, tuple(scores)
