"""Append-only JSONL log of keyed records: what a killed run has written, the next one reads."""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, make_folder

Record = TypeVar("Record")

KEY = "key"


class JsonlLog(Generic[Record]):
    """A file with one JSON object per line, each with a `key`.

    A kill may cut off the last line: a line counts once its newline is written.
    """

    def __init__(
        self, path: Path, parse: Callable[[Mapping[str, Any]], Record], contents: str, remedy: str
    ) -> None:
        """Names a log; the file is created by `writing`.

        Args:
            path: of the file.
            parse: makes a record from a line's object; raises `LookupError`, `TypeError` or
                `ValueError` where it is malformed.
            contents: what a line holds, with its article, for error messages: "a response".
            remedy: what to do about a file that holds something else.
        """
        self.path, self.parse, self.contents, self.remedy = path, parse, contents, remedy

    def read(self) -> dict[str, Record]:
        """Returns the records by key, the last one of each key; {} if there is no file.

        Raises:
            InputError: the file cannot be read, or a complete line is malformed.
        """
        records = {}
        for number, line in enumerate(complete_lines(self.path), 1):
            try:
                row = json.loads(line)
                key = row[KEY]
                if not isinstance(key, str):
                    raise TypeError(f"{KEY} is not a string")
                records[key] = self.parse(row)
            except (LookupError, TypeError, ValueError) as error:
                raise InputError(
                    f"{self.path}: line {number} is not {self.contents}; {self.remedy}"
                ) from error
        return records

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Locks the file for `append`, creates it if needed and removes an incomplete last line.

        Raises:
            InputError: another process is writing the file, or it cannot be written.
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
                file.truncate(size)
            yield

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes rows, each a JSON object with its `key`, inside `writing`.

        Raises:
            InputError: the disk is full, or the place is gone.
        """
        # ASCII: a kill cannot leave half a character. Closed each time: a mounted bucket keeps
        # only what was closed.
        text = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            with self.path.open("a", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> InputError:
        reason = f"cannot be written ({error.strerror or error})"
        return InputError(f"{self.path}: {reason}; name a place that can be written to")


def complete_lines(path: Path) -> list[bytes]:
    """Returns a file's lines that end with a newline; [] if there is no file.

    Raises:
        InputError: the file cannot be read.
    """
    if not exists(path):
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    # Only "\n" ends a line: texts may hold other separators.
    return [line + b"\n" for line in lines[:-1]]
