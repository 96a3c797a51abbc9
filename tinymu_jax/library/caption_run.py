"""Describes all recordings of a library; a run that is interrupted is continued."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.audio.files import list_named
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.library.description import (
    DescribeOptions,
    Description,
    check_prompts,
    describe_recordings,
    file_state,
)
from tinymu_jax.library.formats.options import Format, FormatOptions
from tinymu_jax.library.formats.sidecars import sidecar_path, sidecar_text
from tinymu_jax.library.packets import audio_fingerprint
from tinymu_jax.library.run_log import LogEntry, RunLog
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import printable, remove, write_text
from tinymu_jax.utils.progress import Progress, no_progress

BATCH_SIZE = 8
"""Default number of recordings whose captions are generated together."""


class Recording(NamedTuple):
    """A recording to describe."""

    name: str
    """The recording's path, with "/": below the folder if one folder was named."""
    path: Path


class SidecarWriter:
    """Writes a file beside each recording, and never replaces a file that is somebody else's."""

    def __init__(self, format: Format, options: FormatOptions, overwrite: bool = False) -> None:
        """Create a writer for a format, which need not have such files."""
        self.format, self.options, self.overwrite = format, options, overwrite

    def check(self, recording: Recording, log: RunLog) -> None:
        """Raise `InputError` if there is a file that is somebody else's."""
        path = sidecar_path(self.format, recording.path)
        if path is not None:
            log.check(path, self.overwrite)

    def write(self, recording: Recording, description: Description, log: RunLog) -> None:
        """Write the file beside a recording, or remove it if there shall be none.

        Raises:
            InputError: see `check`; or the file cannot be written.
        """
        path = sidecar_path(self.format, recording.path)
        if path is None:
            return
        self.check(recording, log)
        text = sidecar_text(self.format, recording.path, description, self.options)
        if text is None:
            if log.is_written(path):
                remove(path)
            return
        content = fingerprint.of_text(text)
        if not path.is_file() or fingerprint.of_file(path) != content:
            log.announce(path, content)
            write_text(path, text)


class CaptionResult(NamedTuple):
    """The outcome of a run."""

    descriptions: dict[str, Description]
    """Name of each described recording -> its description, which may be of an earlier run."""
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
    for path, folder in list_named(names):
        inside = len(names) == 1 and folder is not None
        shown = printable((path.relative_to(folder) if inside else path).as_posix())
        other = recordings.setdefault(shown, Recording(shown, path)).path
        if other != path and not os.path.samefile(other, path):
            raise InputError(f"{shown}: two recordings have names that are printed so; rename one")
    return [recordings[name] for name in sorted(recordings)]


def settings_fingerprint(assistant: Assistant, options: DescribeOptions) -> str:
    """Return the fingerprint of everything but the recording that a description depends on."""
    texts = [repr(options), repr(assistant.config), str(assistant.keep_damaged)]
    return fingerprint.of_text("\n".join([*texts, fingerprint.of_weights(assistant.params)]))


def describe_library(
    assistant: Assistant,
    recordings: Sequence[Recording],
    options: DescribeOptions,
    log: RunLog,
    writer: SidecarWriter,
    batch_size: int = BATCH_SIZE,
    progress: Progress = no_progress,
) -> CaptionResult:
    """Describe recordings, and write each description to a log as soon as it is there.

    A recording that the log already describes, with the same content and options, is not described
    again. A recording that is broken, or that `writer` has no place for, is an error in the result.
    Call this function inside the context of `log.writing`.

    Raises:
        InputError: a prompt or an option is too long; the log cannot be written.
    """
    check_prompts(assistant, options)
    settings = settings_fingerprint(assistant, options)
    result, num_new = CaptionResult({}, {}, 0), 0
    pending = _each_pending(recordings, settings, log, writer, result)
    while batch := list(itertools.islice(pending, batch_size)):
        progress(len(result.descriptions) + len(result.errors), len(recordings))
        named = [(recording.name, recording.path) for recording, _ in batch]
        descriptions = describe_recordings(assistant, named, options)
        for (recording, state), description in zip(batch, descriptions, strict=True):
            if isinstance(description, InputError):
                result.errors[recording.name] = description
                continue
            log.add(recording.name, settings, LogEntry(*state, description))
            _finish(recording, description, log, writer, result)
            num_new += 1
    progress(len(recordings), len(recordings))
    return result._replace(num_new=num_new)


def _finish(
    recording: Recording,
    description: Description,
    log: RunLog,
    writer: SidecarWriter,
    result: CaptionResult,
) -> None:
    """Write a recording's file, and put the description or the error into the result."""
    try:
        writer.write(recording, description, log)
    except InputError as error:
        result.errors[recording.name] = error
    else:
        result.descriptions[recording.name] = description


def _each_pending(
    recordings: Sequence[Recording],
    settings: str,
    log: RunLog,
    writer: SidecarWriter,
    result: CaptionResult,
) -> Iterator[tuple[Recording, tuple[str, int, int]]]:
    """Yield each recording that the log does not describe, with its content, size and time.

    The other recordings are finished here.
    """
    for recording in recordings:
        entry = log.entry(recording.name, settings)
        try:
            size, modified = file_state(recording.path)
            if entry is None or (entry.size, entry.modified) != (size, modified):
                content = audio_fingerprint(recording.path)
                if entry is None or entry.content != content:
                    writer.check(recording, log)
                    yield recording, (content, size, modified)
                    continue
                entry = entry._replace(size=size, modified=modified)
                log.add(recording.name, settings, entry)
        except InputError as error:
            result.errors[recording.name] = error
            continue
        _finish(recording, entry.description, log, writer, result)
