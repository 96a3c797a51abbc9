"""Many questions put to a model: in few compiled shapes, each recording listened to once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tinymu_jax.audio.load import Clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import LONGEST, Assistant
from tinymu_jax.inference.audio_cache import CACHE_SIZE, AudioCache, EncodedAudio
from tinymu_jax.inference.generate import (
    MAX_BATCH,
    SLOT_STEP,
    Sampling,
    decode_until,
    prefill_batch,
    read_tokens,
)
from tinymu_jax.inference.scoring import Compared, OptionScorer
from tinymu_jax.utils.shapes import round_up

Progress = Callable[[int, int], Any]

GREEDY = Sampling()


class Request(NamedTuple):
    """A question as it is put."""

    audio: Path | None
    """The recording; None: nothing is heard, as in the prior of `tinymu_jax.inference.option_scoring`."""
    prompt: str
    task: str
    """Answers of one format are about as long, and computed side by side."""
    options: tuple[str, ...] = ()
    """Given answers to score as well."""
    score_only: bool = False
    """Nothing is said: the most probable of the options is the answer."""


class Response(NamedTuple):
    """What came back."""

    text: str
    log_likelihoods: tuple[float, ...] = ()
    """Of the options: see `tinymu_jax.inference.option_scoring.OptionScore`."""
    cut: bool = False
    """Whether the recording is longer than what was heard of it."""


class Engine(Protocol):
    """What can be evaluated: anything that answers questions."""

    def ask(self, asked: Sequence[Request], progress: Progress) -> list[Response | InputError]:
        """Returns the reply to each question, or what is wrong with its recording or prompt.

        `progress` gets the number of those done, and of all.
        """


class _Waiting(NamedTuple):
    """A question that waits for others of its size."""

    number: int
    heard: EncodedAudio
    ids: list[int]


class BatchEngine:
    """Puts questions to an `Assistant`, greedily; each answer is what its clip gets alone."""

    def __init__(
        self, model: Assistant, max_new_tokens: int = 128, mesh: Mesh | None = None
    ) -> None:
        """Takes the model, how long an answer may be, and devices to share the work.

        Args:
            model: the assistant.
            max_new_tokens: of an answer.
            mesh: of this process; the model is copied to each device. None: where it lies.

        Raises:
            InputError: no such length.
        """
        if not 1 <= max_new_tokens <= LONGEST:
            raise InputError(f"max_new_tokens is {max_new_tokens}: give 1 to {LONGEST}")
        self.model, self.max_new_tokens, self.mesh = model, max_new_tokens, mesh
        self.params, self.audio_cache = model.params, model.audio_cache
        if mesh is not None:
            self.params = jax.device_put(model.params, NamedSharding(mesh, PartitionSpec()))
            self.audio_cache = AudioCache(model.config, self.params, mesh)
        nothing = np.zeros((0, model.config.decoder.width), np.float32)
        self._silence = EncodedAudio(nothing, Clip(np.zeros(0, np.float32), 0.0, 0.0))

    def ask(
        self, asked: Sequence[Request], progress: Progress = lambda done, total: None
    ) -> list[Response | InputError]:
        """Asks; questions that stand together and have one recording listen to it once.

        Args:
            asked: the questions, those on one recording together.
            progress: called with the number of answers so far, and of all.

        Returns:
            A reply to each; the fault of a recording or a prompt in its place.

        Raises:
            InputError: no tokenizer.
        """
        self.model.tokenizer  # noqa: B018 - a missing one is no fault of a question
        run = _Run(self, asked, progress)
        for heard, together in self._hear(asked):
            run.take(heard, together)
        return run.finish()

    def _hear(
        self, asked: Sequence[Request]
    ) -> Iterator[tuple[EncodedAudio | InputError, list[int]]]:
        """Yields what is heard with the numbers of its questions, some recordings at a time."""
        numbered = groupby(range(len(asked)), key=lambda number: asked[number].audio)
        runs = [(audio, list(run)) for audio, run in numbered]
        for start in range(0, len(runs), CACHE_SIZE):
            window = runs[start : start + CACHE_SIZE]
            audios = list(dict.fromkeys(audio for audio, _ in window if audio is not None))
            heard = dict(zip(audios, self.audio_cache.encode(audios), strict=True))
            for audio, together in window:
                yield self._silence if audio is None else heard[audio], together

    def encode(self, prompt: str) -> list[int]:
        """Returns a prompt's tokens.

        Raises:
            InputError: the model cannot take them all.
        """
        ids, limit = self.model.encode_prompt(prompt), self.model.config.max_text_tokens
        if len(ids) > limit:
            raise InputError(
                f"{prompt!r}: has {len(ids)} tokens, the model takes {limit}; evaluate with the "
                "tokenizer that the model was trained with"
            )
        return ids

    def encode_option(self, option: str) -> list[int]:
        """Returns an option's tokens, with the end token."""
        return [*self.model.tokenizer.encode(option), self.model.config.end_token]

    def answer(self, heard: Sequence[EncodedAudio], prompts: Sequence[list[int]]) -> list[str]:
        """Answers a batch, filled up to the size of all others."""
        filling = MAX_BATCH - len(heard)
        rows = [*heard, *repeat(heard[-1], filling)], [*prompts, *repeat(prompts[-1], filling)]
        config, limit = self.model.config, self.max_new_tokens
        state = prefill_batch(self.params, *rows, limit, GREEDY, config, self.mesh)
        state = decode_until(self.params, state, limit, GREEDY, config)
        decode = self.model.tokenizer.decode
        return [decode(read_tokens(state, row, limit, config)[0]) for row, _ in enumerate(heard)]


