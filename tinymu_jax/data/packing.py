"""Questions of many clips packed into rows of a fixed length: what a training step computes.

A *group* is a clip's audio and some of its questions, `[audio sep | Q pad A | Q pad A ...]`;
a *row* holds groups one behind the other; a *block* is a few rows with the clips that they need,
read by one process and computed on one device. `tinymu_jax.data.plan` says which group goes where.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tinymu_jax.config import TinyMUConfig
from tinymu_jax.data.config import PackingConfig
from tinymu_jax.models.tinymu import PackedRows


class Question(NamedTuple):
    """A question and its answer as the decoder takes them."""

    prompt: Sequence[int]
    """1 to `max_text_tokens` tokens."""
    labels: Sequence[int]
    """The answer's tokens, with the end token unless the answer was cut."""


class Placed(NamedTuple):
    """A group in its place."""

    row: int
    """Of its block."""
    clip: int
    """Of its block: whose audio it hears."""
    num_audio: int
    """Audio vectors of that clip."""
    questions: Sequence[Question]


class Block(NamedTuple):
    """One block as arrays: G rows of R slots, Y labels; all have a leading axis N in a batch."""

    rows: PackedRows
    label_slots: Int[np.ndarray, "Y"]
    """Slots, counted through the rows, whose outputs predict the labels."""
    labels: Int[np.ndarray, "Y"]
    counted: Bool[np.ndarray, "Y"]
    """False behind the block's last label."""


def question_slots(
    prompt: Int[np.ndarray, "Q"], labels: Int[np.ndarray, "Q"], config: TinyMUConfig
) -> Int[np.ndarray, "Q"]:
    """Returns the slots of questions by the lengths of their prompts and labels.

    The prompt, its last pad unless it is full, and the answer but its last token, which predicts
    nothing. Audio and separator are the group's.
    """
    return prompt + (prompt < config.max_text_tokens) + labels - 1


def lay_out_block(placed: Sequence[Placed], packing: PackingConfig, config: TinyMUConfig) -> Block:
    """Writes groups into the rows of a block, one behind the other.

    With 2 audio vectors, a prompt of 1 token with 2 labels and one of 2 tokens with 1 label:

        slot       0   1   2    3   4      5      6   7   8
        holds      a0  a1  sep  p0  pad    r0     p0  p1  pad
        position   0   1   2    3   2+129  2+130  3   4   2+129
        question   0   0   0    1   1      1      2   2   2
        visible    x   x   x    x          x      x   x
        predicts                    r0     r1             r0

    All questions of a clip have the separator in one place behind the same audio: it is one slot.

    Raises:
        ValueError: the groups do not fit; the plan is wrong.
    """
    shape = (packing.rows, packing.row_slots)
    tokens, positions, group, question = np.zeros((4, *shape), np.int32)
    clip, visible = np.full(shape, -1, np.int32), np.zeros(shape, bool)
    used, groups = np.zeros((2, packing.rows), np.int32)
    predicting: list[int] = []
    labels: list[int] = []

    def write(row: int, ids: Sequence[int] | int, at: Sequence[int], number: int) -> int:
        """Fills the next slots of a row and returns the first of them."""
        start = used[row]
        span = slice(start, start + len(at))
        if span.stop > packing.row_slots:
            raise ValueError(f"row {row} has no room for {len(at)} slots behind {start}")
        tokens[row, span], positions[row, span] = ids, at
        group[row, span], question[row, span] = groups[row], number
        visible[row, span] = True
        used[row] = span.stop
        return int(start)

    for place in placed:
        row, audio, limit = place.row, place.num_audio, config.max_text_tokens
        groups[row] += 1
        start = write(row, 0, range(audio), 0)
        clip[row, start : start + audio] = place.clip
        write(row, config.separator_token, [audio], 0)
        for number, (prompt, answer) in enumerate(place.questions, 1):
            write(row, prompt, range(audio + 1, audio + 1 + len(prompt)), number)
            if len(prompt) < limit:
                pad = write(row, config.pad_token, [audio + limit], number)
                visible[row, pad] = False
            # The slot before the first answer token predicts it, each token the next one.
            first = row * packing.row_slots + int(used[row]) - 1
            predicting.extend(range(first, first + len(answer)))
            labels.extend(answer)
            behind = audio + limit + 1
            write(row, answer[:-1], range(behind, behind + len(answer) - 1), number)
    if len(labels) > packing.labels:
        raise ValueError(f"{len(labels)} labels in a block for {packing.labels}")
    padding = (0, packing.labels - len(labels))
    return Block(
        PackedRows(tokens, clip, positions, group, question, visible),
        np.pad(np.array(predicting, np.int32), padding),
        np.pad(np.array(labels, np.int32), padding),
        np.arange(packing.labels) < len(labels),
    )
