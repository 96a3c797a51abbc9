"""Continuous batching: answers that begin and end at different times are decoded together.

All rows of the key/value cache write the keys and values of their new tokens to the same column,
any that no row uses. A mask says which columns belong to the answer of each row. The order of the
columns does not matter, since position ids are given explicitly.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from tinymu_jax.errors import InputError
from tinymu_jax.inference.audio_cache import EncodedAudio, stack_audio
from tinymu_jax.inference.engine import check_max_new_tokens
from tinymu_jax.inference.generate import Sampling, first_logits, greedy, sample_top_p
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PromptBatch
from tinymu_jax.models.smollm2 import Cache
from tinymu_jax.models.tinymu import TinyMU
from tinymu_jax.utils.shapes import round_up

MAX_TOP = 20
"""Largest number of most probable tokens that are reported for a position."""
MIN_COLUMNS = 128
"""Smallest number of columns of the cache."""
PROMPT_LENGTHS = (16, 32, 64)
"""Prompts are padded to these numbers of tokens, or to the model's limit."""


class RowState(NamedTuple):
    """What each of B rows needs for its next token."""

    token: Int[Array | np.ndarray, "B"]
    """The answer's last token."""
    position: Int[Array | np.ndarray, "B"]
    """RoPE position of that token."""
    number: Int[Array | np.ndarray, "B"]
    """Index in the answer of the token to choose, which decides the noise of sampling."""
    seed: UInt32[Array | np.ndarray, "B"]
    top_p: Float[Array | np.ndarray, "B"]
    temperature: Float[Array | np.ndarray, "B"]
    sampled: Bool[Array | np.ndarray, "B"]
    """Whether the token is sampled; otherwise it is the most probable one."""


class ChosenTokens(NamedTuple):
    """The next token of each of B rows."""

    token: Int[Array, "B"]
    log_probability: Float[Array, "B"]
    """Natural logarithm of the token's probability before temperature and top-p."""
    top_tokens: Int[Array, "B top"]
    """The most probable tokens, best first; zeros unless they were asked for."""
    top_log_probabilities: Float[Array, "B top"]


def _choose(logits: Float[Array, "B V"], rows: RowState, with_top: Bool[Array, ""]) -> ChosenTokens:
    """Choose the next token of each row; a row's choice does not depend on other rows."""

    def sample(logits: Array) -> Array:
        def one_row(logits: Array, row: RowState) -> Array:
            # The key is that of `generate`, so that a seed gives the same answer here.
            key = jax.random.fold_in(jax.random.key(row.seed), row.number)
            return sample_top_p(logits[None], key, row.top_p, row.temperature)[0]

        return jnp.where(rows.sampled, jax.vmap(one_row)(logits, rows), greedy(logits))

    def top(logits: Array) -> tuple[Array, Array]:
        values, tokens = jax.lax.top_k(logits, min(MAX_TOP, logits.shape[-1]))
        return tokens.astype(jnp.int32), values

    def no_top(logits: Array) -> tuple[Array, Array]:
        shape = len(logits), min(MAX_TOP, logits.shape[-1])
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, logits.dtype)

    token = jax.lax.cond(rows.sampled.any(), sample, greedy, logits).astype(jnp.int32)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1) - total
    top_tokens, top_logits = jax.lax.cond(with_top, top, no_top, logits)
    return ChosenTokens(token, chosen[:, 0], top_tokens, top_logits - total)


@partial(jax.jit, static_argnames=("config",))
def _start(
    params: Any,
    question: PromptBatch,
    rows: RowState,
    with_top: Bool[Array, ""],
    *,
    config: TinyMUConfig,
) -> tuple[ChosenTokens, Cache, Bool[Array, "B P"]]:
    """Run the decoder on audio and prompts of P positions, and choose the first tokens.

    The cache of the P positions and the mask of those that later tokens attend to are returned.
    """
    logits, cache, sequence = first_logits(params, question, config)
    return _choose(logits, rows, with_top), cache, sequence.key_mask


@partial(jax.jit, static_argnames=("config",), donate_argnames=("cache",))
def _decode_step(
    params: Any,
    cache: Cache,
    rows: RowState,
    key_mask: Bool[Array, "B S"],
    column: Int[Array, ""],
    with_top: Bool[Array, ""],
    *,
    config: TinyMUConfig,
) -> tuple[ChosenTokens, Cache]:
    """Run the decoder on the last token of each row, and choose the next; `cache` is donated.

    The keys and values of all rows are written to the given column of the cache.
    """

    def run(m: TinyMU) -> tuple[Array, Cache]:
        hidden, updated = m.decoder(
            m.decoder.embed(rows.token[:, None]),
            rows.position[:, None],
            key_mask[:, None],
            cache,
            column,
        )
        return m.decoder.logits(hidden[:, 0]), updated

    logits, cache = TinyMU(config).apply({"params": params}, method=run)
    return _choose(logits, rows, with_top), cache


