"""Packs the questions about many clips into rows of a fixed number of positions.

A *group* is a clip's audio and some of the questions about the clip,
`[audio sep | Q pad A | Q pad A ...]`. A *row* is a sequence of groups and padding. A *block* is a
few rows and the clips of their groups; one process reads a block, and one device computes it.
`tinymu_jax.data.sampler` assigns groups to rows.
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
    """Size of a block, and options for the assignment of groups to rows."""

    row_length: int = 1024
    """Positions per row. The cost of dense attention grows with the square of the row length, so
    choose little more than the length of the longest group."""
    rows: int = 8
    """Number of rows per block."""
    max_clips: int = 24
    """Maximum number of clips per block; each clip is encoded once."""
    max_labels: int = 4096
    """Maximum number of answer tokens per block; logits are always computed for this number."""
    questions_per_group: int = 0
    """Maximum number of questions that share one copy of a clip's audio; 0 means no limit."""
    buffer_size: int = 512
    """Number of groups from which a row is filled by bin packing; a larger number gives fuller
    rows and a less random order."""


class PackedQuestion(NamedTuple):
    """Token ids of a question and of its answer."""

    prompt: Sequence[int]
    """Token ids of the question, 1 to `TinyMUConfig.max_text_tokens`."""
    labels: Sequence[int]
    """Token ids of the answer, including the end token unless the answer was truncated."""
    alternatives: Sequence[Sequence[int]] = ()
    """Token ids of further answer options to be scored; no option attends to another."""


class PackedGroup(NamedTuple):
    """A clip's questions, and the row of the block that they are assigned to."""

    row: int
    """Index of the row in the block."""
    clip: int
    """Index of the clip among the clips of the block."""
    num_audio: int
    """Number of the clip's audio vectors."""
    questions: Sequence[PackedQuestion]


class PackedBlock(NamedTuple):
    """One block as arrays. In a batch of blocks, every array has a leading axis of blocks."""

    rows: PackedRows
    label_positions: Int[np.ndarray, "labels"]
    """Indices, into the block's concatenated rows, of the positions that predict the labels."""
    labels: Int[np.ndarray, "labels"]
    label_mask: Bool[np.ndarray, "labels"]
    """False for labels that are padding."""


def question_length(
    prompt: Int[np.ndarray, "Q"], labels: Int[np.ndarray, "Q"], config: TinyMUConfig
) -> Int[np.ndarray, "Q"]:
    """Returns the number of positions that each question takes up in a row.

    The positions are the prompt, its last pad token unless the prompt has the maximum length, and
    the answer without its last token, which predicts nothing. `prompt` and `labels` are the numbers
    of prompt and answer tokens of each question.
    """
    return prompt + (prompt < config.max_text_tokens) + labels - 1


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Returns the length of the longest prefix that all sequences share."""
    columns = zip(*sequences, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def comparison_length(questions: Sequence[PackedQuestion], config: TinyMUConfig) -> int:
    """Counts the positions that a group's questions take up in `build_block(..., compare=True)`."""
    length = _shared_prompt_length(questions) * (1 - len(questions))
    for prompt, labels, alternatives in questions:
        answers = [ids[:-1] for ids in (labels, *alternatives)]
        length += len(prompt) + (len(prompt) < config.max_text_tokens)
        length += sum(map(len, answers)) - common_prefix_length(answers) * (len(answers) - 1)
    return length


def _shared_prompt_length(questions: Sequence[PackedQuestion]) -> int:
    """Returns the length of the prompts' longest common prefix that excludes every last token."""
    return common_prefix_length([question.prompt[:-1] for question in questions])


def build_block(
    groups: Sequence[PackedGroup],
    packing: PackingConfig,
    config: TinyMUConfig,
    compare: bool = False,
) -> PackedBlock:
    """Returns a block whose rows contain the given groups.

    Example of a group with 2 audio vectors, a prompt of 1 token with 2 labels, and a prompt of 2
    tokens with 1 label:

        index      0   1   2    3   4      5      6   7   8
        content    a0  a1  sep  p0  pad    r0     p0  p1  pad
        position   0   1   2    3   2+129  2+130  3   4   2+129
        question   0   0   0    1   1      1      2   2   2
        key_mask   x   x   x    x          x      x   x
        predicts                    r0     r1             r0

    All questions of a group share the group's audio and separator. Labels are ordered by question,
    then by answer option.

    Args:
        groups: groups, each with the index of the row to write it to.
        packing: size of the block.
        config: ids of the special tokens, and maximum prompt length.
        compare: whether questions may have several answer options. If so, the common prefix of a
            group's prompts and the common prefix of a question's options occur only once.

    Raises:
        ValueError: the groups do not fit into the block.
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
    """Collects the rows and labels of a block; rows are filled from left to right."""

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
        """Appends tokens with position ids to a row; returns the first token's index in the row."""
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
        """Appends a group's audio positions and separator to the group's row."""
        row, audio = group.row, int(group.num_audio)
        self.groups[row] += 1
        start = self.write(row, 0, range(audio), 0)
        self.packed.clip[row, start : start + audio] = group.clip
        self.write(row, self.config.separator_token, [audio], 0)

    def write_prompt(self, group: PackedGroup, ids: Sequence[int], number: int, start: int) -> None:
        """Appends `ids`, the part of question `number`'s prompt that begins at token `start`."""
        first = group.num_audio + 1 + start
        self.write(group.row, ids, range(first, first + len(ids)), number)

    def add_question(
        self, group: PackedGroup, number: int, question: PackedQuestion, shared: int
    ) -> None:
        """Appends a question: the prompt from token `shared` on, a pad token and the answers."""
        row, audio, limit = group.row, int(group.num_audio), self.config.max_text_tokens
        self.write_prompt(group, question.prompt[shared:], number, shared)
        if len(question.prompt) < limit:
            pad = self.write(row, self.config.pad_token, [audio + limit], number)
            self.packed.key_mask[row, pad] = False
        # The position before the answers predicts the first token of each answer.
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
