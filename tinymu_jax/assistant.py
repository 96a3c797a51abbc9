"""The object that users hold: `tinymu_jax.load()` returns it for a TinyMU checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tinymu_jax.answering import Answer, TokenAssistant
from tinymu_jax.audio import Clip
from tinymu_jax.config import TinyMUConfig
from tinymu_jax.errors import InputError
from tinymu_jax.generate import Sampling
from tinymu_jax.listener import Audio
from tinymu_jax.scoring import OptionScore
from tinymu_jax.tokenizer import Tokenizer

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
