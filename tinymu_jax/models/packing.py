"""Packs the questions about many clips into rows, which are decoder sequences of fixed length.

A *group* is a clip's audio and questions about the clip: `[audio sep | Q pad A | Q pad A ...]`. A
*row* is a sequence of groups and padding. A *block* is a few rows and the clips of their groups;
one process reads a block, and one device computes it.
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
    """Size of a block (packed rows that one device computes), and options of the packing."""

    row_length: int = 1024
    """Number of positions per row. The cost of attention grows with its square, so choose little
    more than a clip's audio and questions need."""
    rows: int = 8
    """Number of rows per block."""
    max_clips: int = 24
    """Maximum number of clips per block; each clip is encoded once."""
    max_labels: int = 4096
    """Maximum number of answer tokens per block; logits are always computed for this number."""
    questions_per_group: int = 0
    """Maximum number of questions that share one copy of a clip's audio; 0 means no limit."""
    buffer_size: int = 512
    """Number of groups (clips with questions) from which a row is filled; more groups give fuller
    rows, but a less random order."""


class PackedQuestion(NamedTuple):
    """Token ids of a question and of its answer."""

    prompt: Sequence[int]
    """Token ids of the question: at least one, at most `TinyMUConfig.max_text_tokens`."""
    labels: Sequence[int]
    """Token ids of the answer, including the end token unless the answer was truncated."""
    alternatives: Sequence[Sequence[int]] = ()
    """Token ids of further answers to score; answers do not attend to each other."""


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
    """Indices, in the block's concatenated rows, of the positions that predict the labels."""
    labels: Int[np.ndarray, "labels"]
    label_mask: Bool[np.ndarray, "labels"]
    """False for labels that are padding."""


def question_length(
    prompt: Int[np.ndarray, "Q"], labels: Int[np.ndarray, "Q"], config: TinyMUConfig
) -> Int[np.ndarray, "Q"]:
    """Return the number of positions that each question takes up in a row.

    `prompt` and `labels` are the token counts of questions and answers. A question takes up its
    prompt, a pad token unless the prompt has the maximum length, and its answer without the last
    token, which predicts nothing.
    """
    return prompt + (prompt < config.max_text_tokens) + labels - 1


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest prefix that all sequences share."""
    columns = zip(*sequences, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def comparison_length(questions: Sequence[PackedQuestion], config: TinyMUConfig) -> int:
    """Return the number of positions that a clip's questions and answer options take up.

    Common prefixes count once, as in `build_block(..., compare=True)`.
    """
    length = _shared_prompt_length(questions) * (1 - len(questions))
    for prompt, labels, alternatives in questions:
        answers = [ids[:-1] for ids in (labels, *alternatives)]
        length += len(prompt) + (len(prompt) < config.max_text_tokens)
        length += sum(map(len, answers)) - common_prefix_length(answers) * (len(answers) - 1)
    return length


def _shared_prompt_length(questions: Sequence[PackedQuestion]) -> int:
    """Return the length of the common prefix of all prompts, each without its last token."""
    return common_prefix_length([question.prompt[:-1] for question in questions])


def build_block(
    groups: Sequence[PackedGroup],
    packing: PackingConfig,
    config: TinyMUConfig,
    compare: bool = False,
) -> PackedBlock:
    """Return a block whose rows contain the given groups (a clip's audio and its questions).

    Example with 2 audio vectors a, a prompt p of 1 token with 2 answer tokens r, and a prompt of 2
    tokens with 1 answer token. Position ids count each prompt as 129 tokens, its padded length:

        index      0   1   2    3   4      5      6   7   8
        content    a0  a1  sep  p0  pad    r0     p0  p1  pad
        position   0   1   2    3   2+129  2+130  3   4   2+129
        question   0   0   0    1   1      1      2   2   2
        key_mask   x   x   x    x          x      x   x
        predicts                    r0     r1             r0

    Labels are ordered by question, then by answer option. Only with `compare` may a question have
    several answer options. Then the common prefix of a group's prompts occurs once in a row, and so
    does the common prefix of a question's options.

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
    """The rows and labels of a block; rows are filled from left to right."""

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
        """Append tokens with position ids to a row; return the first token's index in the row.

        `question` and `option` are the values for the arrays of the same name in `PackedRows`.
        """
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
        """Append a group's audio positions and separator to its row."""
        row, audio = group.row, int(group.num_audio)
        self.groups[row] += 1
        start = self.write(row, 0, range(audio), 0)
        self.packed.clip[row, start : start + audio] = group.clip
        self.write(row, self.config.separator_token, [audio], 0)

    def write_prompt(self, group: PackedGroup, ids: Sequence[int], number: int, start: int) -> None:
        """Append `ids`, a part of question `number`'s prompt that begins at token index `start`."""
        first = group.num_audio + 1 + start
        self.write(group.row, ids, range(first, first + len(ids)), number)

    def add_question(
        self, group: PackedGroup, number: int, question: PackedQuestion, shared: int
    ) -> None:
        """Append the prompt, except its first `shared` tokens, then a pad token and the answers."""
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
