"""Answers about whole recordings: windows are answered one by one, and combined by a fixed rule.

Scores: log-likelihoods of the options are averaged over the windows, weighted by seconds, and
normalized. Open answers: each window is asked, and its answer is a candidate; the answer for the
recording is the candidate whose tokens gain most in log-probability by the audio, on average over
the windows. Windows of silence are not asked and have no weight.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from tinymu_jax.audio.load import Audio, Clip
from tinymu_jax.audio.windows import AudioWindow, read_windows, seconds_of_each
from tinymu_jax.errors import InputError
from tinymu_jax.inference.audio_cache import AudioCache, EncodedAudio
from tinymu_jax.inference.engine import BatchEngine, Request, Response, raise_first
from tinymu_jax.inference.generate import MAX_BATCH
from tinymu_jax.inference.scoring import NORMALIZE, OptionScore, to_option_scores

MAX_CANDIDATES = 8
"""Maximum number of candidates for a recording's answer: the answers of the most windows."""
MAX_COMPARED = 32
"""Maximum number of windows with which candidates are compared; of more, evenly spaced ones."""


class EncodedWindow(NamedTuple):
    """A window of a recording, ready to be asked about."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    audio: EncodedAudio | None
    """The window's audio vectors; None for silence."""
    weight: float
    """Seconds of the recording that the window stands for; 0 for silence."""


class WindowAnswer(NamedTuple):
    """The answer about a window of a recording."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    answer: str | None
    """None for silence."""


class WholeAnswer(NamedTuple):
    """The answer about a whole recording."""

    text: str | None
    """The window's answer that the whole recording supports best; None for silence."""
    support: float
    """Gain in mean log-probability per token of `text` by the audio; 0 for silence."""
    timeline: tuple[WindowAnswer, ...]
    total_seconds: float


