"""Answers token by token: one pass over the question, then a compiled loop with a cache."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.errors import InputError
from tinymu_jax.inference.audio_cache import EncodedAudio
from tinymu_jax.mesh import shard_local_batch
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PromptBatch, build_prompt_sequence
from tinymu_jax.models.smollm2 import Cache, extend_cache
from tinymu_jax.models.tinymu import TinyMU
from tinymu_jax.utils.shapes import round_up

Strategy = Literal["greedy", "top-p"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen (published: greedy, or top-p 0.8 at temperature 1)."""

    strategy: Strategy = "greedy"
    """`greedy` takes the best token; `top-p` draws from the most probable ones."""
    top_p: float = 0.8
    """A token is dropped if those before it hold more than this probability; the first never."""
    temperature: float = 1.0
    """Divides the scores before top-p; 0 or less means 1."""
    seed: int = 0
    """Of the draws. A clip's answer depends on it and on the clip alone, not on the batch."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn from.

        Raises:
            InputError: a field out of its range; the message names it.
        """
        if self.strategy not in get_args(Strategy):
            names = " or ".join(get_args(Strategy))
            raise InputError(f"strategy {self.strategy!r}: use {names}")
        if not isinstance(self.top_p, Real) or not 0 <= self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it is a probability, 0 to 1")
        usable = isinstance(self.temperature, Real) and math.isfinite(self.temperature)
        if not usable or 0 < self.temperature < 1e-6:
            raise InputError(
                f"temperature is {self.temperature}: give a number, 1 as published, or 1e-6 or more"
            )
        if not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}: give a whole number from 0 to {2**32 - 1}")


class DecodeState(NamedTuple):
    """Everything that changes from one token to the next; an argument and a result."""

    step: Int[Array, ""]
    """Tokens chosen so far."""
    tokens: Int[Array, "B R"]
    """Chosen tokens; end tokens from an answer's end on."""
    done: Bool[Array, "B"]
    cache: Cache
    key_mask: Bool[Array, "B S"]
    """Slots of the question that may be looked at."""
    start: Int[Array, "B"]
    """Position of the first answer token."""
    answer: Int[Array, ""]
    """Slot of the first answer token."""
    key: Array
    """Of the draws; each step folds its number in."""


def greedy(logits: Float[Array, "B V"]) -> Int[Array, "B"]:
    """Returns the first of the largest, as argmax does, in two passes that vectorise."""
    size = logits.shape[-1]
    largest = logits.max(axis=-1, keepdims=True)
    return jnp.where(logits == largest, jnp.arange(size), size - 1).min(axis=-1)


def sample_top_p(
    logits: Float[Array, "B V"],
    key: Array,
    top_p: Float[Array, ""],
    temperature: Float[Array, ""],
) -> Int[Array, "B"]:
    """Draws from the most probable tokens, as published: temperature, then top-p.

    Every row takes the same noise: what a clip is answered does not depend on its place in the
    batch.
    """
    scaled = logits / jnp.where(temperature > 0, temperature, 1.0)
    order = jnp.argsort(-scaled, axis=-1, stable=True)
    descending = jnp.take_along_axis(scaled, order, axis=-1)
    probability = jax.nn.softmax(descending, axis=-1)
    before = jnp.pad(jnp.cumsum(probability, axis=-1)[:, :-1], ((0, 0), (1, 0)))
    kept = jnp.where(before > top_p, -jnp.inf, descending).at[:, 0].set(descending[:, 0])
    noise = jax.random.gumbel(key, logits.shape[-1:])
    choice = jnp.argmax(kept + noise, axis=-1)
    return jnp.take_along_axis(order, choice[:, None], axis=-1)[:, 0]


def _choose(
    logits: Float[Array, "B V"],
    state: DecodeState,
    strategy: Strategy,
    knobs: tuple[Array, Array],
    end_token: int,
) -> DecodeState:
    """Takes the next token from its scores."""
    if strategy == "greedy":
        token = greedy(logits)
    else:
        token = sample_top_p(logits, jax.random.fold_in(state.key, state.step), *knobs)
    token = jnp.where(state.done, end_token, token).astype(jnp.int32)
    column = (jnp.int32(0), state.step)
    return state._replace(
        step=state.step + 1,
        tokens=jax.lax.dynamic_update_slice(state.tokens, token[:, None], column),
        done=state.done | (token == end_token),
    )


