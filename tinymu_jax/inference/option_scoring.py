"""Probabilities of given answers: every option over one shared pass over audio and question."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PromptBatch, build_prompt_sequence
from tinymu_jax.models.smollm2 import extend_cache
from tinymu_jax.models.tinymu import TinyMU
from tinymu_jax.utils.shapes import round_up


class OptionScore(NamedTuple):
    """One option's log-likelihood, and its probability among the options, taken three ways."""

    option: str
    log_likelihood: float
    """Sum over the option's tokens and its end token."""
    num_tokens: int
    """Tokens counted, the end token included."""
    prior: float | None
    """The same sum without the audio: what the words alone are worth; None if not asked for."""
    probability: float
    """Softmax of `log_likelihood` over the options."""
    probability_per_token: float
    """Softmax of `log_likelihood / num_tokens`: long options are not punished."""
    probability_over_prior: float | None
    """Softmax of `log_likelihood - prior`: what only the audio says; None without prior."""


class Options(NamedTuple):
    """Options packed one behind the other, without their end tokens, padded to T slots."""

    tokens: Int[Array, "T"]
    labels: Int[Array, "T"]
    """The token behind each one; the end token behind an option's last."""
    option: Int[Array, "T"]
    """Which option a slot belongs to; -1 for padding."""
    place: Int[Array, "T"]
    """Place within the option, from 0."""
    first: Int[Array, "O"]
    """First token of each option."""


def pack_options(options: Sequence[Sequence[int]], end_token: int) -> Options:
    """Packs options (at least one token each) into slots padded to a multiple of 16."""
    size = round_up(sum(map(len, options)), 16)
    tokens, labels, place = np.zeros((3, size), np.int32)
    option = np.full(size, -1, np.int32)
    at = 0
    for number, ids in enumerate(options):
        span = slice(at, at + len(ids))
        tokens[span], labels[span] = ids, [*ids[1:], end_token]
        option[span], place[span] = number, np.arange(len(ids))
        at += len(ids)
    first = np.array([ids[0] for ids in options], np.int32)
    return Options(tokens, labels, option, place, first)


@partial(jax.jit, static_argnames=("config",))
def option_log_likelihoods(
    params: Any, question: PromptBatch, options: Options, *, config: TinyMUConfig
) -> Float[Array, "O"]:
    """Returns log P(option, end | audio, question) of each option, for a batch of one question.

    Options look at the question and at themselves, at the same positions: each gets what it gets
    alone.
    """
    model, length = TinyMU(config), options.tokens.shape[0]
    sequence = build_prompt_sequence(question, config)
    own = options.option[:, None] == options.option[None, :]
    earlier = options.place[:, None] >= options.place[None, :]
    shared = jnp.broadcast_to(sequence.key_mask, (length, sequence.key_mask.shape[1]))
    mask: Bool[Array, "1 T S"] = jnp.concatenate([shared, own & earlier], axis=1)[None]
    positions = (question.num_audio + config.max_text_tokens + 1)[:, None] + options.place

    def run(m: TinyMU) -> tuple[Array, Array]:
        hidden, cache = m.decode(question.audio, sequence)
        cache = extend_cache(cache, length)
        first = hidden[0, sequence.first_logit_position[0]]
        embedded = m.decoder.embed(options.tokens[None])
        rest, _ = m.decoder(embedded, positions, mask, cache, sequence.answer_start)
        return m.decoder.logits(first), m.decoder.logits(rest[0])

    first, rest = model.apply({"params": params}, method=run)
    start = jax.nn.log_softmax(first)[options.first]
    inside = jnp.take_along_axis(jax.nn.log_softmax(rest), options.labels[:, None], axis=1)[:, 0]
    number = options.first.shape[0]
    belongs = options.option[None, :] == jnp.arange(number)[:, None]
    return start + jnp.where(belongs, inside, 0).sum(axis=1)


def to_option_scores(
    options: Sequence[str],
    lengths: Sequence[int],
    with_audio: np.ndarray,
    without_audio: np.ndarray | None = None,
) -> list[OptionScore]:
    """Turns log-likelihoods into probabilities among the options.

    Args:
        options: what they are called.
        lengths: their tokens, without the end token.
        with_audio: of each option.
        without_audio: the same without the audio, if the prior is wanted.
    """

    def softmax(x: np.ndarray) -> list[float]:
        weights = np.exp(x - x.max())
        return (weights / weights.sum()).tolist()

    unknown = [None] * len(options)
    total = np.asarray(with_audio, np.float64)
    prior = None if without_audio is None else np.asarray(without_audio, np.float64)
    tokens = np.asarray(lengths) + 1
    columns = zip(
        options,
        total.tolist(),
        tokens.tolist(),
        unknown if prior is None else prior.tolist(),
        softmax(total),
        softmax(total / tokens),
        unknown if prior is None else softmax(total - prior),
        strict=True,
    )
    return [OptionScore(*values) for values in columns]
