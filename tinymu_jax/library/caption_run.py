"""Describes all recordings of a library; a run that is interrupted is continued."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.library.description import DescribeOptions, Description, describe_recordings
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import printable
from tinymu_jax.utils.jsonl import KEY, JsonlLog
from tinymu_jax.utils.progress import Progress, no_progress

BATCH_SIZE = 8
"""Default number of recordings whose captions are generated together."""


class Recording(NamedTuple):
    """A recording to describe."""

    name: str
    """The recording's path, with "/": below the folder if one folder was named."""
    path: Path


class LogEntry(NamedTuple):
    """What the log of a run holds about a recording."""

    settings: str
    """Fingerprint of the model and the options with which the recording was described."""
    content: str
    """Fingerprint of the recording's bytes."""
    size: int
    modified: int
    """Modification time in nanoseconds; a recording of this size and time is not read again."""
    description: Description

    def to_json(self, name: str) -> dict[str, Any]:
        """Return the entry as a JSON object with the key `name`."""
        return {KEY: name} | self._asdict() | {"description": self.description.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "LogEntry":
        """Read an entry from a JSON object; raise `LookupError` or `TypeError` if malformed."""
        values = {name: row[name] for name in cls._fields}
        return cls(**values | {"description": Description.from_json(row["description"])})


class CaptionResult(NamedTuple):
    """The outcome of a run."""

    described: list[tuple[Recording, Description]]
    """All described recordings by name, also those that an earlier run described."""
    errors: dict[str, InputError]
    """Name of each recording that could not be described -> the error."""
    num_new: int
    """Number of recordings that this run described."""


def list_recordings(names: Sequence[str]) -> list[Recording]:
    """Return the recordings that are named, and those in the folders that are named, sorted.

    Raises:
        InputError: a folder has no recordings, or cannot be read.
    """
    recordings: dict[str, Recording] = {}
    for name in names:
        folder = Path(name)
        paths = list_audio_files(folder) if os.path.isdir(folder) else [folder]
        for path in paths:
            inside = len(names) == 1 and path != folder
            shown = printable((path.relative_to(folder) if inside else path).as_posix())
            recordings.setdefault(shown, Recording(shown, path))
    return [recordings[name] for name in sorted(recordings)]


def settings_fingerprint(assistant: Assistant, options: DescribeOptions) -> str:
    """Return the fingerprint of everything but the recording that a description depends on."""
    texts = [repr(options), repr(assistant.config), str(assistant.keep_damaged)]
    return fingerprint.of_text("\n".join([*texts, fingerprint.of_weights(assistant.params)]))


def describe_library(
    assistant: Assistant,
    recordings: Sequence[Recording],
    options: DescribeOptions,
    log_path: Path,
    on_description: Callable[[Recording, Description], None] = lambda recording, description: None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = no_progress,
) -> CaptionResult:
    """Describe recordings, and write each description to a log as soon as it is there.

    A recording that the log already describes, with the same content and options, is not described
    again. A broken recording is reported in the result. `on_description` is called with each new
    description, before it is in the log; an `InputError` that it raises is the recording's error.

    Raises:
        InputError: the log cannot be written, or another run writes it.
    """
    settings = settings_fingerprint(assistant, options)
    remedy = "remove the file, or name another one with --log"
    log = JsonlLog(log_path, LogEntry.from_json, "a description", remedy)
    errors: dict[str, InputError] = {}
    with log.writing():
        entries = log.read()
        pending, described = [], dict[str, Description]()
        for recording in recordings:
            try:
                entry = _entry(recording, settings, entries.get(recording.name))
            except InputError as error:
                errors[recording.name] = error
                continue
            if isinstance(entry, LogEntry):
                described[recording.name] = entry.description
            else:
                pending.append((recording, entry))
        done = len(recordings) - len(pending)
        for start in range(0, len(pending), batch_size):
            progress(done + start, len(recordings))
            batch = pending[start : start + batch_size]
            named = [(recording.name, recording.path) for recording, _ in batch]
            results = describe_recordings(assistant, named, options)
            for (recording, entry), result in zip(batch, results, strict=True):
                try:
                    if isinstance(result, InputError):
                        raise result
                    on_description(recording, result)
                except InputError as error:
                    errors[recording.name] = error
                    continue
                described[recording.name] = result
                log.append([LogEntry(*entry, result).to_json(recording.name)])
        progress(len(recordings), len(recordings))
    by_name = [(one, described[one.name]) for one in recordings if one.name in described]
    num_new = len(pending) - sum(recording.name in errors for recording, _ in pending)
    return CaptionResult(by_name, errors, num_new)


def _entry(
    recording: Recording, settings: str, entry: LogEntry | None
) -> LogEntry | tuple[str, str, int, int]:
    """Return the log's entry about a recording if it still holds, or else a new entry's beginning.

    Raises:
        InputError: the recording cannot be read.
    """
    path = recording.path
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    state = status.st_size, status.st_mtime_ns
    if entry is not None and entry.settings == settings and entry[2:4] == state:
        return entry
    content = fingerprint.of_file(path)
    if entry is not None and (entry.settings, entry.content) == (settings, content):
        return entry
    return settings, content, *state
