"""What happens when a button of the page is pressed.

A handler takes and returns the state of one browser session, so that sessions do not mix.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.audio.plot import log_mel_png
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import make_clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.engine import Request, raise_first
from tinymu_jax.inference.whole_recording import (
    WholeAnswer,
    WindowAnswer,
    best_supported,
    encode_windows,
    window_answers,
)
from tinymu_jax.library.description import DescribeOptions, Description, describe_recordings
from tinymu_jax.library.fields import read_fields
from tinymu_jax.server import page_html as html
from tinymu_jax.server.page_html import Answer
from tinymu_jax.server.track import Track, read_track

EXAMPLE_WINDOWS = 3
"""Length of the synthetic clip that the page offers, in windows of the model."""
WINDOW_BATCH = 4
"""Number of windows of the timeline that are answered together."""
MAX_NEW_TOKENS = 300
"""Maximum number of tokens of an answer."""
NO_RECORDING = "There is no recording yet: drop or record one above."
BUSY = gr.update(interactive=False), gr.update(visible=True)
"""Updates of a button and its stop button while the answer is being computed."""
IDLE = gr.update(interactive=True), gr.update(visible=False)
Item = TypeVar("Item")


class Handlers:
    """The page's handlers for one model; see `page.build_page` for the arguments."""

    def __init__(
        self,
        assistant: Assistant,
        name: str,
        describe: Callable[[str], Description] | None,
        lock: AbstractContextManager,
    ) -> None:
        self.assistant, self.name, self.describe, self.lock = assistant, name, describe, lock
        self._uploads = _Uploads()

    def open(self, path: str | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Read a recording, and yield its picture; results of another one are cleared.

        The outputs are the views and the states of `page._lay_out`.
        """
        self._uploads.use(request.session_hash, path)
        if path is None:
            yield _opened("")
            return
        yield _opened(html.hint(f"Reading {Path(path).name} …"))
        seconds = self.assistant.max_seconds
        try:
            track, log_mel = read_track(path, seconds, self.lock, self.assistant.keep_damaged)
        except InputError as error:
            yield _opened(html.notice(_sentence(error, path)))
            return
        view = html.track_picture(track.name, track.seconds, seconds, log_mel_png(log_mel))
        if track.silent:
            view += html.notice(_silence(track))
        yield _opened(view, track)

    def close(self, request: gr.Request) -> None:
        """Delete the recording of a session that has ended."""
        self._uploads.use(request.session_hash, None)

    def synthesize(self) -> tuple[int, np.ndarray]:
        """Return the sample rate and the samples of a synthetic clip of several windows."""
        seconds = self.assistant.max_seconds
        rng = np.random.default_rng()
        configs = [
            SynthesisConfig(seconds=seconds, seed=int(rng.integers(1 << 30)))
            for _ in range(EXAMPLE_WINDOWS)
        ]
        return SAMPLE_RATE, np.concatenate([make_clip(config, 0)[1] for config in configs])

    def ask(
        self, track: Track | None, question: str, log: list[Answer]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the log of questions while the newest is being answered."""
        try:
            _check(track, start_only=True)
            answer = Answer(question.strip(), "")
            pieces = self.assistant.stream(track.path, answer.question, MAX_NEW_TOKENS)
            for piece in self._in_turns(pieces, ""):
                answer = answer._replace(answer=answer.answer + piece)
                newest = [answer, *log]
                yield html.answers(newest, writing=True), newest, *BUSY
            yield html.answers(newest), newest, *IDLE
        except InputError as error:
            yield html.notice(_sentence(error, track)) + html.answers(log), log, *IDLE

    def score(
        self, track: Track | None, question: str, options: str, whole: bool, scores: list[dict]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the bars of the options, one per line, for the track's start or for all of it."""
        yield html.hint("Listening …"), scores
        try:
            _check(track, start_only=not whole)
            texts = [line.strip() for line in options.splitlines() if line.strip()]
            question = question.strip()
            with self.lock:
                probabilities = self.assistant.score(track.path, question, texts, whole=whole)
            result = {"question": question, "whole": whole, "probabilities": probabilities}
            yield html.bars(probabilities), [*scores, result]
        except InputError as error:
            yield html.notice(_sentence(error, track)), scores

    def answer_timeline(self, track: Track | None, question: str) -> Iterator[tuple[Any, ...]]:
        """Yield the timeline while one question is answered about every window."""
        try:
            _check(track)
            question = question.strip()
            for answer in self._in_turns(self._window_answers(track, question), None):
                if answer is None:
                    yield html.hint("Listening …"), "", None, *BUSY
                else:
                    strip = html.strip(answer.timeline, track.seconds)
                    yield html.window_list(answer), strip, (question, answer), *BUSY
            yield gr.skip(), gr.skip(), gr.skip(), *IDLE
        except InputError as error:
            yield html.notice(_sentence(error, track)), "", None, *IDLE

    def find_fields(self, track: Track | None) -> Iterator[tuple[Any, ...]]:
        """Yield the table of the fields."""
        yield html.hint("Listening …"), None
        try:
            _check(track)
            with self.lock:
                description = self.describe(track.path)
            yield html.fields_table(description), description
        except InputError as error:
            yield html.notice(_sentence(error, track)), None

    def export(
        self,
        track: Track | None,
        answers: list[Answer],
        scores: list[dict],
        whole: tuple[str, WholeAnswer] | None,
        description: Description | None,
    ) -> str:
        """Return everything that the session has about its recording, as JSON."""
        if track is None:
            gr.Warning(NO_RECORDING)
            return ""
        results = {
            "file": track.name,
            "model": self.name,
            "seconds": track.seconds,
            "silent": track.silent,
            "answers": [answer._asdict() for answer in reversed(answers)],
            "scores": scores,
            "whole": None,
            "description": description and description.to_json(),
        }
        if whole is not None:
            question, (text, _, timeline, _) = whole
            windows = [window._asdict() for window in timeline]
            results["whole"] = {"question": question, "answer": text, "timeline": windows}
        return json.dumps(results, ensure_ascii=False, indent=2)

    def _window_answers(self, track: Track, question: str) -> Iterator[WholeAnswer]:
        """Yield the answers about a few windows more each time; at last the whole track's too."""
        engine = self.assistant.engine
        engine.prompts.encode_prompt(question)  # a bad question is refused before the encoding
        windows = encode_windows(engine, track.path)
        timeline: list[WindowAnswer] = []
        for start in range(0, len(windows), WINDOW_BATCH):
            batch = windows[start : start + WINDOW_BATCH]
            requests = [Request(w.audio, question) for w in batch if w.audio is not None]
            responses = iter(raise_first(engine.ask(requests, max_new_tokens=MAX_NEW_TOKENS)))
            timeline += window_answers(batch, responses)
            yield WholeAnswer(None, 0.0, tuple(timeline), track.seconds)
        text, support = best_supported(engine, windows, timeline, question)
        yield WholeAnswer(text, support, tuple(timeline), track.seconds)

    def _in_turns(self, items: Iterable[Item], first: Item) -> Iterator[Item]:
        """Yield `first`, then the items; hold the lock while one is computed, not in between."""
        yield first
        iterator = iter(items)
        while True:
            with self.lock:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


def describe_with(assistant: Assistant, fields: Path | None = None) -> Callable[[str], Description]:
    """Return a function that describes the recording at a path, as `tinymu caption` does.

    `fields` is a file of closed fields; None: those for music. Raises `InputError` if the file
    cannot be used, and in the function if the recording cannot.
    """
    options = DescribeOptions(read_fields(fields))

    def describe(path: str) -> Description:
        named = [(Path(path).name, Path(path))]
        (description,) = raise_first(list(describe_recordings(assistant, named, options)))
        return description

    return describe


class _Uploads:
    """The uploaded file that each session uses; a file that no session uses is deleted.

    Equal uploads of several sessions are one file.
    """

    def __init__(self) -> None:
        self._paths: dict[str | None, str] = {}
        self._lock = threading.Lock()

    def use(self, session: str | None, path: str | None) -> None:
        """Note that a session now uses the file `path`, or none; delete its previous file."""
        with self._lock:
            previous = self._paths.pop(session, None)
            if path is not None:
                self._paths[session] = path
            if previous is not None and previous not in self._paths.values():
                Path(previous).unlink(missing_ok=True)
                with suppress(OSError):
                    Path(previous).parent.rmdir()


def _opened(picture: str, track: Track | None = None) -> tuple[Any, ...]:
    """Return the views and the states of the page for a recording without results."""
    views = picture, "", html.EMPTY, "", "", ""
    return *views, track, [], [], None, None


def _check(track: Track | None, start_only: bool = False) -> None:
    """Raise `InputError` if there is nothing to listen to."""
    if track is None:
        raise InputError(NO_RECORDING)
    if track.silent:
        raise InputError(_silence(track))
    if start_only and track.silent_start:
        raise InputError(
            f"{track.name}: starts with silence, and questions are about the start; use the "
            "timeline, or cut the silence off"
        )


def _silence(track: Track) -> str:
    return f"{track.name}: is silent, so there is nothing to answer; choose another recording"


def _sentence(error: InputError, track: Track | str | None) -> str:
    """Return an error's message with the file's name in place of its path on the server."""
    path = track.path if isinstance(track, Track) else track
    return str(error).replace(path, Path(path).name) if path else str(error)
