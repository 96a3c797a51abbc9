"""Answers many requests about recordings in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tinymu_jax.audio.load import Clip
from tinymu_jax.audio.windows import is_silent
from tinymu_jax.errors import InputError
from tinymu_jax.inference.audio_cache import CACHE_SIZE, AudioCache, EncodedAudio
from tinymu_jax.inference.embedder import Audio
from tinymu_jax.inference.generate import MAX_BATCH, SLOT_STEP, Sampling, generate
from tinymu_jax.inference.prompts import PromptEncoder
from tinymu_jax.inference.scoring import OptionScorer, OptionSet
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.progress import Progress, no_progress
from tinymu_jax.utils.shapes import round_up

MAX_NEW_TOKENS = 8192
"""Upper limit for `max_new_tokens`: the decoder was trained on sequences of up to this length."""
GREEDY = Sampling()


class Request(NamedTuple):
    """A prompt about a recording, to be answered with text or, if `score_only`, with an option."""

    audio: Audio | EncodedAudio | None
    """The recording (a path, 16 kHz samples or a clip), which may be encoded already; None: the
    decoder gets no audio."""
    prompt: str | tuple[int, ...]
    """The prompt's text or token ids."""
    task: str = ""
    """Name of the task; requests of one task share batches, since their answers are similarly
    long."""
    options: tuple[str | tuple[int, ...], ...] = ()
    """Possible answers, as texts or token ids, for which log-likelihoods are computed."""
    score_only: bool = False
    """Whether to answer with the most probable option instead of generating an answer."""


class Response(NamedTuple):
    """The answer to a request, and the log-likelihoods of the request's options."""

    text: str | None
    """The generated text or, with `score_only`, the most probable option; None for token ids."""
    log_likelihoods: tuple[float, ...] = ()
    """Log-likelihood of each option of the request, including the end token."""
    tokens: tuple[int, ...] = ()
    """Token ids of the generated answer, without the end token."""
    ended: bool = False
    """Whether the end token was generated within `max_new_tokens`."""
    encoded_seconds: float = 0.0
    """Seconds of the recording that were encoded."""
    total_seconds: float = 0.0
    damage: str | None = None
    """What is wrong with a damaged recording, of which only a part was encoded."""
    silent: bool = False
    """Whether the encoded part is silence, about which any answer is invented."""

    @property
    def cut(self) -> bool:
        """Whether only the beginning of the recording was encoded."""
        return self.encoded_seconds < self.total_seconds


class Engine(Protocol):
    """Interface of engines that answer requests."""

    def ask(self, requests: Sequence[Request], progress: Progress) -> list[Response | InputError]:
        """Return a response or an error for each request; see `BatchEngine.ask` for `progress`."""


