"""The class `Assistant`, which `tinymu_jax.load()` returns for a TinyMU checkpoint."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from tinymu_jax.audio.load import Audio, is_one_recording
from tinymu_jax.errors import InputError
from tinymu_jax.inference.chunked_encoding import Chunking
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.inference.engine import BatchEngine, Request, Response, raise_first
from tinymu_jax.inference.generate import SLOT_STEP, Sampling, pad_questions
from tinymu_jax.inference.scoring import NORMALIZE, OptionScore, to_option_scores
from tinymu_jax.inference.whole_recording import (
    EncodedWindow,
    WholeAnswer,
    WholeScores,
    ask_windows,
    encode_windows,
    score_windows,
)
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.sequence import PromptBatch
from tinymu_jax.models.tinymu import TinyMU, label_loss
from tinymu_jax.tokenizer import TextStream, Tokenizer
from tinymu_jax.utils.shapes import round_up


@partial(jax.jit, static_argnames=("config",))
def _answer_logits(
    params: Any, question: PromptBatch, answer: Any, num_answer: Any, config: TinyMUConfig
) -> jax.Array:
    return TinyMU(config).apply(
        {"params": params}, *question, answer, num_answer, method="answer_logits"
    )


class Assistant:
    """A TinyMU model that answers questions about recordings.

    Methods that take text need a tokenizer; methods with `token` in the name take and return token
    ids. All methods raise `InputError` for a recording or prompt that cannot be used.
    """

    def __init__(
        self,
        config: TinyMUConfig,
        params: Any,
        find_tokenizer: Callable[[], Tokenizer] | None = None,
        name: str = "this checkpoint",
        keep_damaged: bool = False,
    ) -> None:
        """Build an assistant from a model; see `BatchEngine` for the arguments."""
        self.engine = BatchEngine(config, params, find_tokenizer, name, keep_damaged=keep_damaged)
        self.config, self.params, self.name = config, params, name
        self.audio_cache = self.engine.audio_cache
        self._embedder = Embedder(
            config.encoder, params["encoder"], None, config.max_seconds, keep_damaged
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The decoder's tokenizer; raises `InputError` if the checkpoint has none."""
        return self.engine.prompts.tokenizer

    @property
    def max_seconds(self) -> float:
        """Length in seconds to which recordings are cut."""
        return self.config.max_seconds

    @property
    def keep_damaged(self) -> bool:
        """Whether damaged recordings are used as far as they can be read, or are errors."""
        return self.audio_cache.keep_damaged

    def ask(
        self,
        audio: Audio | Sequence[Audio],
        prompt: str | Sequence[str],
        max_new_tokens: int = 300,
        whole: bool = False,
        **options: Any,
    ) -> str | list[str] | WholeAnswer | list[WholeAnswer]:
        """Answer one question about one recording, or several questions in a batch.

        Args:
            audio: a recording (a path, samples, ...; see `Audio`), or a list of recordings.
            prompt: a question or a list of questions. Two lists are paired; a single recording or
                question is paired with every element of the other argument.
            max_new_tokens: maximum number of tokens of an answer.
            whole: whether to ask about all of a recording, window by window, and not only about its
                first `max_seconds` seconds; see `inference.whole_recording`.
            options: `strategy`, `top_p`, `temperature` and `seed` of `Sampling`;
                `truncate_prompt=True` cuts prompts that are too long instead of rejecting them;
                with `whole`, `hop` is the number of seconds between the starts of windows.

        Returns:
            The text of the answer (with `whole`, a `WholeAnswer`), or a list of them if an argument
            is a list. An answer does not depend on the other questions in the batch.
        """
        if whole:
            answers = raise_first(self.whole_answers(audio, prompt, max_new_tokens, **options))
            return answers[0] if is_one_recording(audio) and isinstance(prompt, str) else answers
        responses = raise_first(self.answers(audio, prompt, max_new_tokens, **options))
        texts = [response.text for response in responses]
        return texts[0] if is_one_recording(audio) and isinstance(prompt, str) else texts

    def answers(
        self,
        audio: Audio | Sequence[Audio],
        prompt: str | Sequence[str],
        max_new_tokens: int = 300,
        truncate_prompt: bool = False,
        **sampling: Any,
    ) -> list[Response | InputError]:
        """Return a `Response` or an `InputError` for each question; see `ask` for the arguments."""
        return self.engine.ask(
            _requests(audio, prompt),
            max_new_tokens=max_new_tokens,
            sampling=Sampling(**sampling),
            truncate_prompt=truncate_prompt,
        )

    def whole_answers(
        self,
        audio: Audio | Sequence[Audio],
        prompt: str | Sequence[str],
        max_new_tokens: int = 300,
        truncate_prompt: bool = False,
        hop: float | None = None,
        **sampling: Any,
    ) -> list[WholeAnswer | InputError]:
        """Return a `WholeAnswer` or an `InputError` for each question; see `ask`."""
        options = {"max_new_tokens": max_new_tokens, "truncate_prompt": truncate_prompt}
        options |= {"sampling": Sampling(**sampling)}
        results: list[WholeAnswer | InputError] = []
        recording, windows = None, list[EncodedWindow]()
        for request in _requests(audio, prompt):
            try:
                if request.audio is not recording or not windows:
                    windows = encode_windows(self.engine, request.audio, hop)
                    recording = request.audio
                results += ask_windows(self.engine, [windows], request.prompt, **options)
            except InputError as error:
                results.append(error)
        return results

    def stream(
        self,
        audio: Audio,
        prompt: str,
        max_new_tokens: int = 300,
        truncate_prompt: bool = False,
        **sampling: Any,
    ) -> Iterator[str]:
        """Yield the answer in pieces as they are generated; see `ask` for the arguments."""
        text = TextStream(self.tokenizer)
        for tokens in self.engine.stream(
            audio, prompt, max_new_tokens, Sampling(**sampling), truncate_prompt
        ):
            if piece := text.add(tokens):
                yield piece
        if piece := text.finish():
            yield piece

    def score(
        self,
        audio: Audio,
        prompt: str,
        options: Sequence[str],
        normalize: str = "sum",
        truncate_prompt: bool = False,
        whole: bool = False,
        hop: float | None = None,
    ) -> dict[str, float]:
        """Return each option's probability of being the answer; the probabilities sum to 1.

        Args:
            audio: the recording: a path, samples, ...; see `Audio`.
            prompt: the question.
            options: the answers to choose from, at least two, all different.
            normalize: input of the softmax over the options. `sum`: log-likelihood; `length`:
                log-likelihood divided by the number of tokens; `pmi`: log-likelihood with audio
                minus log-likelihood without audio.
            truncate_prompt: cut a prompt that is too long instead of rejecting it.
            whole: whether to score all of a recording, window by window; see `whole_scores`.
            hop: with `whole`, seconds from the start of a window to the start of the next.

        Raises:
            InputError: there are fewer than two options, two options are equal, an option is empty,
                or `normalize` is unknown; or, with `whole`, the recording is silent.
        """
        if whole:
            scores = self.whole_scores(audio, prompt, options, normalize, truncate_prompt, hop)
            if not scores.options:
                raise InputError("the recording is silent; give one that can be heard")
            return {row.option: getattr(row, NORMALIZE[normalize]) for row in scores.options}
        _check_normalize(normalize)
        prior = normalize == "pmi"
        rows = self.score_details(audio, prompt, options, truncate_prompt, prior)
        return {row.option: getattr(row, NORMALIZE[normalize]) for row in rows}

    def score_details(
        self,
        audio: Audio,
        prompt: str,
        options: Sequence[str],
        truncate_prompt: bool = False,
        prior: bool = True,
    ) -> list[OptionScore]:
        """Return each option's log-likelihood as the answer, and probabilities computed from it.

        If `prior`, log-likelihoods without audio are added. Other arguments and errors are those of
        `score`.
        """
        check_options(options)
        return self._score(audio, prompt, options, options, truncate_prompt, prior)

    def whole_scores(
        self,
        audio: Audio,
        prompt: str,
        options: Sequence[str],
        normalize: str = "sum",
        truncate_prompt: bool = False,
        hop: float | None = None,
    ) -> WholeScores:
        """Return the options' scores for a whole recording, and for each of its windows.

        See `score` for the arguments and errors. A silent recording has no scores.
        """
        check_options(options)
        _check_normalize(normalize)
        windows = encode_windows(self.engine, audio, hop)
        question = (prompt, tuple(options))
        (scores,) = score_windows(self.engine, windows, [question], normalize, truncate_prompt)
        return scores

    def embed(
        self, audio: Audio, chunking: Chunking = "precise", all_layers: bool = False
    ) -> Float32[np.ndarray, "... A E"]:
        """Return the encoder's embeddings of a recording; see `Embedder.embed`."""
        return self._embedder.embed(audio, chunking, all_layers)

    def batch_engine(self, max_new_tokens: int = 128, mesh: Mesh | None = None) -> BatchEngine:
        """Return a batch engine with this model, for answering many requests.

        The devices of a `mesh` share the work, each with a copy of the model. Without a mesh, the
        engine uses the default device and this assistant's audio cache.
        """
        return BatchEngine(
            self.config,
            self.params,
            lambda: self.tokenizer,
            self.name,
            max_new_tokens=max_new_tokens,
            mesh=mesh,
            audio_cache=self.audio_cache if mesh is None else None,
            keep_damaged=self.keep_damaged,
        )

    def encode_prompt(self, prompt: str, truncate: bool = False) -> list[int]:
        """Return the token ids of a prompt; see `PromptEncoder.encode_prompt`."""
        return list(self.engine.prompts.encode_prompt(prompt, truncate))

    def generate_tokens(
        self, audio: Audio, prompt: Sequence[int], max_new_tokens: int = 300, **sampling: Any
    ) -> list[int]:
        """Answer a prompt of token ids; return the answer's token ids, without the end token."""
        return self.generate_token_batch([audio], [prompt], max_new_tokens, **sampling)[0]

    def generate_token_batch(
        self,
        audios: Sequence[Audio],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int = 300,
        **sampling: Any,
    ) -> list[list[int]]:
        """Return the answer's token ids for each pair of a recording and a prompt of token ids."""
        requests = _pair(list(audios), [tuple(prompt) for prompt in prompts])
        responses = self.engine.ask(
            requests, max_new_tokens=max_new_tokens, sampling=Sampling(**sampling)
        )
        return [list(response.tokens) for response in raise_first(responses)]

    def stream_tokens(
        self, audio: Audio, prompt: Sequence[int], max_new_tokens: int = 300, **sampling: Any
    ) -> Iterator[list[int]]:
        """Yield the answer's token ids so far after each new token, without the end token."""
        for tokens in self.engine.stream(audio, prompt, max_new_tokens, Sampling(**sampling)):
            yield list(tokens)

    def score_tokens(
        self,
        audio: Audio,
        prompt: Sequence[int],
        options: Sequence[Sequence[int]],
        names: Sequence[str] | None = None,
        prior: bool = True,
    ) -> list[OptionScore]:
        """Return the log-likelihood and the probabilities of options that are given as token ids.

        `options` have no end tokens. `names` name the options in the result (default: the ids as
        text). If `prior`, log-likelihoods without audio are also computed.
        """
        options = [tuple(option) for option in options]
        if not options or not all(options):
            raise InputError("an option has no tokens: give each at least one")
        names = names or [str(list(option)) for option in options]
        return self._score(audio, tuple(prompt), options, names, False, prior)

    def target_logits(
        self, audio: Audio, prompt: Sequence[int], target: Sequence[int]
    ) -> Float32[np.ndarray, "T V"]:
        """Return the logits that predict each of the T tokens of a given answer, `target`.

        As published, a target of over `config.max_text_tokens` tokens is cut, and the end token is
        appended to a shorter target.
        """
        logits, labels = self._teacher_forced(audio, prompt, target)
        return np.asarray(logits[0, : len(labels)])

    def loss_tokens(self, audio: Audio, prompt: Sequence[int], target: Sequence[int]) -> float:
        """Return the mean cross-entropy in nats of a given answer's tokens, end token included."""
        logits, labels = self._teacher_forced(audio, prompt, target)
        padded = np.zeros((1, logits.shape[1]), np.int32)
        padded[0, : len(labels)] = labels
        return float(label_loss(logits, padded, np.array([len(labels)]), self.config))

    def _score(
        self,
        audio: Audio,
        prompt: str | tuple[int, ...],
        options: Sequence[str] | Sequence[tuple[int, ...]],
        names: Sequence[str],
        truncate_prompt: bool,
        prior: bool,
    ) -> list[OptionScore]:
        """Score options as answers to a prompt with audio and, if `prior`, without audio too."""

        requests = [
            Request(source, prompt, "", tuple(options), score_only=True)
            for source in ((audio, None) if prior else (audio,))
        ]
        responses = raise_first(self.engine.ask(requests, truncate_prompt=truncate_prompt))
        with_audio, *without_audio = (response.log_likelihoods for response in responses)
        lengths = [
            len(self.engine.prompts.encode_text(option, "an option")) + 1 for option in options
        ]
        return to_option_scores(names, lengths, with_audio, *without_audio)

    def _teacher_forced(
        self, audio: Audio, prompt: Sequence[int], target: Sequence[int]
    ) -> tuple[jax.Array, list[int]]:
        """Return the logits (1, padded length, V) for the tokens of `target`, and these tokens."""
        limit = self.config.max_text_tokens
        labels = list(self.engine.prompts.encode_text(target, "the answer")[:limit])
        if len(labels) < limit:
            labels.append(self.config.end_token)
        answer = np.zeros((1, min(round_up(len(labels), SLOT_STEP), limit)), np.int32)
        answer[0, : len(labels)] = labels
        encoded, prompt = (
            self.audio_cache.encode_one(audio),
            self.engine.prompts.encode_prompt(prompt),
        )
        question = pad_questions([encoded], [prompt], self.config)
        num_labels = np.array([len(labels)], np.int32)
        return _answer_logits(self.params, question, answer, num_labels, self.config), labels


