"""Builds the decoder's inputs: tokens, positions and masks of single prompts or packed rows."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.attention_mask import AttentionMask
from tinymu_jax.models.config import TinyMUConfig


class TokenSequence(NamedTuple):
    """A batch of sequences for the decoder: A audio positions, followed by T text positions."""

    tokens: Int[Array, "B T"]
    """Token ids of the text."""
    positions: Int[Array, "B A+T"]
    """Position ids for RoPE."""
    key_mask: Bool[Array, "B A+T"]
    """True at positions that later positions may attend to."""
    mask: Bool[Array, "B A+T A+T"]
    """Attention mask: True where query t attends to key s."""
    first_logit_position: Int[Array, "B"]
    """Index of the position whose output predicts the first answer token."""
    answer_start: Int[Array, ""]
    """Index of the position of the first answer token."""


def build_sequence(
    num_audio: Int[Array, "B"],
    prompt: Int[Array, "B prompt"],
    num_prompt: Int[Array, "B"],
    answer: Int[Array, "B answer"],
    num_answer: Int[Array, "B"],
    audio_length: int,
    config: TinyMUConfig,
) -> TokenSequence:
    """Return decoder sequences of audio, separator, prompt, last pad token and answer.

    The published model (m2t.py) pads every prompt to 129 tokens and masks the padding, but counts
    the padding in the position ids. Only the last pad token is kept here, since its output predicts
    the answer's first token. Example of 2 of 3 audio vectors a, 2 of 3 prompt tokens p and 1 of 2
    answer tokens r:

        index      0   1   2   3    4   5   6   7      8        9
        content    a0  a1  -   sep  p0  p1  -   pad    r0       -
        position   0   1   0   2    3   4   0   2+129  2+130+0  0
        key_mask   x   x       x    x   x              x

    A prompt of 129 tokens has no padding: its last token predicts the answer. Attention is causal
    within `key_mask`, so no token attends to the pad token.

    `audio_length` is A, the number of audio positions including padding. Tokens after the first
    `num_prompt` of a prompt, or `num_answer` of an answer, are padding. Answers may be empty.
    """
    limit, pad_index = config.max_text_tokens, audio_length + 1 + prompt.shape[1]
    zero, one = jnp.zeros_like(num_audio), jnp.ones_like(num_audio)
    segments = (  # length, first position id, number of positions in the key mask
        (audio_length, zero, num_audio),
        (1, num_audio, one),
        (prompt.shape[1], num_audio + 1, num_prompt),
        (1, num_audio + limit, zero),
        (answer.shape[1], num_audio + limit + 1, num_answer),
    )
    key_mask = jnp.concatenate([jnp.arange(n) < size[:, None] for n, _, size in segments], axis=1)
    positions = jnp.concatenate([at[:, None] + jnp.arange(n) for n, at, _ in segments], axis=1)
    separator, pad = (
        jnp.full((len(prompt), 1), token, jnp.int32)
        for token in (config.separator_token, config.pad_token)
    )
    causal = np.tril(np.ones((positions.shape[1],) * 2, bool))
    is_pad = jnp.arange(positions.shape[1]) == pad_index
    return TokenSequence(
        tokens=jnp.concatenate([separator, prompt, pad, answer], axis=1),
        positions=jnp.where(key_mask | is_pad, positions, 0),
        key_mask=key_mask,
        mask=key_mask[:, None, :] & causal,
        first_logit_position=jnp.where(num_prompt == limit, audio_length + num_prompt, pad_index),
        answer_start=jnp.asarray(pad_index + 1),
    )


class PromptBatch(NamedTuple):
    """Projected audio vectors and prompts of a batch, padded to common lengths."""

    audio: Float[Array, "B A D"]
    num_audio: Int[Array, "B"]
    prompt: Int[Array, "B prompt"]
    num_prompt: Int[Array, "B"]


def build_prompt_sequence(batch: PromptBatch, config: TinyMUConfig) -> TokenSequence:
    """Return decoder sequences without answers; see `build_sequence`."""
    audio, num_audio, prompt, num_prompt = batch
    answer = jnp.zeros((len(prompt), 0), jnp.int32)
    num_answer = jnp.zeros((len(prompt),), jnp.int32)
    return build_sequence(num_audio, prompt, num_prompt, answer, num_answer, audio.shape[1], config)


class PackedRows(NamedTuple):
    """Rows of T positions, filled with groups; a group is a clip's audio and questions about it."""

    tokens: Int[Array | np.ndarray, "*blocks rows T"]
    """Token ids; 0 at audio positions."""
    clip: Int[Array | np.ndarray, "*blocks rows T"]
    """Index of the clip in its block (the rows of one device); -1 except at audio positions."""
    positions: Int[Array | np.ndarray, "*blocks rows T"]
    """Position ids for RoPE; at audio positions also the index of the clip's audio vector."""
    group: Int[Array | np.ndarray, "*blocks rows T"]
    """Index, from 1, of the group in its row; 0 for padding."""
    question: Int[Array | np.ndarray, "*blocks rows T"]
    """Index, from 1, of the question in its group; 0 at positions that all questions share."""
    key_mask: Bool[Array | np.ndarray, "*blocks rows T"]
    """True at positions that later positions may attend to; False at pad tokens and padding."""
    option: Int[Array | np.ndarray, "*blocks rows T"] | None = None
    """Index, from 1, of the answer option in its question; 0 at positions that all options share.
    None if no question has several options."""


def packed_mask(rows: PackedRows) -> AttentionMask:
    """Return the attention mask of packed rows.

    Attention is causal and limited to `key_mask`. The tokens of a question attend to each other and
    to what their group shares, such as audio. An answer option does not attend to other options.
    """
    levels = (rows.question,) if rows.option is None else (rows.question, rows.option)
    return AttentionMask(rows.group, levels, rows.key_mask, causal=True)
