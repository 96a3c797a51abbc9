"""TinyMU (arXiv 2604.15849): encoder, projector and decoder over one token sequence."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import TinyMUConfig


class TokenSequence(NamedTuple):
    """What the decoder computes for a batch of questions; made by `build_sequence`.

    Slots are places in the computed arrays, positions are what RoPE sees. The A slots of audio
    come first, then T slots of text.
    """

    tokens: Int[Array, "B T"]
    """Of the text slots."""
    positions: Int[Array, "B A+T"]
    key_mask: Bool[Array, "B A+T"]
    """Slots that later slots may look at."""
    mask: Bool[Array, "B A+T A+T"]
    """True where slot t looks at slot s."""
    first_logit_position: Int[Array, "B"]
    """The slot whose output predicts the first answer token."""
    answer_start: Int[Array, ""]
    """The slot of the first answer token (the number of slots before it)."""


def build_sequence(
    num_audio: Int[Array, "B"],
    prompt: Int[Array, "B P"],
    num_prompt: Int[Array, "B"],
    answer: Int[Array, "B R"],
    num_answer: Int[Array, "B"],
    audio_slots: int,
    config: TinyMUConfig,
) -> TokenSequence:
    """Places audio, separator, prompt, last pad and answer: the one home of positions and masks.

    The published model pads every prompt to 129 tokens, masks the pads, and counts them in its
    positions. Only the last pad matters: it predicts the first answer token (`reference`: m2t.py
    passes no position ids). So the others are not computed, and positions are explicit. With 2
    audio vectors in 3 slots, a prompt of 2 tokens in 3 slots, an answer of 1 in 2:

        slot       0   1   2   3    4   5   6   7      8        9
        holds      a0  a1  -   sep  p0  p1  -   pad    r0       -
        position   0   1   0   2    3   4   0   2+129  2+130+0  0
        key_mask   x   x       x    x   x              x

    A prompt of exactly 129 tokens has no pad: its last token predicts. Slots see visible slots
    up to their own; the pad's key is seen by nobody, itself included.

    Args:
        num_audio: audio vectors of each clip, at most `audio_slots`.
        prompt: token ids, padded to P slots with anything.
        num_prompt: prompt lengths, 1 to `config.max_text_tokens`.
        answer: token ids of the answer, padded to R >= 0 slots with anything.
        num_answer: answer lengths.
        audio_slots: A, slots for audio.
        config: gives the special tokens and the padded length.

    Returns:
        A + 1 + P + 1 + R slots.
    """
    batch, (prompt_slots, answer_slots) = num_audio.shape[0], (prompt.shape[1], answer.shape[1])
    start, limit = num_audio[:, None], config.max_text_tokens
    audio, words, replies = (jnp.arange(n)[None] for n in (audio_slots, prompt_slots, answer_slots))
    column = jnp.zeros((batch, 1), jnp.int32)

    def with_length(indices: Array, length: Array) -> Array:
        return jnp.broadcast_to(indices < length[:, None], (batch, indices.shape[1]))

    tokens = jnp.concatenate(
        [column + config.separator_token, prompt, column + config.pad_token, answer], axis=1
    )
    key_mask = jnp.concatenate(
        [
            with_length(audio, num_audio),
            column == 0,
            with_length(words, num_prompt),
            column != 0,
            with_length(replies, num_answer),
        ],
        axis=1,
    )
    positions = jnp.concatenate(
        [
            jnp.broadcast_to(audio, (batch, audio_slots)),
            start,
            start + 1 + words,
            start + limit,
            start + limit + 1 + replies,
        ],
        axis=1,
    )
    pad_slot = audio_slots + 1 + prompt_slots
    causal = np.tril(np.ones((positions.shape[1],) * 2, bool))
    return TokenSequence(
        tokens=tokens,
        positions=jnp.where(key_mask | (jnp.arange(positions.shape[1]) == pad_slot), positions, 0),
        key_mask=key_mask,
        mask=key_mask[:, None, :] & causal,
        first_logit_position=jnp.where(num_prompt == limit, audio_slots + num_prompt, pad_slot),
        answer_start=jnp.asarray(pad_slot + 1),
    )


class PackedRows(NamedTuple):
    """Questions of several clips in rows, one behind the other; `tinymu_jax.models.packing`.

    A group is a clip's audio with the questions that share it.
    """

    tokens: Int[Array | np.ndarray, "*blocks G R"]
    """Token ids; 0 where there is audio."""
    clip: Int[Array | np.ndarray, "*blocks G R"]
    """Which clip of the block's a slot holds a vector of, from 0; -1 for text and empty slots."""
    positions: Int[Array | np.ndarray, "*blocks G R"]
    """As in `build_sequence`; of audio slots also the number of their vector."""
    group: Int[Array | np.ndarray, "*blocks G R"]
    """Which group of its row a slot belongs to, from 1; 0 for empty slots."""
    question: Int[Array | np.ndarray, "*blocks G R"]
    """Which question of its group a slot belongs to, from 1; 0 for what all share."""
    key_mask: Bool[Array | np.ndarray, "*blocks G R"]
    """Whether later slots may look at it: not so for last pads and empty slots."""
    option: Int[Array | np.ndarray, "*blocks G R"] | None = None
    """Which of its question's answers a slot belongs to, from 1, where several stand side by side;
    0 for what they share. None: no question has several."""


def packed_mask(rows: PackedRows) -> Bool[Array | np.ndarray, "*blocks G R R"]:
    """Returns where slot t looks at slot s: an earlier, visible one that is its group's or its own.

    A group shares audio and separator, a question's answers share its prompt; every one sees what
    it sees alone.
    """

    def own_or_shared(part: Array | np.ndarray) -> Array | np.ndarray:
        return (part[..., :, None] == part[..., None, :]) | (part == 0)[..., None, :]

    together = rows.group[..., :, None] == rows.group[..., None, :]
    together &= own_or_shared(rows.question)
    if rows.option is not None:
        together &= own_or_shared(rows.option)
    causal = np.tril(np.ones((rows.group.shape[-1],) * 2, bool))
    return together & rows.key_mask[..., None, :] & causal


class PromptBatch(NamedTuple):
    """A batch of questions on clips that have been listened to, padded to common lengths."""

    audio: Float[Array, "B A D"]
    num_audio: Int[Array, "B"]
    prompt: Int[Array, "B P"]
    num_prompt: Int[Array, "B"]


def build_prompt_sequence(question: PromptBatch, config: TinyMUConfig) -> TokenSequence:
    """Returns the sequence of a question without an answer; see `build_sequence`."""
    batch, slots = question.prompt.shape[0], question.audio.shape[1]
    nothing = jnp.zeros((batch, 0), jnp.int32), jnp.zeros((batch,), jnp.int32)
    return build_sequence(
        question.num_audio, question.prompt, question.num_prompt, *nothing, slots, config
    )