class WindowScores(NamedTuple):
    """The probability of each option for a window of a recording."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    probabilities: dict[str, float] | None
    """None for silence."""


class WholeScores(NamedTuple):
    """The scores of options for a whole recording."""

    options: tuple[OptionScore, ...]
    """From log-likelihoods that are averaged over the windows; () for silence."""
    agreement: float
    """Share of the seconds in windows whose most probable option is that of the recording."""
    timeline: tuple[WindowScores, ...]
    total_seconds: float


def encode_windows(
    engine: BatchEngine,
    recording: Audio,
    hop: float | None = None,
    on_window: Callable[[AudioWindow], None] = lambda window: None,
) -> list[EncodedWindow]:
    """Read a recording as a stream, and encode its windows; see `read_windows` for `hop`.

    The audio vectors do not depend on other recordings, to the last bit. `on_window` is called with
    each window, whose samples are not in the result.

    Raises:
        InputError: the recording cannot be used, or `hop` is too short.
    """
    cache, seconds = engine.audio_cache, engine.config.max_seconds
    spans: list[tuple[float, float]] = []
    encoded: list[EncodedAudio | None] = []
    windows = read_windows(recording, seconds, hop, cache.keep_damaged)
    while batch := list(itertools.islice(windows, MAX_BATCH)):
        encoded += _encode_batch(cache, batch)
        for window in batch:
            spans.append((window.start, window.end))
            on_window(window)
    if not spans:
        raise InputError(f"{recording}: nothing of it can be read; replace it")
    weights = seconds_of_each(spans)
    return [
        EncodedWindow(*span, audio, 0.0 if audio is None else weight)
        for span, audio, weight in zip(spans, encoded, weights, strict=True)
    ]


def _encode_batch(cache: AudioCache, batch: Sequence[AudioWindow]) -> list[EncodedAudio | None]:
    """Return the audio vectors of windows, without their samples; None for silence."""
    seconds = [window.end - window.start for window in batch]
    clips = [Clip(w.samples, s, s) for w, s in zip(batch, seconds, strict=True) if not w.is_silent]
    results = iter(raise_first(cache.encode_clips(clips)) if clips else ())
    # The samples of an hour take 230 MB.
    return [
        None if w.is_silent else next(results)._replace(clip=Clip(w.samples[:0], s, s))
        for w, s in zip(batch, seconds, strict=True)
    ]


def score_windows(
    engine: BatchEngine,
    windows: Sequence[EncodedWindow],
    questions: Sequence[tuple[str, Sequence[str]]],
    normalize: str = "sum",
    truncate_prompt: bool = False,
) -> list[WholeScores]:
    """Return the scores of each question, a prompt with options, for a whole recording.

    See `Assistant.score` for `normalize`, with which the options of windows are compared.
    """
    audible = [window for window in windows if window.audio is not None]
    prior = normalize == "pmi"
    sources = [None] if prior else []
    requests = [
        Request(source, prompt, "", tuple(options), score_only=True)
        for source in (*sources, *(window.audio for window in audible))
        for prompt, options in questions
    ]
    responses = raise_first(engine.ask(requests, truncate_prompt=truncate_prompt))
    rows = [response.log_likelihoods for response in responses]
    results = []
    for number, (_, options) in enumerate(questions):
        scores = rows[number :: len(questions)]
        prior_scores = scores.pop(0) if prior else None
        lengths = [len(engine.prompts.encode_text(o, "an option")) + 1 for o in options]
        to_scores = partial(_to_scores, options, lengths, prior_scores)
        results.append(_combine(windows, scores, to_scores, NORMALIZE[normalize]))
    return results


def _to_scores(
    options: Sequence[str],
    lengths: Sequence[int],
    prior: Sequence[float] | None,
    log_likelihoods: Sequence[float],
) -> tuple[OptionScore, ...]:
    return tuple(to_option_scores(options, lengths, log_likelihoods, prior))


def _combine(
    windows: Sequence[EncodedWindow],
    log_likelihoods: Sequence[Sequence[float]],
    to_scores: Callable[[Sequence[float]], tuple[OptionScore, ...]],
    field: str,
) -> WholeScores:
    """Average the log-likelihoods of options over a recording's windows that are not silent.

    `to_scores` converts log-likelihoods to `OptionScore`s, whose `field` is a probability.
    """
    remaining = iter(log_likelihoods)
    timeline = []
    for window in windows:
        scores = None if window.audio is None else to_scores(next(remaining))
        probabilities = scores and {row.option: getattr(row, field) for row in scores}
        timeline.append(WindowScores(window.start, window.end, probabilities))
    total = windows[-1].end
    weights = np.array([window.weight for window in windows if window.audio is not None])
    if not len(weights):
        return WholeScores((), 0.0, tuple(timeline), total)
    options = to_scores(np.average(np.asarray(log_likelihoods), axis=0, weights=weights))
    best = max(options, key=lambda row: getattr(row, field)).option
    audible = [window.probabilities for window in timeline if window.probabilities is not None]
    agrees = [max(probabilities, key=probabilities.get) == best for probabilities in audible]
    agreement = float(np.average(agrees, weights=weights))
    return WholeScores(options, agreement, tuple(timeline), total)


def ask_windows(
    engine: BatchEngine,
    recordings: Sequence[Sequence[EncodedWindow]],
    prompt: str,
    max_new_tokens: int | None = None,
    truncate_prompt: bool = False,
    **sampling: Any,
) -> list[WholeAnswer]:
    """Return the answer to a question about each whole recording, given as encoded windows."""
    requests = [
        Request(window.audio, prompt)
        for windows in recordings
        for window in windows
        if window.audio is not None
    ]
    options = {"max_new_tokens": max_new_tokens, "truncate_prompt": truncate_prompt, **sampling}
    responses = iter(raise_first(engine.ask(requests, **options)))
    results = []
    for windows in recordings:
        timeline = tuple(window_answers(windows, responses))
        text, support = best_supported(engine, windows, timeline, prompt, truncate_prompt)
        results.append(WholeAnswer(text, support, timeline, windows[-1].end))
    return results


def window_answers(
    windows: Sequence[EncodedWindow], responses: Iterator[Response]
) -> Iterator[WindowAnswer]:
    """Yield the answer of each window; `responses` are those of the windows that are audible."""
    for window in windows:
        text = None if window.audio is None else next(responses).text
        yield WindowAnswer(window.start, window.end, text)


def best_supported(
    engine: BatchEngine,
    windows: Sequence[EncodedWindow],
    timeline: Sequence[WindowAnswer],
    prompt: str,
    truncate_prompt: bool = False,
) -> tuple[str | None, float]:
    """Return the window's answer that all windows support best, and its support.

    `timeline` has the answer of each window to `prompt`. The answer is None for silence.
    """
    counts = Counter(window.answer for window in timeline if window.answer)
    # Equally frequent answers keep their order in time.
    candidates = [answer for answer, _ in counts.most_common(MAX_CANDIDATES)]
    if not candidates:
        audible = any(window.audio is not None for window in windows)
        return ("" if audible else None), 0.0
    audible = [window for window in windows if window.audio is not None]
    if len(audible) > MAX_COMPARED:
        places = np.linspace(0, len(audible) - 1, MAX_COMPARED).round().astype(int)
        audible = [audible[place] for place in places]
    sources = [None, *(window.audio for window in audible)]
    requests = [
        Request(source, prompt, "", tuple(candidates), score_only=True) for source in sources
    ]
    rows = raise_first(engine.ask(requests, truncate_prompt=truncate_prompt))
    prior, *scores = (np.array(row.log_likelihoods) for row in rows)
    lengths = [len(engine.prompts.encode_text(c, "an answer")) + 1 for c in candidates]
    weights = [window.weight for window in audible]
    support = _support(np.array(scores), prior, np.array(lengths), weights)
    best = int(np.argmax(support))
    return candidates[best], float(support[best])


def _support(
    scores: Float64[np.ndarray, "windows candidates"],
    prior: Float64[np.ndarray, "candidates"],
    lengths: np.ndarray,
    weights: Sequence[float],
) -> Float64[np.ndarray, "candidates"]:
    """Return the gain of each candidate's log-probability per token by the windows' audio."""
    return (np.average(scores, axis=0, weights=weights) - prior) / lengths