@partial(jax.jit, static_argnames=("config", "room", "strategy"))
def prefill(
    params: Any,
    question: PromptBatch,
    active: Bool[Array, "B"],
    key: Array,
    knobs: tuple[Array, Array],
    *,
    config: TinyMUConfig,
    room: int,
    strategy: Strategy,
) -> DecodeState:
    """Computes the question and chooses the first answer token.

    Args:
        params: of the whole model, unrolled.
        question: the batch.
        active: False for rows that only fill the batch up.
        key: of the draws.
        knobs: top_p and temperature.
        config: of the model.
        room: answer tokens that the cache has room for.
        strategy: greedy or top-p.
    """
    model, batch = TinyMU(config), question.prompt.shape[0]
    sequence = build_prompt_sequence(question, config)
    hidden, cache = model.apply({"params": params}, question.audio, sequence, method="decode")
    last = jnp.take_along_axis(hidden, sequence.first_logit_position[:, None, None], axis=1)[:, 0]
    logits = model.apply({"params": params}, last, method=lambda m, x: m.decoder.logits(x))
    state = DecodeState(
        step=jnp.int32(0),
        tokens=jnp.full((batch, room), config.end_token, jnp.int32),
        done=~active,
        cache=extend_cache(cache, room),
        key_mask=jnp.pad(sequence.key_mask, ((0, 0), (0, room))),
        start=question.num_audio + config.max_text_tokens + 1,
        answer=sequence.answer_start,
        key=key,
    )
    return _choose(logits, state, strategy, knobs, config.end_token)


@partial(jax.jit, static_argnames=("config", "strategy"), donate_argnames=("state",))
def decode(
    params: Any,
    state: DecodeState,
    until: Int[Array, ""],
    knobs: tuple[Array, Array],
    *,
    config: TinyMUConfig,
    strategy: Strategy,
) -> DecodeState:
    """Goes on until `until` tokens are chosen or every answer has ended.

    The state is given up to the call and comes back changed; calling with small steps of `until`
    streams, with the same compiled program.
    """
    model = TinyMU(config)
    slots = jnp.arange(state.key_mask.shape[1])

    def unfinished(state: DecodeState) -> Bool[Array, ""]:
        return (state.step < until) & ~state.done.all()

    def one_token(state: DecodeState) -> DecodeState:
        place = state.step - 1
        column = jax.lax.dynamic_slice_in_dim(state.tokens, place, 1, axis=1)
        said = (slots >= state.answer) & (slots <= state.answer + place)

        def run(m: TinyMU) -> tuple[Array, Cache]:
            hidden, cache = m.decoder(
                m.decoder.embed(column),
                (state.start + place)[:, None],
                (state.key_mask | said)[:, None],
                state.cache,
                state.answer + place,
            )
            return m.decoder.logits(hidden[:, 0]), cache

        logits, cache = model.apply({"params": params}, method=run)
        return _choose(logits, state._replace(cache=cache), strategy, knobs, config.end_token)

    return jax.lax.while_loop(unfinished, one_token, state)


MAX_BATCH = 16
"""Questions answered in one compiled call."""

SLOT_STEP = 16
"""Audio and prompt slots are padded to multiples of this, so that few shapes are compiled."""

ROOM_STEP = 64
"""The cache's room for answer tokens is padded to a multiple of this."""


def pad_questions(
    heard: Sequence[EncodedAudio], prompts: Sequence[Sequence[int]], config: TinyMUConfig
) -> PromptBatch:
    """Pads clips and prompts to common lengths, and their number to a power of two."""
    rows = 1 << (len(heard) - 1).bit_length()
    audio_slots = round_up(max(len(h.vectors) for h in heard), SLOT_STEP)
    prompt_slots = min(round_up(max(map(len, prompts)), SLOT_STEP), config.max_text_tokens)
    audio = np.zeros((rows, audio_slots, config.decoder.width), np.float32)
    prompt = np.zeros((rows, prompt_slots), np.int32)
    num_audio, num_prompt = np.zeros(rows, np.int32), np.ones(rows, np.int32)
    for row, (h, ids) in enumerate(zip(heard, prompts, strict=True)):
        audio[row, : len(h.vectors)], num_audio[row] = h.vectors, len(h.vectors)
        prompt[row, : len(ids)], num_prompt[row] = ids, len(ids)
    return PromptBatch(audio, num_audio, prompt, num_prompt)


def prefill_batch(
    params: Any,
    heard: Sequence[EncodedAudio],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    config: TinyMUConfig,
    mesh: Mesh | None = None,
) -> DecodeState:
    """Computes a batch of questions and the first token of each answer; a mesh parts the rows."""
    padded = pad_questions(heard, prompts, config)
    active = np.arange(len(padded.num_audio)) < len(heard)
    return prefill(
        params,
        *shard_local_batch((padded, active), mesh),
        jax.random.key(sampling.seed),
        _knobs(sampling),
        config=config,
        room=round_up(max_new_tokens, ROOM_STEP),
        strategy=sampling.strategy,
    )


def decode_until(
    params: Any, state: DecodeState, until: int, sampling: Sampling, config: TinyMUConfig
) -> DecodeState:
    """Goes on to `until` tokens, or until every answer has ended."""
    knobs, strategy = _knobs(sampling), sampling.strategy
    return decode(params, state, np.int32(until), knobs, config=config, strategy=strategy)


def _knobs(sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    return np.float32(sampling.top_p), np.float32(sampling.temperature)


def read_tokens(
    state: DecodeState, row: int, limit: int, config: TinyMUConfig
) -> tuple[list[int], bool]:
    """Returns one row's tokens before the end token, and whether that came."""
    tokens = np.asarray(state.tokens[row])[: min(int(state.step), limit)].tolist()
    end = config.end_token
    return (tokens[: tokens.index(end)], True) if end in tokens else (tokens, False)
