"""Questions of many clips packed into rows of a fixed length: what a training step computes.

A *group* is a clip's audio and some of its questions, `[audio sep | Q pad A | Q pad A ...]`;
a *row* holds groups one behind the other; a *block* is a few rows with the clips that they need,
read by one process and computed on one device. `tinymu_jax.data.sampler` says which group goes where.
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
    """How large blocks are."""

    row_length: int = 1024
    """Slots of a row. Where attention is dense it costs their square: little more than the
    longest group is best there."""
    rows: int = 8
    """Rows of a block."""
    max_clips: int = 24
    """Clips of a block: what the encoder computes."""
    max_labels: int = 4096
    """Answer tokens of a block: what gets scores."""
    questions_per_group: int = 0
    """Questions that share their clip's audio slots; 0 means all of the clip's."""
    buffer_size: int = 512
    """Groups that wait to be placed: the more, the fuller the rows, and the longer a group waits
    for its turn in the shuffled order."""


class PackedQuestion(NamedTuple):
    """A question and its answer as the decoder takes them."""

    prompt: Sequence[int]
    """1 to `max_text_tokens` tokens."""
    labels: Sequence[int]
    """The answer's tokens, with the end token unless the answer was cut."""
    others: Sequence[Sequence[int]] = ()
    """More answers in its place, to be compared: each as the first, none sees another."""


class PackedGroup(NamedTuple):
    """A group in its place."""

    row: int
    """Of its block."""
    clip: int
    """Of its block: whose audio it hears."""
    num_audio: int
    """Audio vectors of that clip."""
    questions: Sequence[PackedQuestion]


class PackedBlock(NamedTuple):
    """One block as arrays: G rows of R slots, Y labels; all have a leading axis N in a batch."""

    rows: PackedRows
    label_positions: Int[np.ndarray, "Y"]
    """Slots, counted through the rows, whose outputs predict the labels."""
    labels: Int[np.ndarray, "Y"]
    label_mask: Bool[np.ndarray, "Y"]
    """False behind the block's last label."""


