"""Packs the questions of many clips into rows of a fixed length, the unit of a training step.

A *group* is a clip's audio and some of its questions, `[audio sep | Q pad A | Q pad A ...]`. A
*row* is a sequence of groups. A *block* is a few rows and the clips they need, read by one process
and computed on one device. `tinymu_jax.data.sampler` assigns groups to rows.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PackedRows


@dataclass(frozen=True)
class PackingConfig:
    """Size of a block."""

    row_length: int = 1024
    """Positions per row. Dense attention costs its square, so little more than the longest group
    is best there."""
    rows: int = 8
    """Rows per block."""
    max_clips: int = 24
    """Clips per block, each encoded once."""
    max_labels: int = 4096
    """Answer tokens per block whose logits are computed."""
    questions_per_group: int = 0
    """Questions that share one copy of their clip's audio; 0 means all of the clip's questions."""
    buffer_size: int = 512
    """Groups in the bin-packing buffer: larger means fuller rows and a less random order."""


class PackedQuestion(NamedTuple):
    """Token ids of a question and its answer."""

    prompt: Sequence[int]
    """1 to `max_text_tokens` tokens."""
    labels: Sequence[int]
    """The answer, with the end token unless it was truncated."""
    alternatives: Sequence[Sequence[int]] = ()
    """Other answer options to be scored beside `labels`; no option attends to another."""


class PackedGroup(NamedTuple):
    """A group and the row and clip it is assigned to."""

    row: int
    """Index of the row in the block."""
    clip: int
    """Index of the clip in the block."""
    num_audio: int
    """Number of the clip's audio vectors."""
    questions: Sequence[PackedQuestion]


class PackedBlock(NamedTuple):
    """One block as arrays; in a batch all have a leading axis of blocks."""

    rows: PackedRows
    label_positions: Int[np.ndarray, "labels"]
    """Position indices, counted through all rows, whose outputs predict the labels."""
    labels: Int[np.ndarray, "labels"]
    label_mask: Bool[np.ndarray, "labels"]
    """False for padding."""


def question_length(
    prompt: Int[np.ndarray, "Q"], labels: Int[np.ndarray, "Q"], config: TinyMUConfig
) -> Int[np.ndarray, "Q"]:
    """Returns the positions that questions take, by the lengths of their prompts and labels.

    These are the prompt, its last pad token unless the prompt is full, and the answer without its
    last token, which predicts nothing. Audio and separator belong to the group.
    """
    return prompt + (prompt < config.max_text_tokens) + labels - 1


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Returns the length of the longest common prefix."""
    columns = zip(*sequences, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def comparison_length(questions: Sequence[PackedQuestion], config: TinyMUConfig) -> int:
    """Returns the positions of a group's questions in `build_block(..., compare=True)`."""
    length = _shared_prompt_length(questions) * (1 - len(questions))
    for prompt, labels, alternatives in questions:
        answers = [ids[:-1] for ids in (labels, *alternatives)]
        length += len(prompt) + (len(prompt) < config.max_text_tokens)
        length += sum(map(len, answers)) - common_prefix_length(answers) * (len(answers) - 1)
    return length


def _shared_prompt_length(questions: Sequence[PackedQuestion]) -> int:
    """Returns the common prefix length of prompts, excluding the last token of each."""
    return common_prefix_length([question.prompt[:-1] for question in questions])


