"""Describes all recordings of a library; a run that is interrupted is continued."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.library.description import DescribeOptions, Description, describe_recordings
from tinymu_jax.library.formats.options import Format, FormatOptions
from tinymu_jax.library.formats.sidecars import sidecar_path, write_sidecar
from tinymu_jax.library.packets import read_packets
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import printable
from tinymu_jax.utils.jsonl import KEY, JsonlLog
from tinymu_jax.utils.progress import Progress, no_progress

TABLE = "table"
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
    """Fingerprint of the recording's encoded audio; tags may change."""
    size: int
    modified: int
    """Modification time in nanoseconds; a recording of this size and time is not read again."""
    outputs: Mapping[str, str]
    """Path of each file that was written about the recording alone -> fingerprint of its bytes."""
    description: Description | None
    """None: still to be found out; never so in the log."""

    def to_json(self, name: str) -> dict[str, Any]:
        """Return the entry as a JSON object with the key `name`."""
        return {KEY: name} | self._asdict() | {"description": self.description.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "LogEntry":
        """Read an entry from a JSON object; raise `LookupError` or `TypeError` if malformed."""
        values = {name: row[name] for name in cls._fields}
        return cls(**values | {"description": Description.from_json(row["description"])})


def check_table(log_path: Path, paths: Sequence[Path]) -> None:
    """Raise `InputError` if one of `paths` is there, and no run with this log wrote it last."""
    written = _open_log(log_path).read()
    for path in paths:
        if not path.is_file() or fingerprint.of_file(path) != written.get(_table_key(path)):
            raise InputError(f"{path}: is there already; move it, or replace it with --overwrite")


def log_table(log_path: Path, paths: Sequence[Path]) -> None:
    """Note in the log that a run has written the tables `paths`."""
    log = _open_log(log_path)
    with log.writing():
        log.append({KEY: _table_key(path), TABLE: fingerprint.of_file(path)} for path in paths)


def _table_key(path: Path) -> str:
    # No recording's name begins so.
    return f"\0{path.absolute()}"


def _open_log(path: Path) -> JsonlLog[LogEntry | str]:
    """Open a log, which holds an entry for each recording, and the fingerprint of each table."""
    remedy = "remove the file, or name another one with --log"
    return JsonlLog(
        path,
        lambda row: row[TABLE] if TABLE in row else LogEntry.from_json(row),
        "a description",
        remedy,
    )


class SidecarWriter:
    """Writes a file beside each recording, and never replaces a file that is somebody else's."""

    def __init__(self, format: Format, options: FormatOptions, overwrite: bool = False) -> None:
        """Create a writer for a format, which need not have such files."""
        self.format, self.options, self.overwrite = format, options, overwrite

    def check(self, recording: Recording, outputs: Mapping[str, str]) -> None:
        """Raise `InputError` if there is a file that `outputs`, of the log, does not have."""
        path = sidecar_path(self.format, recording.path)
        if path is None or self.overwrite or not os.path.lexists(path):
            return
        if not path.is_file() or fingerprint.of_file(path) != outputs.get(str(path)):
            raise InputError(f"{path}: is there already; move it, or replace it with --overwrite")

    def write(
        self, recording: Recording, description: Description, outputs: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Write the file beside a recording, and return the log's `outputs` about it.

        Raises:
            InputError: see `check`; or the file cannot be written.
        """
        if sidecar_path(self.format, recording.path) is None:
            return outputs
        self.check(recording, outputs)
        path = write_sidecar(self.format, recording.path, description, self.options)
        return outputs if path is None else {**outputs, str(path): fingerprint.of_file(path)}


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
    writer: SidecarWriter,
    batch_size: int = BATCH_SIZE,
    progress: Progress = no_progress,
) -> CaptionResult:
    """Describe recordings, and write each description to a log as soon as it is there.

    A recording that the log already describes, with the same content and options, is not described
    again. A recording that is broken, or that `writer` has no place for, is an error in the result.

    Raises:
        InputError: the log cannot be written, or another run writes it.
    """
    settings = settings_fingerprint(assistant, options)
    log = _open_log(log_path)
    result = CaptionResult({}, {}, 0)
    with log.writing():
        pending = []
        for recording, entry in _each_entry(recordings, settings, log.read(), writer, result):
            if entry.description is None:
                pending.append((recording, entry))
            else:
                _finish(recording, entry, log, writer, result)
        num_done = len(recordings) - len(pending)
        for start in range(0, len(pending), batch_size):
            progress(num_done + start, len(recordings))
            batch = pending[start : start + batch_size]
            named = [(recording.name, recording.path) for recording, _ in batch]
            descriptions = describe_recordings(assistant, named, options)
            for (recording, entry), description in zip(batch, descriptions, strict=True):
                if isinstance(description, InputError):
                    result.errors[recording.name] = description
                else:
                    entry = entry._replace(description=description)
                    _finish(recording, entry, log, writer, result, is_new=True)
        progress(len(recordings), len(recordings))
    num_new = sum(recording.name in result.descriptions for recording, _ in pending)
    return result._replace(num_new=num_new)


def _finish(
    recording: Recording,
    entry: LogEntry,
    log: JsonlLog[LogEntry],
    writer: SidecarWriter,
    result: CaptionResult,
    is_new: bool = False,
) -> None:
    """Write a recording's file and log entry, where they are not there yet."""
    try:
        outputs = writer.write(recording, entry.description, entry.outputs)
    except InputError as error:
        result.errors[recording.name] = error
        return
    if is_new or outputs != entry.outputs:
        log.append([entry._replace(outputs=outputs).to_json(recording.name)])
    result.descriptions[recording.name] = entry.description


def _each_entry(
    recordings: Sequence[Recording],
    settings: str,
    entries: Mapping[str, LogEntry],
    writer: SidecarWriter,
    result: CaptionResult,
) -> Iterator[tuple[Recording, LogEntry]]:
    """Yield each recording with its entry in the log, or with a new one without a description.

    Errors of recordings are put into `result`.
    """
    for recording in recordings:
        logged = entries.get(recording.name)
        try:
            entry = _entry(recording, settings, logged)
            if entry.description is None:
                writer.check(recording, entry.outputs)
        except InputError as error:
            result.errors[recording.name] = error
            continue
        yield recording, entry


def _entry(recording: Recording, settings: str, logged: LogEntry | None) -> LogEntry:
    """Return what the log has about a recording if it still holds, or else a new entry.

    Raises:
        InputError: the recording cannot be read.
    """
    path = recording.path
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    state = status.st_size, status.st_mtime_ns
    is_current = logged is not None and logged.settings == settings
    if is_current and (logged.size, logged.modified) == state:
        return logged
    content = _audio_fingerprint(path)
    if is_current and logged.content == content:
        return logged
    return LogEntry(settings, content, *state, {} if logged is None else logged.outputs, None)


def _audio_fingerprint(path: Path) -> str:
    """Return the fingerprint of a file's encoded audio, or of all its bytes if it has none."""
    try:
        return read_packets(path).sha256
    except InputError:
        return fingerprint.of_file(path)