def raise_first(responses: Sequence[Any]) -> list[Any]:
    """Return what an engine returned, a list of responses, or raise the first error in it."""
    for response in responses:
        if isinstance(response, InputError):
            raise response
    return list(responses)


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Raise `InputError` unless `max_new_tokens` is an integer from 1 to `MAX_NEW_TOKENS`."""
    if not isinstance(max_new_tokens, Integral) or not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise InputError(
            f"max_new_tokens is {max_new_tokens}: ask for at least 1 and at most {MAX_NEW_TOKENS}"
        )


class BatchEngine:
    """Answers requests in batches; an answer does not depend on other requests in its batch."""

    def __init__(
        self,
        config: TinyMUConfig,
        params: Any,
        find_tokenizer: Callable[[], Tokenizer] | None = None,
        name: str = "this checkpoint",
        *,
        max_new_tokens: int = 128,
        mesh: Mesh | None = None,
        audio_cache: AudioCache | None = None,
        keep_damaged: bool = False,
    ) -> None:
        """Build an engine from a model.

        `params` have stacked layers, as in a checkpoint, or the layout of `inference.param_layout`;
        they are replicated on `mesh`. `find_tokenizer` is called when text is first encoded or
        decoded. `name` is the checkpoint's name in error messages. `audio_cache` is a cache to
        share with another engine. `keep_damaged` is whether to use what can be read of damaged
        recordings.
        """
        check_max_new_tokens(max_new_tokens)
        if mesh is not None:
            params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        self.config, self.params, self.mesh = config, params, mesh
        self.max_new_tokens = max_new_tokens
        self.audio_cache = audio_cache or AudioCache(config, params, mesh, keep_damaged)
        self.prompts = PromptEncoder(config, find_tokenizer, name)

    def ask(
        self,
        requests: Sequence[Request],
        progress: Progress = no_progress,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        truncate_prompt: bool = False,
    ) -> list[Response | InputError]:
        """Return a response or an error for each request.

        Requests about the same recording should be consecutive, so that it is encoded once.
        `progress` is called with the numbers of answered requests and of all requests.

        Raises:
            InputError: `max_new_tokens` is out of range; there is no tokenizer.
        """
        limit = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        check_max_new_tokens(limit)
        if any(isinstance(request.prompt, str) for request in requests):
            self.prompts.tokenizer  # noqa: B018 - if it is missing, `ask` fails, not each request
        run = _Run(self, requests, progress, limit, sampling, truncate_prompt)
        for audio, indices in self._encode_audio(requests, list(run.prompts)):
            run.add(audio, indices)
        return run.finish()

    def stream(
        self,
        audio: Audio,
        prompt: str | Sequence[int],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        truncate_prompt: bool = False,
    ) -> Iterator[tuple[int, ...]]:
        """Yield the answer's token ids so far after each new token, without the end token."""
        check_max_new_tokens(max_new_tokens)
        rows = (
            [self.audio_cache.encode_one(audio)],
            [self.prompts.encode_prompt(prompt, truncate_prompt)],
        )
        batches = generate(
            self.params, *rows, max_new_tokens, sampling, self.config, stride=1, mesh=self.mesh
        )
        for ((tokens, _),) in batches:
            yield tokens

    def _encode_audio(
        self, requests: Sequence[Request], indices: Sequence[int]
    ) -> Iterator[tuple[EncodedAudio | InputError, list[int]]]:
        """Yield each recording's audio vectors or error, with the indices of the requests about it.

        `indices` are those of the requests to encode; the others are left out.
        """

        def identity(index: int) -> Any:
            audio = requests[index].audio
            return audio if audio is None or isinstance(audio, str | Path) else id(audio)

        width = self.config.decoder.width
        silence = EncodedAudio(
            jax.numpy.zeros((0, width)), 0, Clip(np.zeros(0, np.float32), 0.0, 0.0)
        )
        runs = [list(run) for _, run in groupby(indices, key=identity)]
        for start in range(0, len(runs), CACHE_SIZE):
            window = runs[start : start + CACHE_SIZE]
            audios = [requests[run[0]].audio for run in window]
            encoded = iter(self.audio_cache.encode(a for a in audios if a is not None))
            for audio, run in zip(audios, window, strict=True):
                yield silence if audio is None else next(encoded), run


