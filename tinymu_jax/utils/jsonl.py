"""An append-only JSONL log of keyed records, from which a restarted run continues."""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, make_folder

Record = TypeVar("Record")
KEY = "key"
_START = b'{"key": "'
"""First bytes of each line."""


class JsonlLog(Generic[Record]):
    """A file with one JSON object per line, each with a string `key`.

    A last line without a newline, which a killed process may leave, is ignored.
    """

    def __init__(
        self, path: Path, parse: Callable[[Mapping[str, Any]], Record], contents: str, remedy: str
    ) -> None:
        """Store the arguments; no file is opened.

        `parse` converts a line's JSON object to a record, and must raise `LookupError`, `TypeError`
        or `ValueError` if the object is malformed. Error messages call a record `contents`, such as
        "a response", and end with the advice `remedy`.
        """
        self.path, self.parse, self.contents, self.remedy = path, parse, contents, remedy

    def read(self) -> dict[str, Record]:
        """Return the records by key (the last record of a repeated key); {} if there is no file.

        Raises `InputError` if the file cannot be read, or a complete line is malformed.
        """
        records = {}
        for number, line in enumerate(complete_lines(self.path), 1):
            try:
                row = json.loads(line)
                key = row[KEY]
                if not isinstance(key, str):
                    raise TypeError(f"{KEY} is not a string")
                records[key] = self.parse(row)
            except (LookupError, TypeError, ValueError, RecursionError) as error:
                raise InputError(
                    f"{self.path}: line {number} is not {self.contents}; {self.remedy}"
                ) from error
        return records

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Create and lock the file for `append` in the context; remove an incomplete last line.

        Raises:
            InputError: another process has locked the file, or the file cannot be written.
        """
        make_folder(self.path.parent)
        try:
            file = self.path.open("a+b")
        except OSError as error:
            raise self._not_writable(error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{self.path}: another process is writing it; wait until it ends, or name "
                    "another place"
                ) from error
            except OSError:
                pass  # some network file systems have no locks
            size = sum(map(len, complete_lines(self.path)))
            if size < file.seek(0, os.SEEK_END):
                file.seek(size)
                rest = file.read(len(_START))
                if not _START.startswith(rest):
                    raise InputError(f"{self.path}: holds something else; {self.remedy}")
                file.truncate(size)
            yield

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append JSON objects, each with a `key`; raise `InputError` if the file cannot be written.

        Call this method inside the context of `writing`.
        """
        # ASCII, so that a kill cannot leave half a character. The file is closed each time, since
        # a mounted bucket keeps only closed files.
        text = "".join(json.dumps({KEY: row[KEY]} | dict(row)) + "\n" for row in rows)
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            # Half a line, as of a full disk, must not become part of the next.
            with suppress(OSError):
                os.truncate(self.path, size)
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> InputError:
        reason = f"cannot be written ({error.strerror or error})"
        return InputError(f"{self.path}: {reason}; name a place that can be written to")


def complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that end with a newline, as bytes; [] if there is no file.

    Raises `InputError` if the file cannot be read.
    """
    if not exists(path):
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    # Lines are split at "\n" only, since texts may contain other line separators.
    return [line + b"\n" for line in lines[:-1]]
