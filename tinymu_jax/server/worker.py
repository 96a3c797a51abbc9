"""The thread that computes: it owns the model, and decodes the answers of all requests together.

Request handlers run in an event loop. They submit jobs, and read each job's events from a queue.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinymu_jax.audio.load import Clip
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.audio_cache import AudioCache
from tinymu_jax.inference.continuous import Answer, ContinuousDecoder, TokenChoice
from tinymu_jax.inference.generate import Sampling
from tinymu_jax.server.metrics import Metrics

LOG = logging.getLogger("tinymu.server")
MAX_STARTS = 2
"""Largest number of jobs that begin between two steps. More would hold up running answers longer;
with fewer, the batch fills up more slowly."""


class Question(NamedTuple):
    """A question about a recording."""

    clip: Clip
    prompt: Sequence[int]
    """Token ids of the question."""
    max_new_tokens: int
    sampling: Sampling
    num_top: int = 0
    """Number of most probable tokens to report with each token."""


class Progress(NamedTuple):
    """New tokens of an answer."""

    choices: Sequence[TokenChoice]
    num_audio: int
    """Number of audio vectors of the recording."""
    finish_reason: str | None = None
    """`stop` (the end token was generated), `length` (the limit was reached), or None: it goes
    on."""


class Job:
    """A question, or a function to call, and the events that it leads to.

    Events of a question are `Progress`; the only event of a function is its result. An exception is
    an event, too, and the last one.
    """

    def __init__(self, work: Question | Callable[[], Any]) -> None:
        """Create a job in the event loop that reads its events."""
        self.work = work
        self.created = time.perf_counter()
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()

    async def next_event(self) -> Any:
        """Wait for the next event; raise it if it is an exception."""
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def emit(self, event: Any) -> None:
        """Add an event; may be called in any thread."""
        if self.cancelled:
            return
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the event loop has been closed
            self.cancelled = True


class Worker:
    """Runs jobs in a thread of its own."""

    def __init__(self, assistant: Assistant, batch: int, metrics: Metrics) -> None:
        """Create a worker that decodes up to `batch` answers together."""
        self.assistant, self.metrics = assistant, metrics
        self._decoder = ContinuousDecoder(assistant.params, assistant.config, batch)
        # Other threads may use the assistant's own cache.
        self._audio_cache = AudioCache(
            assistant.config, assistant.params, keep_damaged=assistant.keep_damaged
        )
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._running: dict[Answer, tuple[Job, int]] = {}
        self._thread = threading.Thread(target=self._run, name="tinymu-compute", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Stop after the present step; return whether the thread ended within `timeout` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def num_running(self) -> int:
        """Number of answers that are being decoded."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Number of jobs that wait."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Give a job up, whether it waits, runs or has ended."""
        job.cancelled = True
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            self._changed.notify()

    def _next_job(self) -> Job | None:
        """Return the next job, None if there is none now or no room; wait if nothing is running."""
        with self._changed:
            while not (self._waiting or self._running or self._stopping):
                self._changed.wait()
            if not self._waiting:
                return None
            if self._decoder.is_full and isinstance(self._waiting[0].work, Question):
                return None
            return self._waiting.popleft()

    def _run(self) -> None:
        while not self._stopping:
            for _ in range(MAX_STARTS):
                self._start_next()
            self._drop_cancelled()
            if self._running:
                try:
                    self._step()
                except Exception as error:
                    self._fail(error)

    def _start_next(self) -> None:
        job = self._next_job()
        if job is not None:
            try:
                self._start(job)
            except Exception as error:
                job.emit(error)

    def _start(self, job: Job) -> None:
        if not isinstance(job.work, Question):
            job.emit(job.work())
            return
        clip, *rest = job.work
        audio = self._audio_cache.encode_one(clip)
        answer = self._decoder.add(audio, *rest)
        self._running[answer] = job, audio.num_vectors
        self.metrics.first_token_seconds.observe(time.perf_counter() - job.created)
        self._report(answer, 0)

    def _step(self) -> None:
        start = time.perf_counter()
        lengths = {answer: len(answer.choices) for answer in self._running}
        for answer in self._decoder.step():
            self._report(answer, lengths[answer])
        self.metrics.step_seconds.observe(time.perf_counter() - start)

    def _report(self, answer: Answer, start: int) -> None:
        """Emit the tokens of an answer from index `start` on."""
        job, num_audio = self._running[answer]
        reason = None
        if answer.is_done:
            reason = "stop" if answer.ended else "length"
            del self._running[answer]
        job.emit(Progress(answer.choices[start:], num_audio, reason))

    def _drop_cancelled(self) -> None:
        for answer, (job, _) in list(self._running.items()):
            if job.cancelled:
                self._decoder.remove(answer)
                del self._running[answer]

    def _fail(self, error: Exception) -> None:
        """End all answers with an error; the cache may be unusable after it."""
        LOG.exception("decoding failed")
        for job, _ in self._running.values():
            job.emit(error)
        self._running.clear()
        self._decoder.clear()
