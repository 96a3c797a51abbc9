"""Finds the recordings in an index that fit words, by asking a model about a shortlist."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.audio.load import Clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.audio.windows import read_windows
from tinymu_jax.errors import InputError, note
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.engine import Request, Response
from tinymu_jax.library.index_file import Index
from tinymu_jax.library.indexing import ErrorHandler
from tinymu_jax.library.packets import audio_fingerprint
from tinymu_jax.library.search import nearest
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.jsonl import JsonlLog
from tinymu_jax.utils.progress import Progress, no_progress

PROMPT = "Is it {}?"
"""Question about the words, which stand for {}."""
ANSWERS = ("Yes.", "No.")
BUDGET = 200
SAMPLE_SHARE = 4
"""One in this many of the asked recordings is drawn at random; the others are near the best."""
ROUND = 16
"""Recordings that are asked about together."""
NUM_BEST = 10
"""Number of the best recordings whose neighbours are asked about next."""


class Fit(NamedTuple):
    """A recording, and how well it fits the words."""

    file: str
    probability: float
    """Probability of the answer yes, of yes and no."""
    start: float
    """Start of the window that the model is asked about, in seconds."""
    end: float


class WordSearch:
    """Asks a model whether recordings fit words; answers are stored beside the index.

    The file "<index>.scores.jsonl" has a line for each recording, question and model. A question
    that is in it is not asked again.
    """

    def __init__(
        self, index: Index, model: Assistant, on_error: ErrorHandler = lambda recording, error: None
    ) -> None:
        """Open the stored answers.

        `on_error` is called with each recording that cannot be used, and the error.

        Raises:
            InputError: the file of stored answers is damaged.
        """
        self.index, self.model, self.on_error = index, model, on_error
        self._fingerprint = fingerprint.of_weights(model.params)
        self.log = JsonlLog(
            index.path.with_name(f"{index.path.name}.scores.jsonl"),
            lambda row: float(row["log_odds"]),
            "a stored answer",
            "remove the line or the file",
        )
        self._stored = self.log.read()

    def find(
        self,
        words: str,
        top: int = 20,
        budget: int = BUDGET,
        prompt: str = PROMPT,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> list[Fit]:
        """Return the recordings that fit words best, of those asked about, best first.

        A quarter of the budget goes to recordings drawn at random, the rest to those that are
        nearest to the best so far. Of each recording, the window nearest to the mean of all windows
        is used.

        Args:
            words: the words, such as "calm piano".
            top: number of recordings to return.
            budget: number of recordings to ask about, or whose stored answers to use.
            prompt: the question, with {} for the words.
            seed: seed of the random recordings.
            progress: called with the numbers of recordings asked about so far, and in all.

        Raises:
            InputError: an argument is out of range, or `prompt` has no {}.
        """
        if not words.strip():
            raise InputError('no words: search for something such as "calm piano"')
        for name, value in (("top", top), ("budget", budget)):
            if value < 1:
                raise InputError(f"{name} is {value}; give 1 or more")
        if "{}" not in prompt:
            raise InputError(f"prompt {prompt!r}: give a question with {{}} in place of the words")
        question = prompt.replace("{}", words)
        self.model.encode_prompt(question)
        with ExitStack() as stack:
            try:
                stack.enter_context(self.log.writing())
                store = self.log.append
            except InputError as error:
                note(f"answers are not stored: {error}")
                store = _store_nothing
            scores = self._search(question, budget, seed, store, progress)
        fits = [
            Fit(self.index.place(number), 1 / (1 + float(np.exp(-score))), *self._span(number))
            for number, score in scores.items()
        ]
        return sorted(fits, key=lambda fit: (-round(fit.probability, 5), fit.file))[:top]

    def _search(
        self,
        question: str,
        budget: int,
        seed: int,
        store: Callable[[Sequence[dict[str, Any]]], None],
        progress: Progress,
    ) -> dict[int, float]:
        """Return the scores of up to `budget` recordings by their numbers in the index."""
        index = self.index
        contents = {r.content: number for number, r in reversed(list(enumerate(index.files)))}
        # The order depends on the seed and the contents alone, not on names.
        order = sorted(contents, key=lambda content: fingerprint.of_text(f"{seed} {content}"))
        left = [n for n in map(contents.__getitem__, order) if not self._is_silent(n)]
        budget = min(budget, len(left))
        scores: dict[int, float] = {}
        asked, sample = 0, max(ROUND, budget // SAMPLE_SHARE)
        while asked < budget:
            progress(asked, budget)
            if asked >= sample and scores:
                best = sorted(scores, key=lambda n: (-scores[n], n))[:NUM_BEST]
                similarity, _ = nearest(
                    index.recordings, index.recording_norms, index.recordings[best]
                )
                left = sorted(left, key=lambda n: -similarity[n].round(5))
            batch, left = left[: min(ROUND, budget - asked)], left[min(ROUND, budget - asked) :]
            asked += len(batch)
            scores |= self._scores(question, batch, store)
        progress(budget, budget)
        return scores

    def _scores(
        self, question: str, numbers: Sequence[int], store: Callable[..., None]
    ) -> dict[int, float]:
        """Return the log-odds of yes for recordings, without those that cannot be used."""
        keys = {number: self._key(question, number) for number in numbers}
        scores = {n: self._stored[key] for n, key in keys.items() if key in self._stored}
        clips = dict(self._clips([number for number in numbers if number not in scores]))
        requests = [
            Request(clip, question, "", ANSWERS, score_only=True) for clip in clips.values()
        ]
        rows = []
        for number, response in zip(clips, self.model.engine.ask(requests), strict=True):
            if not isinstance(response, Response):
                self.on_error(self.index.place(number), response)
                continue
            yes, no = response.log_likelihoods
            scores[number] = yes - no
            file = self.index.files[number].file
            rows.append({"key": keys[number], "file": file, "question": question})
            rows[-1]["log_odds"] = scores[number]
        store(rows)
        self._stored |= {row["key"]: row["log_odds"] for row in rows}
        return {number: scores[number] for number in numbers if number in scores}

    def _key(self, question: str, number: int) -> str:
        content, (start, end) = self.index.files[number].content, self._span(number)
        return fingerprint.of_text(f"{self._fingerprint} {content} {start}-{end} {question}")

    def _clips(self, numbers: Sequence[int]) -> Iterator[tuple[int, Clip]]:
        """Yield recordings' typical windows, without recordings that cannot be used."""
        limit = int(self.model.max_seconds * SAMPLE_RATE)
        for number in numbers:
            path, seconds = self.index.place(number), self.index.files[number].seconds
            try:
                if audio_fingerprint(path) != self.index.files[number].content:
                    raise InputError(f"{path}: changed since it was indexed; run index --update")
                windows = read_windows(
                    path, self.index.info.seconds, keep_damaged=self.model.keep_damaged
                )
                window = next(islice(windows, self._typical(number), None))
            except InputError as error:
                self.on_error(path, error)
                continue
            samples = window.samples[:limit]
            yield number, Clip(samples, len(samples) / SAMPLE_RATE, seconds)

    def _is_silent(self, number: int) -> bool:
        return bool(self.index.window_silent[self.index.rows(number)].all())

    def _typical(self, number: int) -> int:
        """Return the number of a recording's audible window that is nearest to its mean."""
        rows = self.index.rows(number)
        windows, mean = self.index.windows[rows], self.index.recordings[number]
        products = windows.astype(np.float32) @ mean.astype(np.float32)
        cosines = products / self.index.window_norms[rows]
        return int(np.where(self.index.window_silent[rows], -np.inf, cosines.round(5)).argmax())

    def _span(self, number: int) -> tuple[float, float]:
        row = self.index.rows(number).start + self._typical(number)
        start, end = (round(float(second), 3) for second in self.index.window_spans[row])
        return start, end


def _store_nothing(rows: Sequence[dict[str, Any]]) -> None:
    """Do nothing; takes the place of a log that cannot be written."""