def question_length(
    prompt: Int[np.ndarray, "Q"], labels: Int[np.ndarray, "Q"], config: TinyMUConfig
) -> Int[np.ndarray, "Q"]:
    """Returns the slots of questions by the lengths of their prompts and labels.

    The prompt, its last pad unless it is full, and the answer but its last token, which predicts
    nothing. Audio and separator are the group's.
    """
    return prompt + (prompt < config.max_text_tokens) + labels - 1


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens all of the sequences begin with alike."""
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return sum(1 for _ in alike)


def comparison_length(questions: Sequence[PackedQuestion], config: TinyMUConfig) -> int:
    """Returns the slots beside audio and separator of a group that `build_block` compares."""
    slots = _shared_prompt(questions) * (1 - len(questions))
    for prompt, labels, others in questions:
        answers = [ids[:-1] for ids in (labels, *others)]
        slots += len(prompt) + (len(prompt) < config.max_text_tokens)
        slots += sum(map(len, answers)) - common_prefix_length(answers) * (len(answers) - 1)
    return slots


def _shared_prompt(questions: Sequence[PackedQuestion]) -> int:
    """Returns how many first tokens of their prompts compared questions share; each has a last."""
    return common_prefix_length([question.prompt[:-1] for question in questions])


def build_block(
    placed: Sequence[PackedGroup],
    packing: PackingConfig,
    config: TinyMUConfig,
    compare: bool = False,
) -> PackedBlock:
    """Writes groups into the rows of a block, one behind the other.

    With 2 audio vectors, a prompt of 1 token with 2 labels and one of 2 tokens with 1 label:

        slot       0   1   2    3   4      5      6   7   8
        holds      a0  a1  sep  p0  pad    r0     p0  p1  pad
        position   0   1   2    3   2+129  2+130  3   4   2+129
        question   0   0   0    1   1      1      2   2   2
        visible    x   x   x    x          x      x   x
        predicts                    r0     r1             r0

    All questions of a clip have the separator in one place behind the same audio: it is one slot.
    Labels follow each other question by question, and answer by answer.

    Args:
        placed: the groups.
        packing: how large the block is.
        config: of the model.
        compare: whether questions may have several answers side by side. Then what a clip's prompts
            begin with alike, and what a question's answers begin with, is computed once.

    Raises:
        ValueError: the groups do not fit; the plan is wrong.
    """
    rows = _Rows(packing, config)
    for place in placed:
        rows.begin_group(place)
        shared = _shared_prompt(place.questions) if compare else 0
        if shared:
            rows.write_prompt(place, place.questions[0].prompt[:shared], 0, 0)
        for number, question in enumerate(place.questions, 1):
            rows.add_question(place, number, question, shared)
    count = len(rows.labels)
    if count > packing.max_labels:
        raise ValueError(f"{count} labels in a block for {packing.max_labels}")
    padding = (0, packing.max_labels - count)
    return PackedBlock(
        rows.packed if compare else rows.packed._replace(option=None),
        np.pad(np.array(rows.predicting, np.int32), padding),
        np.pad(np.array(rows.labels, np.int32), padding),
        np.arange(packing.max_labels) < count,
    )


class _Rows:
    """The rows of a block while groups are written into them."""

    def __init__(self, packing: PackingConfig, config: TinyMUConfig) -> None:
        shape = (packing.rows, packing.row_length)
        tokens, positions, group, question, option = np.zeros((5, *shape), np.int32)
        clip, key_mask = np.full(shape, -1, np.int32), np.zeros(shape, bool)
        self.packed = PackedRows(tokens, clip, positions, group, question, key_mask, option)
        self.used, self.groups = np.zeros((2, packing.rows), np.int32)
        self.predicting: list[int] = []
        self.labels: list[int] = []
        self.slots, self.config = packing.row_length, config

    def write(
        self,
        row: int,
        ids: Sequence[int] | np.ndarray | int,
        at: Sequence[int | np.integer] | np.ndarray,
        question: int,
        option: int = 0,
    ) -> int:
        """Fills the next slots of a row and returns the first of them."""
        start, rows = int(self.used[row]), self.packed
        span = slice(start, start + len(at))
        if span.stop > self.slots:
            raise ValueError(f"row {row} has no room for {len(at)} slots behind {start}")
        rows.tokens[row, span], rows.positions[row, span] = ids, at
        rows.group[row, span], rows.question[row, span] = self.groups[row], question
        rows.option[row, span], rows.key_mask[row, span] = option, True
        self.used[row] = span.stop
        return start

    def begin_group(self, place: PackedGroup) -> None:
        """Writes what the questions of a group share: audio and separator."""
        row, audio = place.row, int(place.num_audio)
        self.groups[row] += 1
        start = self.write(row, 0, range(audio), 0)
        self.packed.clip[row, start : start + audio] = place.clip
        self.write(row, self.config.separator_token, [audio], 0)

    def write_prompt(self, place: PackedGroup, ids: Sequence[int], number: int, start: int) -> None:
        """Writes a prompt's tokens, of which `start` are there already."""
        first = place.num_audio + 1 + start
        self.write(place.row, ids, range(first, first + len(ids)), number)

    def add_question(
        self, place: PackedGroup, number: int, question: PackedQuestion, shared: int
    ) -> None:
        """Writes a prompt but its shared tokens, its last pad, and the answers."""
        row, audio, limit = place.row, int(place.num_audio), self.config.max_text_tokens
        self.write_prompt(place, question.prompt[shared:], number, shared)
        if len(question.prompt) < limit:
            pad = self.write(row, self.config.pad_token, [audio + limit], number)
            self.packed.key_mask[row, pad] = False
        # The slot before the answers predicts the first token of each, each token the next one.
        answers = (question.labels, *question.others)
        before, behind = int(self.used[row]) - 1, audio + limit + 1
        alike = common_prefix_length([ids[:-1] for ids in answers]) if question.others else 0
        start = self.write(row, answers[0][:alike], range(behind, behind + alike), number)
        together = (before, *range(start, start + alike))
        for option, ids in enumerate(answers, 1):
            at = range(behind + alike, behind + len(ids) - 1)
            start = self.write(row, ids[alike:-1], at, number, option)
            slots = (*together, *range(start, start + len(at)))
            self.predicting.extend(row * self.slots + slot for slot in slots)
            self.labels.extend(ids)