class _Run:
    """The replies of one call while they come in."""

    def __init__(self, asker: BatchEngine, asked: Sequence[Request], progress: Progress) -> None:
        self.asker, self.asked, self.progress = asker, asked, progress
        self.scorer = OptionScorer(asker.params, asker.model.config, asker.mesh)
        self.queues: dict[tuple[str, int], list[_Waiting]] = {}
        self.texts: dict[int, str] = {}
        self.scores: dict[int, tuple[float, ...]] = {}
        self.cut: dict[int, bool] = {}
        self.faults: dict[int, InputError] = {}

    def take(self, heard: EncodedAudio | InputError, numbers: Sequence[int]) -> None:
        """Takes the questions on one recording; computes what then fills rows or batches."""
        if isinstance(heard, InputError):
            self.faults |= dict.fromkeys(numbers, heard)
            return
        compared = []
        for number in numbers:
            one = self.asked[number]
            try:
                ids = self.asker.encode(one.prompt)
            except InputError as error:
                self.faults[number] = error
                continue
            self.cut[number] = heard.clip.encoded_seconds < heard.clip.total_seconds
            if one.options:
                options = [self.asker.encode_option(option) for option in one.options]
                compared.append(Compared(number, ids, options))
            if not one.score_only:
                self._queue(_Waiting(number, heard, ids))
        self._count(self.scorer.add(heard, compared))

    def finish(self) -> list[Response | InputError]:
        """Computes what is left, and returns all replies."""
        self._count(self.scorer.finish())
        # What is left of each size fills few batches together.
        order = sorted(self.queues, key=lambda size: (size[1], size[0]))
        rest = [one for size in order for one in self.queues[size]]
        for start in range(0, len(rest), MAX_BATCH):
            self._answer(rest[start : start + MAX_BATCH])
        return [
            self.faults[number]
            if number in self.faults
            else Response(self.texts[number], self.scores.get(number, ()), self.cut[number])
            for number in range(len(self.asked))
        ]

    def _queue(self, one: _Waiting) -> None:
        """Lets a question wait until a batch of its size is full."""
        size = self.asked[one.number].task, round_up(len(one.ids), SLOT_STEP)
        queue = self.queues.setdefault(size, [])
        queue.append(one)
        if len(queue) == MAX_BATCH:
            self._answer(self.queues.pop(size))

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        found = self.asker.answer([one.heard for one in batch], [one.ids for one in batch])
        self.texts |= {one.number: text for one, text in zip(batch, found, strict=True)}
        self.progress(len(self.texts), len(self.asked))

    def _count(self, scored: Iterable[tuple[int, tuple[float, ...]]]) -> None:
        """Keeps scores; where nothing is said, the most probable option is the answer."""
        before = len(self.texts)
        for number, own in scored:
            self.scores[number] = own
            if self.asked[number].score_only:
                self.texts[number] = self.asked[number].options[int(np.argmax(own))]
        if len(self.texts) > before:
            self.progress(len(self.texts), len(self.asked))