def build_block(
    groups: Sequence[PackedGroup],
    packing: PackingConfig,
    config: TinyMUConfig,
    compare: bool = False,
) -> PackedBlock:
    """Writes groups into the rows of a block.

    Example: 2 audio vectors, a prompt of 1 token with 2 labels, and one of 2 tokens with 1 label:

        index      0   1   2    3   4      5      6   7   8
        content    a0  a1  sep  p0  pad    r0     p0  p1  pad
        position   0   1   2    3   2+129  2+130  3   4   2+129
        question   0   0   0    1   1      1      2   2   2
        key_mask   x   x   x    x          x      x   x
        predicts                    r0     r1             r0

    The questions of a group share its audio and separator. Labels are ordered by question, then by
    answer option.

    Args:
        groups: groups and their rows.
        packing: size of the block.
        config: special tokens and lengths.
        compare: whether questions may have several answer options. Common prefixes of a clip's
            prompts, and of a question's options, are then computed once.

    Raises:
        ValueError: the groups do not fit, so the plan is wrong.
    """
    rows = _Rows(packing, config)
    for group in groups:
        rows.begin_group(group)
        shared = _shared_prompt_length(group.questions) if compare else 0
        if shared:
            rows.write_prompt(group, group.questions[0].prompt[:shared], 0, 0)
        for number, question in enumerate(group.questions, 1):
            rows.add_question(group, number, question, shared)
    count = len(rows.labels)
    if count > packing.max_labels:
        raise ValueError(f"{count} labels in a block for {packing.max_labels}")
    padding = (0, packing.max_labels - count)
    return PackedBlock(
        rows.packed if compare else rows.packed._replace(option=None),
        np.pad(np.array(rows.label_positions, np.int32), padding),
        np.pad(np.array(rows.labels, np.int32), padding),
        np.arange(packing.max_labels) < count,
    )


class _Rows:
    """The rows of a block, filled from left to right."""

    def __init__(self, packing: PackingConfig, config: TinyMUConfig) -> None:
        shape = (packing.rows, packing.row_length)
        tokens, positions, group, question, option = np.zeros((5, *shape), np.int32)
        clip, key_mask = np.full(shape, -1, np.int32), np.zeros(shape, bool)
        self.packed = PackedRows(tokens, clip, positions, group, question, key_mask, option)
        self.used, self.groups = np.zeros((2, packing.rows), np.int32)
        self.label_positions: list[int] = []
        self.labels: list[int] = []
        self.row_length, self.config = packing.row_length, config

    def write(
        self,
        row: int,
        ids: Sequence[int] | np.ndarray | int,
        positions: Sequence[int] | np.ndarray,
        question: int,
        option: int = 0,
    ) -> int:
        """Appends tokens to a row and returns the index of the first."""
        start, rows = int(self.used[row]), self.packed
        span = slice(start, start + len(positions))
        if span.stop > self.row_length:
            raise ValueError(f"row {row} has no room for {len(positions)} positions at {start}")
        rows.tokens[row, span], rows.positions[row, span] = ids, positions
        rows.group[row, span], rows.question[row, span] = self.groups[row], question
        rows.option[row, span], rows.key_mask[row, span] = option, True
        self.used[row] = span.stop
        return start

    def begin_group(self, group: PackedGroup) -> None:
        """Writes the audio and separator of a group."""
        row, audio = group.row, int(group.num_audio)
        self.groups[row] += 1
        start = self.write(row, 0, range(audio), 0)
        self.packed.clip[row, start : start + audio] = group.clip
        self.write(row, self.config.separator_token, [audio], 0)

    def write_prompt(self, group: PackedGroup, ids: Sequence[int], number: int, start: int) -> None:
        """Writes the tokens of a prompt from its token `start` on."""
        first = group.num_audio + 1 + start
        self.write(group.row, ids, range(first, first + len(ids)), number)

    def add_question(
        self, group: PackedGroup, number: int, question: PackedQuestion, shared: int
    ) -> None:
        """Writes a prompt from its token `shared` on, its last pad token, and the answers."""
        row, audio, limit = group.row, int(group.num_audio), self.config.max_text_tokens
        self.write_prompt(group, question.prompt[shared:], number, shared)
        if len(question.prompt) < limit:
            pad = self.write(row, self.config.pad_token, [audio + limit], number)
            self.packed.key_mask[row, pad] = False
        # The position before the answers predicts the first token of each.
        answers = (question.labels, *question.alternatives)
        before, position = int(self.used[row]) - 1, audio + limit + 1
        prefix = common_prefix_length([ids[:-1] for ids in answers]) if len(answers) > 1 else 0
        start = self.write(row, answers[0][:prefix], range(position, position + prefix), number)
        common = (before, *range(start, start + prefix))
        for option, ids in enumerate(answers, 1):
            positions = range(position + prefix, position + len(ids) - 1)
            start = self.write(row, ids[prefix:-1], positions, number, option)
            indices = (*common, *range(start, start + len(positions)))
            self.label_positions.extend(row * self.row_length + index for index in indices)
            self.labels.extend(ids)
