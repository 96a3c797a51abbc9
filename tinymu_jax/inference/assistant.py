"""The object that users hold: `tinymu_jax.load()` returns it for a TinyMU checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.load import Clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.audio_cache import AudioCache, EncodedAudio
from tinymu_jax.inference.chunked_encoding import Chunking
from tinymu_jax.inference.embedder import Audio, Embedder
from tinymu_jax.inference.generate import (
    MAX_BATCH,
    SLOT_STEP,
    Sampling,
    decode_until,
    pad_questions,
    prefill_batch,
    read_tokens,
)
from tinymu_jax.inference.option_scoring import (
    OptionScore,
    option_log_likelihoods,
    pack_options,
    to_option_scores,
)
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PromptBatch
from tinymu_jax.models.tinymu import TinyMU, label_loss
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.shapes import round_up

LONGEST = 8192
"""Tokens of an answer at most: the decoder has seen no more in its training."""


class Answer(NamedTuple):
    """What was answered, and on how much of the recording."""

    text: str | None
    """None if the checkpoint has no tokenizer."""
    tokens: list[int]
    """Without the end token."""
    ended: bool
    """Whether the end token came before `max_new_tokens`."""
    encoded_seconds: float
    total_seconds: float


@partial(jax.jit, static_argnames=("config",))
def _answer_logits(
    params: Any, question: PromptBatch, answer: Any, num_answer: Any, config: TinyMUConfig
) -> jax.Array:
    return TinyMU(config).apply(
        {"params": params}, *question, answer, num_answer, method="answer_logits"
    )


def _check_length(max_new_tokens: int) -> None:
    """Refuses an answer without tokens, or one that no cache could hold."""
    if not isinstance(max_new_tokens, Integral) or not 1 <= max_new_tokens <= LONGEST:
        raise InputError(
            f"max_new_tokens is {max_new_tokens}: ask for at least 1 and at most {LONGEST}"
        )


class TokenAssistant:
    """A TinyMU that takes and gives token ids; no tokenizer needed."""

    def __init__(self, config: TinyMUConfig, params: Any) -> None:
        """Takes unrolled parameters (`tinymu_jax.inference.param_layout`); stacked ones work too."""
        self.config, self.params = config, params
        self._listener = Embedder(config.encoder, params["encoder"], None, config.max_seconds)
        self.audio_cache = AudioCache(config, params)

    def generate_tokens(
        self, audio: Audio, prompt_ids: Sequence[int], max_new_tokens: int = 300, **sampling: Any
    ) -> list[int]:
        """Returns an answer's tokens, without the end token.

        Args:
            audio: a path or 16 kHz samples.
            prompt_ids: 1 to `config.max_text_tokens` tokens.
            max_new_tokens: longest answer.
            sampling: fields of `Sampling`.

        Raises:
            InputError: as `tinymu_jax.audio.load.as_clip`; a prompt that is empty or too long.
        """
        return self.generate_token_batch([audio], [prompt_ids], max_new_tokens, **sampling)[0]

    def generate_token_batch(
        self,
        audios: Sequence[Audio],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int = 300,
        **sampling: Any,
    ) -> list[list[int]]:
        """Returns the tokens of many answers; each is what its clip gets alone.

        Args:
            audios: paths or 16 kHz samples.
            prompts: the tokens of one question for each.
            max_new_tokens: longest answer.
            sampling: fields of `Sampling`.

        Raises:
            InputError: as `generate_tokens`, the first fault of the batch; lists of different
                lengths.
        """
        found = self._answer_all(list(audios), list(prompts), max_new_tokens, Sampling(**sampling))
        for answer in found:
            if isinstance(answer, InputError):
                raise answer
        return [answer.tokens for answer in found]

    def stream_tokens(
        self, audio: Audio, prompt_ids: Sequence[int], max_new_tokens: int = 300, **sampling: Any
    ) -> Iterator[list[int]]:
        """Yields all tokens so far, without the end token, each time one more is there.

        Arguments and errors as `generate_tokens`.
        """
        options = Sampling(**sampling)
        _check_length(max_new_tokens)
        heard, ids = self.audio_cache.encode_one(audio), self._check_prompt(prompt_ids)
        state = prefill_batch(self.params, [heard], [ids], max_new_tokens, options, self.config)
        while True:
            tokens, _ = read_tokens(state, 0, max_new_tokens, self.config)
            yield tokens
            if bool(state.done[0]) or int(state.step) >= max_new_tokens:
                return
            state = decode_until(self.params, state, int(state.step) + 1, options, self.config)

    def target_logits(
        self, audio: Audio, prompt_ids: Sequence[int], target_ids: Sequence[int]
    ) -> Float32[np.ndarray, "T V"]:
        """Returns the scores that predict each target token, end token included.

        Args:
            audio: a path or 16 kHz samples.
            prompt_ids: the question's tokens.
            target_ids: the answer's tokens without the end token, which is added as published:
                an answer of `config.max_text_tokens` or more is cut to that and gets none.

        Raises:
            InputError: as `generate_tokens`; target tokens outside the vocabulary.
        """
        logits, labels = self._teacher_forced(audio, prompt_ids, target_ids)
        return np.asarray(logits[0, : len(labels)])

    def loss_tokens(
        self, audio: Audio, prompt_ids: Sequence[int], target_ids: Sequence[int]
    ) -> float:
        """Returns the mean cross-entropy of the target tokens.

        Arguments and errors as `target_logits`.
        """
        logits, labels = self._teacher_forced(audio, prompt_ids, target_ids)
        padded = np.zeros((1, logits.shape[1]), np.int32)
        padded[0, : len(labels)] = labels
        return float(label_loss(logits, padded, np.array([len(labels)]), self.config))

    def score_tokens(
        self,
        audio: Audio,
        prompt_ids: Sequence[int],
        options: Sequence[Sequence[int]],
        names: Sequence[str] | None = None,
        prior: bool = True,
    ) -> list[OptionScore]:
        """Scores options given as tokens; see `tinymu_jax.inference.option_scoring.OptionScore`.

        Args:
            audio: a path or 16 kHz samples.
            prompt_ids: the question's tokens.
            options: the tokens of each option, without end tokens.
            names: what the options are called in the result; default is their tokens.
            prior: also what each option is worth without the audio: a second pass.

        Raises:
            InputError: an option without tokens; as `generate_tokens`.
        """
        options = [self._check_ids(ids, "an option") for ids in options]
        if not options or not all(options):
            raise InputError("an option has no tokens: give each at least one")
        heard, ids = self.audio_cache.encode_one(audio), self._check_prompt(prompt_ids)
        packed = pack_options(options, self.config.end_token)

        def likelihoods(h: EncodedAudio) -> jax.Array:
            question = pad_questions([h], [ids], self.config)
            return option_log_likelihoods(self.params, question, packed, config=self.config)

        silence = heard._replace(vectors=heard.vectors[:0])
        with_audio, without_audio = likelihoods(heard), likelihoods(silence) if prior else None
        names = names or [str(list(option)) for option in options]
        return to_option_scores(names, [len(o) for o in options], with_audio, without_audio)

    @property
    def max_seconds(self) -> float:
        """How much of a recording is heard."""
        return self.config.max_seconds

    def embed(
        self, audio: Audio, chunking: Chunking = "precise", all_layers: bool = False
    ) -> Float32[np.ndarray, "... A E"]:
        """Returns the encoder's vectors of what is heard; see `Listener.embed`."""
        return self._listener.embed(audio, chunking, all_layers)

    def _check_prompt(self, ids: Sequence[int]) -> list[int]:
        """Returns a prompt's tokens if the model can take them."""
        ids, limit = [int(i) for i in ids], self.config.max_text_tokens
        if not ids:
            raise InputError("the prompt is empty: ask something about the recording")
        if len(ids) > limit:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the model takes {limit}: shorten it, or have "
                "it cut with --truncate-prompt (truncate_prompt=True)"
            )
        return self._check_ids(ids, "the prompt")

    def _check_ids(self, ids: Sequence[int], what: str) -> list[int]:
        """Returns token ids that are in the vocabulary; others would be read as its last."""
        ids, size = [int(i) for i in ids], self.config.decoder.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < size:
            raise InputError(
                f"{what} holds tokens {min(ids)} to {max(ids)}, the vocabulary has {size}: use "
                "this decoder's own tokenizer"
            )
        return ids

    def _answer_all(
        self,
        audios: Sequence[Audio],
        prompts: Sequence[Sequence[int] | InputError],
        max_new_tokens: int,
        sampling: Sampling,
    ) -> list[Answer | InputError]:
        """Answers questions in batches; a fault stands in place of its answer."""
        _check_length(max_new_tokens)
        if len(audios) != len(prompts):
            raise InputError(
                f"{len(audios)} recordings and {len(prompts)} prompts: give one prompt for each"
            )
        results: list[Answer | InputError | None] = [None] * len(audios)
        checked: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            try:
                if isinstance(prompt, InputError):
                    raise prompt
                checked[i] = self._check_prompt(prompt)
            except InputError as error:
                results[i] = error
        for start in range(0, len(audios), MAX_BATCH):
            batch = [i for i in range(start, min(start + MAX_BATCH, len(audios))) if i in checked]
            heard = dict(zip(batch, self.audio_cache.encode(audios[i] for i in batch), strict=True))
            good = [i for i in batch if isinstance(heard[i], EncodedAudio)]
            results[start : start + MAX_BATCH] = [
                heard.get(i, results[i]) for i in range(start, min(start + MAX_BATCH, len(audios)))
            ]
            if not good:
                continue
            clips, asked = [heard[i] for i in good], [checked[i] for i in good]
            state = prefill_batch(self.params, clips, asked, max_new_tokens, sampling, self.config)
            state = decode_until(self.params, state, max_new_tokens, sampling, self.config)
            for row, i in enumerate(good):
                tokens, ended = read_tokens(state, row, max_new_tokens, self.config)
                clip = heard[i].clip
                results[i] = Answer(None, tokens, ended, clip.encoded_seconds, clip.total_seconds)
        return results

    def _teacher_forced(
        self, audio: Audio, prompt_ids: Sequence[int], target_ids: Sequence[int]
    ) -> tuple[jax.Array, list[int]]:
        """Returns scores (1, R, V) and the labels they predict, end token added as published."""
        limit = self.config.max_text_tokens
        labels = self._check_ids(target_ids, "the answer")[:limit]
        if len(labels) < limit:
            labels.append(self.config.end_token)
        heard, ids = self.audio_cache.encode_one(audio), self._check_prompt(prompt_ids)
        answer = np.zeros((1, min(round_up(len(labels), SLOT_STEP), limit)), np.int32)
        answer[0, : len(labels)] = labels
        question = pad_questions([heard], [ids], self.config)
        logits = _answer_logits(
            self.params, question, answer, np.array([len(labels)], np.int32), self.config
        )
        return logits, labels