@partial(jax.jit, static_argnames=("num_heads", "length"))
def _take_rows(cache: Cache, rows: Int[Array, "B"], *, num_heads: int, length: int) -> Cache:
    """Return the given rows of a cache, cut or padded to `length` columns."""

    def take(x: Array) -> Array:
        x = x.reshape(*x.shape[:-3], -1, num_heads, *x.shape[-2:])[..., :length, :]
        x = jnp.take(x, rows, axis=-4)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, length - x.shape[-2]), (0, 0)])
        return x.reshape(*x.shape[:-4], -1, *x.shape[-2:])

    return jax.tree.map(take, cache)


@partial(jax.jit, donate_argnames=("cache",))
def _insert_row(cache: Cache, prefix: Cache, row: Int[Array, ""]) -> Cache:
    """Write the cache of one prompt into the first columns of a row; `cache` is donated."""

    def insert(old: Array, new: Array) -> Array:
        start = [jnp.int32(0)] * (old.ndim - 3) + [row * new.shape[-3], jnp.int32(0), jnp.int32(0)]
        return jax.lax.dynamic_update_slice(old, new, start)

    return jax.tree.map(insert, cache, prefix)


class TokenChoice(NamedTuple):
    """A token of an answer."""

    token: int
    log_probability: float
    """Natural logarithm of the token's probability before temperature and top-p."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens with their log-probabilities, best first, if asked for."""


class Answer:
    """An answer that is being generated."""

    def __init__(
        self, start: int, max_new_tokens: int, sampling: Sampling, num_top: int = 0
    ) -> None:
        """Create an empty answer, whose first token has the RoPE position `start`."""
        self.start, self.max_new_tokens = start, max_new_tokens
        self.sampling, self.num_top = sampling, num_top
        self.choices: list[TokenChoice] = []
        """The tokens so far, without the end token."""
        self.ended = False
        """Whether the end token was generated."""

    @property
    def tokens(self) -> list[int]:
        """Token ids so far, without the end token."""
        return [choice.token for choice in self.choices]

    @property
    def is_done(self) -> bool:
        """Whether the answer has ended or has `max_new_tokens` tokens."""
        return self.ended or len(self.choices) >= self.max_new_tokens

    def _add(self, chosen: ChosenTokens, row: int, end_token: int) -> None:
        token = int(chosen.token[row])
        if token == end_token:
            self.ended = True
            return
        top = zip(chosen.top_tokens[row].tolist(), chosen.top_log_probabilities[row].tolist())  # noqa: B905
        log_probability = float(chosen.log_probability[row])
        self.choices.append(TokenChoice(token, log_probability, tuple(top)[: self.num_top]))