class _Run:
    """State of one `BatchEngine.ask` call: waiting requests and finished results."""

    def __init__(
        self,
        engine: BatchEngine,
        requests: Sequence[Request],
        progress: Progress,
        max_new_tokens: int,
        sampling: Sampling,
        truncate_prompt: bool,
    ) -> None:
        self.engine, self.requests, self.progress = engine, requests, progress
        self.max_new_tokens, self.sampling = max_new_tokens, sampling
        self.scorer = OptionScorer(engine.params, engine.config, engine.mesh)
        # (task, padded prompt length) -> indices of requests that wait for a full batch.
        self.queues: dict[tuple[str, int], list[int]] = {}
        # Several batches are padded to the same number of rows, so that fewer shapes are compiled.
        self.rows = 1 if engine.mesh is None and len(requests) <= MAX_BATCH else MAX_BATCH
        self.prompts: dict[int, tuple[int, ...]] = {}
        self.options: dict[int, list[tuple[int, ...]]] = {}
        self.errors: dict[int, InputError] = {}
        self.audio: dict[int, EncodedAudio] = {}  # entries are kept until the answer is generated
        # Encoded and total seconds, what is wrong with the recording, and whether it is silent.
        self.durations: dict[int, tuple[float, float, str | None, bool]] = {}
        self.answers: dict[int, tuple[tuple[int, ...], bool]] = {}
        self.scores: dict[int, tuple[float, ...]] = {}
        self.num_done = 0
        for index, request in enumerate(requests):
            try:
                prompt = engine.prompts.encode_prompt(request.prompt, truncate_prompt)
                options = [engine.prompts.encode_text(o, "an option") for o in request.options]
            except InputError as error:
                self.errors[index] = error
                continue
            self.prompts[index] = prompt
            self.options[index] = [(*option, engine.config.end_token) for option in options]

    def add(self, audio: EncodedAudio | InputError, indices: Sequence[int]) -> None:
        """Queue the requests (by index) about one recording, and answer batches that are full."""
        if isinstance(audio, InputError):
            self.errors |= dict.fromkeys(indices, audio)
            return
        samples, *seconds_and_damage = audio.clip
        silent = len(samples) > 0 and is_silent(samples)
        self.durations |= dict.fromkeys(indices, (*seconds_and_damage, silent))
        sets = [OptionSet(i, self.prompts[i], self.options[i]) for i in indices if self.options[i]]
        self._take_scores(self.scorer.add(audio, sets))
        for index in indices:
            if self.requests[index].score_only:
                continue
            self.audio[index] = audio
            size = self.requests[index].task, round_up(len(self.prompts[index]), SLOT_STEP)
            queue = self.queues.setdefault(size, [])
            queue.append(index)
            if len(queue) == MAX_BATCH:
                self._generate(self.queues.pop(size))

    def finish(self) -> list[Response | InputError]:
        """Answer all queued requests; return the response or error of each request."""
        self._take_scores(self.scorer.finish())
        # Waiting requests of different tasks, sorted by prompt length, share batches.
        sizes = sorted(self.queues, key=lambda size: (size[1], size[0]))
        rest = [index for size in sizes for index in self.queues[size]]
        for start in range(0, len(rest), MAX_BATCH):
            self._generate(rest[start : start + MAX_BATCH])
        return [self.errors.get(i) or self._response(i) for i in range(len(self.requests))]

    def _response(self, index: int) -> Response:
        request, scores = self.requests[index], self.scores.get(index, ())
        tokens, ended = self.answers.get(index, ((), False))
        text = None
        if request.score_only:
            best = request.options[int(np.argmax(scores))]
            text = best if isinstance(best, str) else None
        elif isinstance(request.prompt, str):
            text = self.engine.prompts.tokenizer.decode(tokens)
        return Response(text, scores, tokens, ended, *self.durations[index])

    def _generate(self, indices: Sequence[int]) -> None:
        engine = self.engine
        (answers,) = generate(
            engine.params,
            [self.audio.pop(index) for index in indices],
            [self.prompts[index] for index in indices],
            self.max_new_tokens,
            self.sampling,
            engine.config,
            rows=self.rows,
            mesh=engine.mesh,
        )
        self.answers |= dict(zip(indices, answers, strict=True))
        self._advance(len(indices))

    def _take_scores(self, scores: Iterable[tuple[int, tuple[float, ...]]]) -> None:
        scores = dict(scores)
        self.scores |= scores
        self._advance(sum(self.requests[index].score_only for index in scores))

    def _advance(self, count: int) -> None:
        if count:
            self.num_done += count
            self.progress(self.num_done, len(self.requests))
