"""Many questions put to a model: in few compiled shapes, each recording listened to once."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tinymu_jax.answering import LONGEST
from tinymu_jax.assistant import Assistant
from tinymu_jax.audio import Clip
from tinymu_jax.batching import (
    MAX_BATCH,
    SLOT_STEP,
    go_on,
    pad_questions,
    read_answer,
    start_answers,
)
from tinymu_jax.errors import InputError
from tinymu_jax.generate import Sampling
from tinymu_jax.hearing import REMEMBERED, Heard
from tinymu_jax.padding import round_up
from tinymu_jax.scoring import option_log_likelihoods, pack_options

Progress = Callable[[int, int], Any]
GREEDY = Sampling()


class Asking(NamedTuple):
    """A question as it is put."""

    audio: Path | None
    """The recording; None: nothing is heard, as in the prior of `tinymu_jax.scoring`."""
    prompt: str
    task: str
    """Answers of one format are about as long, and computed side by side."""
    options: tuple[str, ...] = ()
    """Given answers to score as well."""
    choose: bool = False
    """Nothing is said: the most probable of the options is the answer."""


class Reply(NamedTuple):
    """What came back."""

    text: str
    log_likelihoods: tuple[float, ...] = ()
    """Of the options: see `tinymu_jax.scoring.OptionScore`."""
    cut: bool = False
    """Whether the recording is longer than what was heard of it."""


class Asker(Protocol):
    """What can be evaluated: anything that answers questions."""

    def ask(self, asked: Sequence[Asking], progress: Progress) -> list[Reply]:
        """Returns the reply to each question; `progress` gets those done, and all."""


class _Waiting(NamedTuple):
    """A question that waits for others of its size."""

    number: int
    heard: Heard
    ids: list[int]


class BatchAsker:
    """Puts questions to an `Assistant`, greedily; each answer is what its clip gets alone."""

    def __init__(self, model: Assistant, max_new_tokens: int = 128) -> None:
        """Takes the model, and how long an answer may be.

        Raises:
            InputError: no such length.
        """
        if not 1 <= max_new_tokens <= LONGEST:
            raise InputError(f"max_new_tokens is {max_new_tokens}: give 1 to {LONGEST}")
        self.model, self.max_new_tokens = model, max_new_tokens
        nothing = np.zeros((0, model.config.decoder.width), np.float32)
        self._silence = Heard(nothing, Clip(np.zeros(0, np.float32), 0.0, 0.0))

    def ask(
        self, asked: Sequence[Asking], progress: Progress = lambda done, total: None
    ) -> list[Reply]:
        """Asks; questions that stand together and have one recording listen to it once.

        Args:
            asked: the questions, those on one recording together.
            progress: called with the number of answers so far, and of all.

        Raises:
            InputError: a recording or a prompt that cannot be used; no tokenizer.
        """
        texts: dict[int, str] = {}
        others: list[tuple[tuple[float, ...], bool]] = []
        queues: dict[tuple[str, int], list[_Waiting]] = {}
        for number, (question, heard) in enumerate(zip(asked, self._hear(asked), strict=True)):
            ids = self._encode(question.prompt)
            cut = heard.clip.heard_seconds < heard.clip.total_seconds
            scores = self._score(heard, ids, question.options)
            others.append((scores, cut))
            if question.choose:
                texts[number] = question.options[int(np.argmax(scores))]
                continue
            size = question.task, round_up(len(ids), SLOT_STEP)
            queue = queues.setdefault(size, [])
            queue.append(_Waiting(number, heard, ids))
            if len(queue) == MAX_BATCH:
                texts |= self._answer(queues.pop(size))
                progress(len(texts), len(asked))
        # What is left of each size fills few batches together.
        rest = [one for size in sorted(queues, key=lambda s: (s[1], s[0])) for one in queues[size]]
        for start in range(0, len(rest), MAX_BATCH):
            texts |= self._answer(rest[start : start + MAX_BATCH])
            progress(len(texts), len(asked))
        if not rest:
            progress(len(asked), len(asked))
        return [Reply(texts[number], *other) for number, other in enumerate(others)]

    def _hear(self, asked: Sequence[Asking]) -> Iterator[Heard]:
        """Yields what is heard for each question, some recordings at a time."""
        runs = [(audio, len(list(run))) for audio, run in groupby(one.audio for one in asked)]
        for start in range(0, len(runs), REMEMBERED):
            window = runs[start : start + REMEMBERED]
            audios = list(dict.fromkeys(audio for audio, _ in window if audio is not None))
            heard = dict(zip(audios, self.model.hearing.hear(audios), strict=True))
            for audio, count in window:
                found = self._silence if audio is None else heard[audio]
                if isinstance(found, InputError):
                    raise found
                yield from repeat(found, count)

    def _encode(self, prompt: str) -> list[int]:
        """Returns a prompt's tokens if the model can take them all."""
        ids, limit = self.model.encode_prompt(prompt), self.model.config.max_text_tokens
        if len(ids) > limit:
            raise InputError(
                f"{prompt!r}: has {len(ids)} tokens, the model takes {limit}; evaluate with the "
                "tokenizer that the model was trained with"
            )
        return ids

    def _score(self, heard: Heard, ids: list[int], options: Sequence[str]) -> tuple[float, ...]:
        """Returns the log-likelihood of each option, if there are any."""
        if not options:
            return ()
        config = self.model.config
        encoded = [self.model.tokenizer.encode(option) for option in options]
        packed = pack_options(encoded, config.end_token)
        question = pad_questions([heard], [ids], config)
        found = option_log_likelihoods(self.model.params, question, packed, config=config)
        return tuple(np.asarray(found, np.float64).tolist())

    def _answer(self, batch: Sequence[_Waiting]) -> dict[int, str]:
        """Answers a batch, filled up to the size of all others; returns the texts by number."""
        rows = [*batch, *repeat(batch[-1], MAX_BATCH - len(batch))]
        config, limit = self.model.config, self.max_new_tokens
        heard, ids = [row.heard for row in rows], [row.ids for row in rows]
        state = start_answers(self.model.params, heard, ids, limit, GREEDY, config)
        state = go_on(self.model.params, state, limit, GREEDY, config)
        decode = self.model.tokenizer.decode
        return {
            one.number: decode(read_answer(state, row, limit, config)[0])
            for row, one in enumerate(batch)
        }