SCORES_BY = {
    "total": "probability",
    "per-token": "probability_per_token",
    "over-prior": "probability_over_prior",
}


class Assistant(TokenAssistant):
    """A TinyMU that listens to music and answers questions about it."""

    def __init__(
        self,
        config: TinyMUConfig,
        params: Any,
        find_tokenizer: Callable[[], Tokenizer] | None = None,
        name: str = "this checkpoint",
    ) -> None:
        """Takes unrolled parameters; the tokenizer is looked for when text first comes in."""
        super().__init__(config, params)
        self.name, self._find_tokenizer = name, find_tokenizer

    def ask(
        self,
        audio: Audio | Sequence[Audio],
        prompt: str | Sequence[str],
        max_new_tokens: int = 300,
        **options: Any,
    ) -> str | list[str]:
        """Answers a question about a recording, or a batch of questions.

        Args:
            audio: a path or 16 kHz samples, or a list of them.
            prompt: the question; a list goes with a list of recordings, or with one recording.
            max_new_tokens: longest answer.
            options: `strategy`, `top_p`, `temperature` and `seed` of `Sampling`;
                `truncate_prompt=True` cuts prompts that are too long instead of refusing them.

        Returns:
            The answer's text, or a list of texts; each is what its clip gets alone.

        Raises:
            InputError: as `answers`; the first fault of a batch.
        """
        answers = self.answers(audio, prompt, max_new_tokens, **options)
        for answer in answers:
            if isinstance(answer, InputError):
                raise answer
        texts = [answer.text for answer in answers]
        return texts[0] if self._is_single(audio) and isinstance(prompt, str) else texts

    def answers(
        self,
        audio: Audio | Sequence[Audio],
        prompt: str | Sequence[str],
        max_new_tokens: int = 300,
        truncate_prompt: bool = False,
        **sampling: Any,
    ) -> list[Answer | InputError]:
        """Does what `ask` does; a fault of one recording or prompt stands in place of its answer.

        Raises:
            InputError: nothing can be answered: no tokenizer, lists of different lengths.
        """
        audios, prompts = self._pairs(audio, prompt)
        tokenizer = self.tokenizer
        encoded: list[list[int] | InputError] = []
        for text in prompts:
            try:
                encoded.append(self.encode_prompt(text, truncate_prompt))
            except InputError as error:
                encoded.append(error)
        found = self._answer_all(audios, encoded, max_new_tokens, Sampling(**sampling))
        return [
            a if isinstance(a, InputError) else a._replace(text=tokenizer.decode(a.tokens))
            for a in found
        ]

    def stream(
        self,
        audio: Audio,
        prompt: str,
        max_new_tokens: int = 300,
        truncate_prompt: bool = False,
        **sampling: Any,
    ) -> Iterator[str]:
        """Yields the answer in pieces as they are decoded; joined, they are `ask`'s answer.

        Args:
            audio: a path or 16 kHz samples.
            prompt: the question.
            max_new_tokens: longest answer.
            truncate_prompt: as for `ask`.
            sampling: fields of `Sampling`.

        Raises:
            InputError: no tokenizer; a recording or a prompt that cannot be used.
        """
        ids = self.encode_prompt(prompt, truncate_prompt)
        given = ""
        for tokens in self.stream_tokens(audio, ids, max_new_tokens, **sampling):
            text = self.tokenizer.decode(tokens)
            # A character of several bytes is held back until it is whole.
            whole = text.rstrip("\ufffd")
            if len(whole) > len(given):
                yield whole[len(given) :]
                given = whole
        if len(text) > len(given):
            yield text[len(given) :]

    def score(
        self,
        audio: Audio,
        question: str,
        options: Sequence[str],
        by: str = "total",
        truncate_prompt: bool = False,
    ) -> dict[str, float]:
        """Returns the probability of each option, from its log-likelihood as the answer.

        Args:
            audio: a path or 16 kHz samples.
            question: the prompt.
            options: the answers to choose from, at least two, all different.
            by: `total`; `per-token` divides each log-likelihood by its length; `over-prior`
                takes off what the option is worth without the audio.
            truncate_prompt: as for `ask`.

        Raises:
            InputError: less than two options, or equal or empty ones; an unknown `by`; as `stream`.
        """
        if by not in SCORES_BY:
            raise InputError(f"scores by {by!r}: use one of {', '.join(SCORES_BY)}")
        prior = by == "over-prior"
        rows = self.score_details(audio, question, options, truncate_prompt, prior)
        return {row.option: getattr(row, SCORES_BY[by]) for row in rows}

    def score_details(
        self,
        audio: Audio,
        question: str,
        options: Sequence[str],
        truncate_prompt: bool = False,
        prior: bool = True,
    ) -> list[OptionScore]:
        """Returns every option's log-likelihood, prior (if asked for) and three probabilities.

        Arguments and errors as `score`.
        """
        if isinstance(options, str) or len(options) < 2 or len(set(options)) < len(options):
            raise InputError(f"options {options!r}: give at least two, all different")
        encoded = [self.tokenizer.encode(option) for option in options]
        for option, ids in zip(options, encoded, strict=True):
            if not ids:
                raise InputError(f"option {option!r} is empty: give every option a text")
        prompt = self.encode_prompt(question, truncate_prompt)
        return self.score_tokens(audio, prompt, encoded, list(options), prior)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            InputError: the checkpoint has none, and none could be downloaded.
        """
        if self._find_tokenizer is None:
            raise InputError(f"{self.name}: has no tokenizer; give token ids, or load it with one")
        return self._find_tokenizer()

    def encode_prompt(self, text: str, truncate: bool = False) -> list[int]:
        """Returns a prompt's tokens.

        Raises:
            InputError: it is empty, or there is no tokenizer.
        """
        if not text:
            raise InputError("the prompt is empty: ask something about the recording")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError("the prompt is no text: it holds bytes that are not UTF-8") from error
        ids = self.tokenizer.encode(text)
        return ids[: self.config.max_text_tokens] if truncate else ids

    @staticmethod
    def _is_single(audio: Audio | Sequence[Audio]) -> bool:
        return isinstance(audio, str | Path | Clip) or hasattr(audio, "dtype")

    def _pairs(
        self, audio: Audio | Sequence[Audio], prompt: str | Sequence[str]
    ) -> tuple[list[Audio], list[str]]:
        """Pairs recordings and prompts; a single one of either goes with all of the other."""
        audios = [audio] if self._is_single(audio) else list(audio)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if self._is_single(audio):
            audios = audios * len(prompts)
        if isinstance(prompt, str):
            prompts = prompts * len(audios)
        if len(audios) != len(prompts) or not audios:
            raise InputError(
                f"{len(audios)} recordings and {len(prompts)} prompts: give one prompt for all, "
                "or one for each"
            )
        return audios, prompts