def check_options(options: Sequence[str]) -> None:
    """Raise `InputError` unless there are at least two options, all different and not empty."""
    if isinstance(options, str) or len(options) < 2 or len(set(options)) < len(options):
        raise InputError(f"options {options!r}: give at least two, all different")
    for option in options:
        if not option:
            raise InputError(f"option {option!r} is empty: give every option a text")


def _check_normalize(normalize: str) -> None:
    if normalize not in NORMALIZE:
        raise InputError(f"normalize {normalize!r}: use one of {', '.join(NORMALIZE)}")


def _requests(audio: Audio | Sequence[Audio], prompt: str | Sequence[str]) -> list[Request]:
    """Return a request for each question that `Assistant.ask` is given."""
    audios = _as_list(audio, is_one_recording, "recording")
    prompts = _as_list(prompt, _is_text, "prompt")
    if not all(map(_is_text, prompts)):
        raise InputError(f"prompts {prompt!r}: give a text, or a list of texts")
    if is_one_recording(audio):
        audios = audios * len(prompts)
    if isinstance(prompt, str):
        prompts = prompts * len(audios)
    if not audios and not prompts:
        raise InputError("0 recordings and 0 prompts: give at least one of each")
    return _pair(audios, prompts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _as_list(value: Any, is_one: Callable[[Any], bool], name: str) -> list[Any]:
    """Return one recording or prompt, or a sequence of them, as a list.

    Raises:
        InputError: `value` is neither; the message calls what is expected `name`.
    """
    if is_one(value):
        return [value]
    if not isinstance(value, Iterable):
        raise InputError(f"{value!r} is not a {name}: give a {name}, or a list of them")
    return list(value)


def _pair(audios: Sequence[Audio], prompts: Sequence[Any]) -> list[Request]:
    """Return a request for each pair of a recording and a prompt."""
    if len(audios) != len(prompts):
        raise InputError(
            f"{len(audios)} recordings and {len(prompts)} prompts: give one prompt for all, or "
            "one for each"
        )
    return [Request(audio, prompt) for audio, prompt in zip(audios, prompts, strict=True)]
