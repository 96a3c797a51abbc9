"""Log-likelihoods of given answers, computed in packed rows as in training.

Prompts about one recording share its audio, and options of one prompt share the prompt: each is
computed once, and every option gets the log-likelihood that it has alone. A row holds several
recordings; the devices of a mesh compute a row each.
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
"""Positions of a row: two 10 s clips with two MuChoMusic questions each."""

ROW_STEP, LABEL_STEP = 32, 32
"""Rows and labels are padded to multiples of these, so that few shapes are compiled."""

BUFFER_SIZE = 48
"""Groups per device that wait to be packed: more make fuller rows."""


class OptionScore(NamedTuple):
    """An option's log-likelihood, and its probability among the options, normalized three ways."""

    option: str
    log_likelihood: float
    """Sum over the option's tokens and its end token."""
    num_tokens: int
    """Tokens of the sum, the end token included."""
    prior: float | None
    """The log-likelihood without audio; None if it was not computed."""
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
"""Normalization -> field of `OptionScore`."""


def to_option_scores(
    options: Sequence[str],
    lengths: Sequence[int],
    with_audio: Sequence[float],
    without_audio: Sequence[float] | None = None,
) -> list[OptionScore]:
    """Turns log-likelihoods into probabilities among the options.

    Args:
        options: names of the options.
        lengths: their tokens, the end token included.
        with_audio: log-likelihood of each option.
        without_audio: the same without audio, the prior.
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
    """A prompt and the options to score as its answer."""

    index: int
    """Identifies the scores."""
    prompt: Sequence[int]
    options: Sequence[Sequence[int]]
    """Token ids, with end tokens."""

    @property
    def question(self) -> PackedQuestion:
        """The prompt and its options as `build_block` takes them."""
        return PackedQuestion(self.prompt, self.options[0], self.options[1:])


class _Group(NamedTuple):
    """Option sets that share a recording."""

    audio: EncodedAudio
    sets: list[OptionSet]
    length: int
    """Positions of a row that the group takes."""


Scores = Iterator[tuple[int, tuple[float, ...]]]
"""Index of an option set, and the log-likelihood of each of its options."""


@partial(jax.jit, static_argnames=("config",))
def label_log_probabilities(
    params: Any, audio: Float[Array, "N C A D"], block: PackedBlock, *, config: TinyMUConfig
) -> Float[Array, "N Y"]:
    """Returns the log-probability of every label of N blocks."""

    def run(m: TinyMU) -> Array:
        hidden = m.decode_packed(audio, block.rows)
        return m.decoder.logits(
            jnp.take_along_axis(hidden, block.label_positions[..., None], axis=1)
        )

    logits = TinyMU(config).apply({"params": params}, method=run)
    labels = jnp.take_along_axis(logits, block.labels[..., None], axis=-1)[..., 0]
    return labels - jax.nn.logsumexp(logits, axis=-1)


class OptionScorer:
    """Packs option sets into rows and scores them as rows fill up."""

    def __init__(self, params: Any, config: TinyMUConfig, mesh: Mesh | None = None) -> None:
        """Takes the parameters of the whole model, replicated on all devices of a mesh."""
        self.params, self.config, self.mesh = params, config, mesh
        self._num_shards = (
            1 if mesh is None else mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
        )
        self._buffer: list[_Group] = []

    def add(self, audio: EncodedAudio, sets: Sequence[OptionSet]) -> Scores:
        """Adds a recording's option sets; yields the scores that are computed by then."""
        self._buffer += self._groups(audio, sets)
        while len(self._buffer) >= BUFFER_SIZE * self._num_shards:
            yield from self._score()

    def finish(self) -> Scores:
        """Yields the scores of all sets that are left."""
        while self._buffer:
            yield from self._score()

    def _groups(self, audio: EncodedAudio, sets: Sequence[OptionSet]) -> Iterator[_Group]:
        """Yields a recording's option sets, as many per group as a row takes."""

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
        """Removes the oldest group and the largest others that fit beside it from the buffer."""
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
        """Computes a row on each device; yields the scores of its sets."""
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
    """Returns the audio vectors of each row's groups; rows with fewer groups repeat any."""
    audio = [group.audio for row in rows for group in row]
    padded = [
        row[clip].audio if clip < len(row) else audio[0] for row in rows for clip in range(clips)
    ]
    # At least one vector where no group has audio: an empty array cannot be indexed.
    stacked = stack_audio(padded, len(padded), min_length=1)
    return stacked.reshape(len(rows), clips, *stacked.shape[1:])


def _sum_by_option(row: Sequence[_Group], values: np.ndarray) -> Scores:
    """Yields each set's index, and the sum over the labels of each of its options."""
    start = 0
    for group in row:
        for option_set in group.sets:
            scores = []
            for option in option_set.options:
                scores.append(float(values[start : start + len(option)].sum()))
                start += len(option)
            yield option_set.index, tuple(scores)
