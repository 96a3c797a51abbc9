"""Generates answers: one prefill pass, then a compiled decoding loop with a key/value cache."""

import math
from collections.abc import Iterator, Sequence
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
from tinymu_jax.inference.audio_cache import EncodedAudio, stack_audio
from tinymu_jax.mesh import shard_local_batch
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PromptBatch, TokenSequence, build_prompt_sequence
from tinymu_jax.models.smollm2 import Cache, extend_cache
from tinymu_jax.models.tinymu import TinyMU
from tinymu_jax.utils.shapes import round_up

Strategy = Literal["greedy", "top-p"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; by default, `top_p` and `temperature` are as published.

    Raises:
        InputError: a field is out of range.
    """

    strategy: Strategy = "greedy"
    """`greedy` takes the most probable token; `top-p` samples from the nucleus, see `top_p`."""
    top_p: float = 0.8
    """A token is in the nucleus if the probabilities of all more probable tokens sum to at most
    `top_p`."""
    temperature: float = 1.0
    """Number by which logits are divided before top-p; 0 or less means 1."""
    seed: int = 0
    """Random seed for top-p."""

    def __post_init__(self) -> None:
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
    """State of the decoding loop for a batch of B answers."""

    step: Int[Array, ""]
    """Number of tokens chosen so far for each answer."""
    tokens: Int[Array, "B R"]
    """Token ids of each answer, padded with end tokens to R tokens."""
    done: Bool[Array, "B"]
    cache: Cache
    key_mask: Bool[Array, "B S"]
    """Mask of the cache's S positions: True at audio and prompt tokens, False at padding."""
    start: Int[Array, "B"]
    """RoPE position of each answer's first token."""
    answer: Int[Array, ""]
    """Index of the first answer token in the sequence and the cache."""
    key: Array
    """Random key for sampling; each step folds in its number."""


def greedy(logits: Float[Array, "B V"]) -> Int[Array, "B"]:
    """Return the index of the largest logit in each row, the lowest index if several are equal."""
    # Maximum and minimum are vectorized on a CPU, and argmax is not.
    size = logits.shape[-1]
    largest = logits.max(axis=-1, keepdims=True)
    return jnp.where(logits == largest, jnp.arange(size), size - 1).min(axis=-1)


def sample_top_p(
    logits: Float[Array, "B V"], key: Array, top_p: Float[Array, ""], temperature: Float[Array, ""]
) -> Int[Array, "B"]:
    """Divide logits by the temperature, and sample one token per row from the top-p nucleus.

    All rows share the random noise, so that an answer does not depend on its row in the batch.
    """
    scaled = logits / jnp.where(temperature > 0, temperature, 1.0)
    order = jnp.argsort(-scaled, axis=-1, stable=True)
    descending = jnp.take_along_axis(scaled, order, axis=-1)
    probability = jax.nn.softmax(descending, axis=-1)
    before = jnp.pad(jnp.cumsum(probability, axis=-1)[:, :-1], ((0, 0), (1, 0)))
    nucleus = jnp.where(before > top_p, -jnp.inf, descending).at[:, 0].set(descending[:, 0])
    noise = jax.random.gumbel(key, logits.shape[-1:])
    choice = jnp.argmax(nucleus + noise, axis=-1)
    return jnp.take_along_axis(order, choice[:, None], axis=-1)[:, 0]


def _choose(
    logits: Float[Array, "B V"],
    state: DecodeState,
    strategy: Strategy,
    knobs: tuple[Array, Array],
    end_token: int,
) -> DecodeState:
    """Append each answer's next token to the state; `knobs` are top_p and temperature."""
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


def first_logits(
    params: Any, question: PromptBatch, config: TinyMUConfig
) -> tuple[Float[Array, "B V"], Cache, TokenSequence]:
    """Run the decoder on audio and prompts; return the logits of each answer's first token.

    The key/value cache and the sequence of the audio and the prompts are also returned.
    """
    model, sequence = TinyMU(config), build_prompt_sequence(question, config)
    hidden, cache = model.apply({"params": params}, question.audio, sequence, method="decode")
    last = jnp.take_along_axis(hidden, sequence.first_logit_position[:, None, None], axis=1)[:, 0]
    logits = model.apply({"params": params}, last, method=lambda m, x: m.decoder.logits(x))
    return logits, cache, sequence


@partial(jax.jit, static_argnames=("config", "max_new_slots", "strategy"))
def prefill(
    params: Any,
    question: PromptBatch,
    active: Bool[Array, "B"],
    key: Array,
    knobs: tuple[Array, Array],
    *,
    config: TinyMUConfig,
    max_new_slots: int,
    strategy: Strategy,
) -> DecodeState:
    """Run the decoder on audio and prompts, and choose the first token of each answer.

    `active` is False for rows of batch padding; `knobs` are top_p and temperature. The key/value
    cache gets space for `max_new_slots` answer tokens.
    """
    batch = question.prompt.shape[0]
    logits, cache, sequence = first_logits(params, question, config)
    state = DecodeState(
        step=jnp.int32(0),
        tokens=jnp.full((batch, max_new_slots), config.end_token, jnp.int32),
        done=~active,
        cache=extend_cache(cache, max_new_slots),
        key_mask=jnp.pad(sequence.key_mask, ((0, 0), (0, max_new_slots))),
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
    """Run the decoding loop until each answer has `until` tokens or all answers have ended.

    To stream answers, call with growing `until`: one compiled program serves all calls. `state` is
    donated (not usable afterwards); `knobs` are top_p and temperature.
    """
    model = TinyMU(config)
    indices = jnp.arange(state.key_mask.shape[1])

    def unfinished(state: DecodeState) -> Bool[Array, ""]:
        return (state.step < until) & ~state.done.all()

    def one_token(state: DecodeState) -> DecodeState:
        last = state.step - 1
        column = jax.lax.dynamic_slice_in_dim(state.tokens, last, 1, axis=1)
        answered = (indices >= state.answer) & (indices <= state.answer + last)

        def run(m: TinyMU) -> tuple[Array, Cache]:
            hidden, cache = m.decoder(
                m.decoder.embed(column),
                (state.start + last)[:, None],
                (state.key_mask | answered)[:, None],
                state.cache,
                state.answer + last,
            )
            return m.decoder.logits(hidden[:, 0]), cache

        logits, cache = model.apply({"params": params}, method=run)
        return _choose(logits, state._replace(cache=cache), strategy, knobs, config.end_token)

    return jax.lax.while_loop(unfinished, one_token, state)


MAX_BATCH = 16
"""Maximum number of prompts in a batch."""
SLOT_STEP = 16
"""Prompts are padded to a multiple of this number of tokens, so that few shapes are compiled."""
CACHE_STEP = 64
"""The key/value cache has space for a multiple of this number of answer tokens."""


def pad_questions(
    audio: Sequence[EncodedAudio],
    prompts: Sequence[Sequence[int]],
    config: TinyMUConfig,
    rows: int = 1,
) -> PromptBatch:
    """Stack recordings' audio vectors and prompts (token ids), each padded to a common length.

    The number of rows is a power of two, or `rows` if that is more.
    """
    rows = max(1 << (len(audio) - 1).bit_length(), rows)
    length = min(round_up(max(map(len, prompts)), SLOT_STEP), config.max_text_tokens)
    prompt = np.zeros((rows, length), np.int32)
    num_audio, num_prompt = np.zeros(rows, np.int32), np.ones(rows, np.int32)
    for row, (encoded, ids) in enumerate(zip(audio, prompts, strict=True)):
        num_audio[row], num_prompt[row], prompt[row, : len(ids)] = (
            encoded.num_vectors,
            len(ids),
            ids,
        )
    return PromptBatch(stack_audio(audio, rows), num_audio, prompt, num_prompt)


def generate(
    params: Any,
    audio: Sequence[EncodedAudio],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    config: TinyMUConfig,
    *,
    stride: int | None = None,
    rows: int = 1,
    mesh: Mesh | None = None,
) -> Iterator[list[tuple[tuple[int, ...], bool]]]:
    """Generate answers to a batch of prompts (token ids), each with its recording's audio vectors.

    After every `stride` new tokens (None: at the end), yields for each prompt the answer's token
    ids so far, without the end token, and whether the answer has ended. The batch is padded to at
    least `rows` rows, which the devices of `mesh` share.
    """
    stride = stride or max_new_tokens
    knobs = np.float32(sampling.top_p), np.float32(sampling.temperature)
    question = pad_questions(audio, prompts, config, rows)
    active = np.arange(len(question.num_audio)) < len(prompts)
    state = prefill(
        params,
        *shard_local_batch((question, active), mesh),
        jax.random.key(sampling.seed),
        knobs,
        config=config,
        max_new_slots=round_up(max_new_tokens, CACHE_STEP),
        strategy=sampling.strategy,
    )
    for until in range(stride, max_new_tokens + stride, stride):
        if until > 1:  # prefill chose the first token
            state = decode(
                params, state, np.int32(until), knobs, config=config, strategy=sampling.strategy
            )
        tokens = np.asarray(state.tokens)[: len(prompts), : min(int(state.step), max_new_tokens)]
        yield [_before_end(row, config.end_token) for row in tokens.tolist()]
        if bool(state.done.all()):
            return


def _before_end(tokens: list[int], end_token: int) -> tuple[tuple[int, ...], bool]:
    ended = end_token in tokens
    return tuple(tokens[: tokens.index(end_token)] if ended else tokens), ended
