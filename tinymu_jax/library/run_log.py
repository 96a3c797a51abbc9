"""The log of a captioning run: what was described, and which files were written."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.errors import InputError
from tinymu_jax.library.description import Description
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.jsonl import KEY, JsonlLog

CONTENTS = "contents"
"""Field of a row that says which contents a written file may have."""
ANY = "any"
"""Content of a file that is being written, of which a kill may leave the old or the new one."""


class LogEntry(NamedTuple):
    """What the log holds about a recording."""

    content: str
    """Fingerprint of the recording's encoded audio; tags may change."""
    size: int
    modified: int
    """Modification time in nanoseconds; a recording of this size and time is not read again."""
    description: Description

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "LogEntry":
        """Read an entry from a JSON object; raise `LookupError` or `TypeError` if malformed."""
        values = {name: row[name] for name in cls._fields}
        return cls(**values | {"description": Description.from_json(row["description"])})


class RunLog:
    """Log of a captioning run; a file that somebody else wrote or changed is known from it.

    Methods that write are called inside the context of `writing`.
    """

    def __init__(self, path: Path) -> None:
        """Read a log, if there is one.

        Raises:
            InputError: the file cannot be read, or is no such log.
        """
        remedy = "remove the file, or name another one with --log"
        self._log = JsonlLog(path, _parse, "a line of this log", remedy)
        self._path = path
        self._rows = self._log.read()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the log for writing; see `JsonlLog.writing` for errors."""
        with self._log.writing():
            self._rows = self._log.read()
            yield

    def entry(self, name: str, settings: str) -> LogEntry | None:
        """Return what is known about a recording; `settings` is the fingerprint of the options."""
        return self._rows.get(_entry_key(name, settings))

    def add(self, name: str, settings: str, entry: LogEntry) -> None:
        """Log a recording's description; see `entry`."""
        content = entry._asdict() | {"description": entry.description.to_json()}
        self._append(_entry_key(name, settings), content, entry)

    def is_written(self, path: Path) -> bool:
        """Return whether a file has the content with which it was written by a run."""
        contents = self._rows.get(self._file_key(path), ())
        if ANY in contents:
            return True
        return path.is_file() and fingerprint.of_file(path) in contents

    def check(self, path: Path, overwrite: bool) -> None:
        """Raise `InputError` if a file is there that no run has written, unless `overwrite`."""
        if not overwrite and os.path.lexists(path) and not self.is_written(path):
            raise InputError(f"{path}: is there already; move it, or replace it with --overwrite")

    def announce(self, path: Path, content: str) -> None:
        """Log that a file is about to be written; `content` is its fingerprint, or `ANY`."""
        contents = list(self._rows.get(self._file_key(path), ()))
        if contents[-1:] != [content]:
            # A kill may come before the file is replaced, so its present content counts, too.
            contents = [*contents[-1:], content]
            self._append(self._file_key(path), {CONTENTS: contents}, contents)

    def finish(self, path: Path) -> None:
        """Log that a file, or a folder of files, has been written."""
        contents = [] if path.is_dir() else [fingerprint.of_file(path)]
        self._append(self._file_key(path), {CONTENTS: contents}, contents)

    def _append(self, key: str, row: Mapping[str, Any], value: Any) -> None:
        self._log.append([{KEY: key} | row])
        self._rows[key] = value

    def _file_key(self, path: Path) -> str:
        # Relative, so that a library can be moved with its log.
        return f"file {os.path.relpath(path, self._path.parent)}"


def _entry_key(name: str, settings: str) -> str:
    # Descriptions with other options stay in the log, so that one can go back to them.
    return f"{settings[:16]} {name}"


def _parse(row: Mapping[str, Any]) -> LogEntry | list[str]:
    return list(row[CONTENTS]) if CONTENTS in row else LogEntry.from_json(row)