class ContinuousDecoder:
    """Decodes up to `max_rows` answers together; an answer may join or leave before each step.

    An answer does not depend on the other rows. It is for use by one thread.
    """

    def __init__(self, params: Any, config: TinyMUConfig, max_rows: int = 16) -> None:
        """Create a decoder without answers; `params` are those of an `Assistant`."""
        self.params, self.config, self.max_rows = params, config, max_rows
        self.clear()

    @property
    def answers(self) -> list[Answer]:
        """The answers that are being generated."""
        return [answer for answer in self._rows if answer is not None]

    @property
    def is_full(self) -> bool:
        """Whether no further answer can join."""
        return len(self.answers) >= self.max_rows

    def add(
        self,
        audio: EncodedAudio,
        prompt: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        num_top: int = 0,
    ) -> Answer:
        """Begin an answer, which gets its first token; later tokens come with `step`.

        Args:
            audio: the recording.
            prompt: token ids of the question, from `PromptEncoder.encode_prompt`.
            max_new_tokens: largest number of tokens of the answer.
            sampling: how tokens are chosen.
            num_top: number of most probable tokens to report with each token, up to `MAX_TOP`.

        Raises:
            InputError: a number is out of range.
            RuntimeError: the decoder is full.
        """
        check_max_new_tokens(max_new_tokens)
        if not 0 <= num_top <= MAX_TOP:
            raise InputError(f"num_top is {num_top}: ask for 0 to {MAX_TOP}")
        if self.is_full:
            raise RuntimeError("the decoder is full")
        start = audio.num_vectors + self.config.max_text_tokens + 1
        answer = Answer(start, max_new_tokens, sampling, num_top)
        chosen, prefix, key_mask = _start(
            self.params,
            _pad_question(audio, prompt, self.config),
            _row_state([answer]),
            np.bool_(num_top > 0),
            config=self.config,
        )
        answer._add(jax.device_get(chosen), 0, self.config.end_token)
        if not answer.is_done:
            self._insert(answer, prefix, np.asarray(key_mask)[0])
        return answer

    def step(self) -> list[Answer]:
        """Choose the next token of all answers; return these answers. Those that end leave."""
        answers = self.answers
        if not answers:
            return []
        if _power_of_two(len(answers)) < len(self._rows):
            self._resize(_power_of_two(len(answers)), self._num_columns)
        free = np.flatnonzero(~self._key_mask.any(axis=0))
        column = free[0] if len(free) else self._num_columns
        if not len(free):
            self._resize(len(self._rows), _round_columns(self._num_columns + 1))
        active = [row for row, answer in enumerate(self._rows) if answer is not None]
        self._key_mask[active, column] = True
        chosen, self._cache = _decode_step(
            self.params,
            self._cache,
            _row_state(self._rows),
            # jax may read a NumPy array after the call has returned.
            self._key_mask.copy(),
            np.int32(column),
            np.bool_(any(answer.num_top for answer in answers)),
            config=self.config,
        )
        chosen = jax.device_get(chosen)
        for row in active:
            self._rows[row]._add(chosen, row, self.config.end_token)
        for answer in answers:
            if answer.is_done:
                self.remove(answer)
        return answers

    def remove(self, answer: Answer) -> None:
        """End an answer early; nothing happens if it has ended already."""
        if answer in self._rows:
            row = self._rows.index(answer)
            self._rows[row] = None
            self._key_mask[row] = False
        if not self.answers:
            self.clear()

    def clear(self) -> None:
        """Drop all answers and the cache."""
        self._cache: Cache = None
        self._rows: list[Answer | None] = []
        self._key_mask = np.zeros((0, 0), bool)

    @property
    def _num_columns(self) -> int:
        return self._key_mask.shape[1]

    def _insert(self, answer: Answer, prefix: Cache, key_mask: Bool[np.ndarray, "P"]) -> None:
        """Give an answer a row, and copy the cache of its prompt to the row's first columns."""
        length = len(key_mask)
        columns = max(self._num_columns, MIN_COLUMNS, _round_columns(length))
        if not self._rows:
            self._cache = self._taken(prefix, [0], columns)
            self._rows, self._key_mask = [None], np.zeros((1, columns), bool)
        else:
            rows = len(self._rows) * (1 if None in self._rows else 2)
            if (rows, columns) != self._key_mask.shape:
                self._resize(rows, columns)
            row = self._rows.index(None)
            self._cache = _insert_row(self._cache, prefix, np.int32(row))
        row = self._rows.index(None)
        self._rows[row] = answer
        self._key_mask[row, :length] = key_mask

    def _resize(self, num_rows: int, num_columns: int) -> None:
        """Move the answers to the first rows of a cache of another size."""
        rows = [row for row, answer in enumerate(self._rows) if answer is not None]
        missing = num_rows - len(rows)
        self._cache = self._taken(self._cache, rows + [0] * missing, num_columns)
        key_mask = np.zeros((num_rows, num_columns), bool)
        key_mask[: len(rows), : self._num_columns] = self._key_mask[rows]
        self._key_mask = key_mask
        self._rows = [*(self._rows[row] for row in rows), *[None] * missing]

    def _taken(self, cache: Cache, rows: Sequence[int], num_columns: int) -> Cache:
        heads = self.config.decoder.num_kv_heads
        return _take_rows(cache, np.array(rows, np.int32), num_heads=heads, length=num_columns)


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def _round_columns(number: int) -> int:
    """Return the smallest power of two, or three quarters of one, that is at least `number`."""
    power = _power_of_two(number)
    return power * 3 // 4 if number <= power * 3 // 4 else power


def _row_state(answers: Sequence[Answer | None]) -> RowState:
    """Return the state of rows for their next tokens; rows without an answer get zeros."""
    state = RowState(
        *(np.zeros(len(answers), np.int32) for _ in range(3)),
        np.zeros(len(answers), np.uint32),
        *(np.ones(len(answers), np.float32) for _ in range(2)),
        np.zeros(len(answers), bool),
    )
    for row, answer in enumerate(answers):
        if answer is None:
            continue
        number = len(answer.choices)
        if number:
            state.token[row] = answer.choices[-1].token
            state.position[row] = answer.start + number - 1
        state.number[row], state.seed[row] = number, answer.sampling.seed
        state.top_p[row], state.temperature[row] = (
            answer.sampling.top_p,
            answer.sampling.temperature,
        )
        state.sampled[row] = answer.sampling.strategy != "greedy"
    return state


def _pad_question(audio: EncodedAudio, prompt: Sequence[int], config: TinyMUConfig) -> PromptBatch:
    """Return one recording's audio vectors and a prompt, each padded to one of a few lengths."""
    limit = config.max_text_tokens
    lengths = [*(length for length in PROMPT_LENGTHS if length < limit), limit]
    padded = np.zeros((1, next(n for n in lengths if n >= len(prompt))), np.int32)
    padded[0, : len(prompt)] = prompt
    audio_length = max(64, _power_of_two(round_up(audio.num_vectors, 16)))
    return PromptBatch(
        stack_audio([audio], 1, min_length=audio_length),
        np.array([audio.num_vectors], np.int32),
        padded,
        np.array([len(prompt)], np.int32),
    )
