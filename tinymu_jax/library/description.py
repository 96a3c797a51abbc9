"""Describes recordings: a caption, closed fields, tempo and key, for whole recordings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.windows import AudioWindow
from tinymu_jax.errors import InputError, translate
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.scoring import NORMALIZE
from tinymu_jax.inference.whole_recording import (
    EncodedWindow,
    WholeAnswer,
    WholeScores,
    ask_windows,
    encode_windows,
    score_windows,
)
from tinymu_jax.library.fields import Field
from tinymu_jax.library.tempo_key import TempoKeyEstimator

CAPTION_PROMPT = "Describe the music."
DIGITS = 4
"""Decimal places of probabilities."""


class FieldValue(NamedTuple):
    """The value of a field for a recording."""

    value: str | None
    """None: unknown, since the most probable value is less probable than the field's threshold."""
    probability: float
    """Probability of the most probable value."""
    agreement: float
    """Share of the seconds in windows whose most probable value is that of the recording."""


class Description(NamedTuple):
    """What is known about a recording."""

    file: str
    """The recording's path, with "/", below the folder that was named."""
    seconds: float
    """Length of the recording."""
    caption: str | None
    """None: there is none, since the recording is silent or no caption was asked for."""
    fields: Mapping[str, FieldValue]
    """Value of each field, by the field's name."""
    bpm: float | None
    """Tempo in beats per minute, from signal processing; None: unknown."""
    key: str | None
    """Key such as "F# minor", from signal processing; None: unknown."""
    time_signature: str | None
    """Always None: nothing measures it."""
    silent: bool
    """Whether the recording is silence, about which nothing is said."""
    timeline: tuple[Mapping[str, Any], ...]
    """The `start`, `end` (seconds) and `caption` of each window."""

    def to_json(self) -> dict[str, Any]:
        """Return the description as a JSON object."""
        fields = {name: value._asdict() for name, value in self.fields.items()}
        return self._asdict() | {"fields": fields, "timeline": [dict(w) for w in self.timeline]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Description":
        """Read a description from a JSON object.

        Raises `LookupError`, `TypeError` or `AttributeError` if the object is malformed.
        """
        values = {name: content[name] for name in cls._fields}
        values["fields"] = {name: FieldValue(**value) for name, value in values["fields"].items()}
        return cls(**values | {"timeline": tuple(dict(w) for w in values["timeline"])})


class DescribeOptions(NamedTuple):
    """What to find out about recordings."""

    fields: Sequence[Field] = ()
    """Closed questions to score."""
    prompt: str | None = CAPTION_PROMPT
    """The question whose answer is the caption; None: no caption."""
    max_new_tokens: int = 100
    """Maximum number of tokens of a caption."""
    hop: float | None = None
    """Seconds from the start of a window to the start of the next; None: the window's length."""
    tempo_and_key: bool = True
    """Whether to estimate tempo and key."""


class _Recording(NamedTuple):
    """A recording that has been read, whose caption is still to be generated."""

    file: str
    windows: list[EncodedWindow]
    fields: dict[str, FieldValue]
    bpm: float | None
    key: str | None


def describe_recordings(
    assistant: Assistant, recordings: Sequence[tuple[str, Path]], options: DescribeOptions
) -> Iterator[Description | InputError]:
    """Yield the description, or the error, of each recording, given as (name, path).

    The captions of all recordings are generated together; all else is computed for each alone, so
    that its numbers do not depend on the others to the last bit.
    """
    prepared = [_prepare(assistant, name, path, options) for name, path in recordings]
    readable = [one for one in prepared if isinstance(one, _Recording)]
    captions = iter(_captions(assistant, readable, options))
    for one in prepared:
        yield one if isinstance(one, InputError) else _to_description(one, next(captions))


def check_prompts(assistant: Assistant, options: DescribeOptions) -> None:
    """Raise `InputError` if the caption's prompt, or a field, cannot be asked about."""
    prompts = assistant.engine.prompts
    if options.prompt is not None:
        prompts.encode_prompt(options.prompt)
    for field in options.fields:
        with translate(f"field {field.name}: {{reason}}"):
            prompts.encode_prompt(field.prompt)
            for option in field.options:
                prompts.encode_text(option, "an option")


def _prepare(
    assistant: Assistant, name: str, path: Path, options: DescribeOptions
) -> _Recording | InputError:
    """Read and encode a recording, and score its fields."""
    estimator = TempoKeyEstimator() if options.tempo_and_key else None

    def add(window: AudioWindow) -> None:
        if estimator is not None:
            estimator.add(window.samples, window.start)

    try:
        before = file_state(path)
        windows = encode_windows(assistant.engine, path, options.hop, add)
        if file_state(path) != before:
            raise InputError(f"{name}: changed while it was read; run again when it is complete")
        fields = _score(assistant, windows, options.fields)
    except InputError as error:
        return error
    if estimator is None or _is_silent(windows):
        return _Recording(name, windows, fields, None, None)
    return _Recording(name, windows, fields, estimator.tempo(), estimator.key())


def file_state(path: Path) -> tuple[int, int]:
    """Return a file's size and modification time; raise `InputError` if it is missing."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return status.st_size, status.st_mtime_ns


def _is_silent(windows: Sequence[EncodedWindow]) -> bool:
    return all(window.audio is None for window in windows)


def _score(
    assistant: Assistant, windows: Sequence[EncodedWindow], fields: Sequence[Field]
) -> dict[str, FieldValue]:
    """Return the value of each field; {} for silence."""
    if _is_silent(windows):
        return {}
    values: dict[str, FieldValue] = {}
    for normalize in sorted({field.normalize for field in fields}):
        group = [field for field in fields if field.normalize == normalize]
        questions = [(field.prompt, field.options) for field in group]
        scores = score_windows(assistant.engine, windows, questions, normalize)
        for field, result in zip(group, scores, strict=True):
            values[field.name] = _to_value(field, result)
    return {field.name: values[field.name] for field in fields}


def _to_value(field: Field, scores: WholeScores) -> FieldValue:
    probabilities = [getattr(row, NORMALIZE[field.normalize]) for row in scores.options]
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    value = field.values[best] if probabilities[best] >= field.threshold else None
    return FieldValue(value, round(probabilities[best], DIGITS), round(scores.agreement, DIGITS))


def _captions(
    assistant: Assistant, recordings: Sequence[_Recording], options: DescribeOptions
) -> list[WholeAnswer | None]:
    """Return the caption of each recording; None if none is wanted."""
    if options.prompt is None or not recordings:
        return [None] * len(recordings)
    windows = [recording.windows for recording in recordings]
    return [*ask_windows(assistant.engine, windows, options.prompt, options.max_new_tokens)]


def _to_description(recording: _Recording, answer: WholeAnswer | None) -> Description:
    timeline: tuple[dict[str, Any], ...] = ()
    if answer is not None:
        timeline = tuple(
            {"start": round(w.start, 3), "end": round(w.end, 3), "caption": w.answer}
            for w in answer.timeline
        )
    return Description(
        file=recording.file,
        seconds=round(recording.windows[-1].end, 3),
        caption=None if answer is None else answer.text,
        fields=recording.fields,
        bpm=recording.bpm,
        key=recording.key,
        time_signature=None,
        silent=_is_silent(recording.windows),
        timeline=timeline,
    )
