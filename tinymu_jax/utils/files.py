"""Reads and writes files; errors name the file and the remedy."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError


def exists(path: str | Path) -> bool:
    """Return whether a file or folder exists; raise `InputError` if the path cannot be accessed."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be accessed ({reason}); check the path") from error
    return True


def read_text(path: str | Path, remedy: str = "download or write it again") -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: the file cannot be read, or is not UTF-8 (this message ends with `remedy`).
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; {remedy}") from error


def read_json_object(path: str | Path, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file; other content raises `InputError` with advice `remedy`."""
    return _read_json(path, dict, "json object", remedy)


def read_json_list(path: str | Path, remedy: str) -> list[Any]:
    """Return the list in a JSON file; other content raises `InputError` with advice `remedy`."""
    return _read_json(path, list, "list of records", remedy)


def _read_json(path: str | Path, kind: type, noun: str, remedy: str) -> Any:
    try:
        content = json.loads(read_text(path, remedy))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not json ({error}); {remedy}") from error
    if not isinstance(content, kind):
        raise InputError(f"{path}: is not a {noun}; {remedy}")
    return content


def check_folder(path: str | Path) -> None:
    """Raise `InputError` if the path, or its nearest existing parent, is a file."""
    nearest = next(p for p in (Path(path), *Path(path).absolute().parents) if exists(p))
    if not nearest.is_dir():
        which = "it" if nearest == Path(path) else f"{nearest}"
        raise InputError(f"{path}: {which} is a file; name another folder")


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents, and return its path; raise `InputError` on failure."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be created ({error.strerror}); name another folder"
        ) from error
    return path


LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder until the context ends or the process dies.

    Raises:
        InputError: another process holds the lock, or the file system has no locks.
    """
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is writing it; wait for it, or name another folder"
            ) from error
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be locked ({error.strerror}); name a folder on a file system "
                "that supports locks"
            ) from error
        yield


def remove(path: Path) -> None:
    """Remove a file if it exists; raise `InputError` if it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be replaced ({error.strerror}); name another file"
        ) from error


def write_atomic(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Write a file atomically: call `write` with a temporary path, then rename it to `path`.

    The file gets default permissions, even if `write` makes the temporary file private. Raises
    `InputError` if the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{_partial_prefix(path.name)}.{os.getpid()}.partial")
    try:
        with partial.open("wb"):
            mode = partial.stat().st_mode
        write(partial)
        partial.chmod(mode)
        os.replace(partial, path)
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        too_long = error.errno == errno.ENAMETOOLONG
        remedy = "shorten its name" if too_long else "name a writable location"
        raise InputError(f"{path}: {problem}; {remedy}") from error
    finally:
        with suppress(OSError):  # the file was renamed
            partial.unlink()


def _partial_prefix(name: str) -> str:
    """Return the start of the temporary name of a file, which has room beside any name."""
    return hashlib.sha256(printable(name).encode()).hexdigest()[:16]


def is_partial(path: Path, name: str) -> bool:
    """Return whether a path is what a killed process left of writing a file called `name`."""
    prefixes = (f"{name}.", f"{_partial_prefix(name)}.")
    return path.suffix == ".partial" and path.name.startswith(prefixes)


def printable(text: str) -> str:
    r"""Return a text as it is stored and shown: bytes that are no UTF-8 become \udc80 to \udcff.

    Python reads such bytes of a file name as lone surrogates, which UTF-8 cannot encode. In JSON,
    the escapes are read as the same surrogates.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def check_encodable(value: Any, where: str) -> None:
    """Raise `InputError`, which begins with `where`, if a text in a JSON value is not UTF-8.

    JSON can escape half of a character (a lone surrogate), which UTF-8 cannot encode.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        part = printable(text[max(0, error.start - 20) : error.end + 10])
        raise InputError(
            f"{where}: has half a character (a lone surrogate), which is not UTF-8 text, in "
            f"... {part} ...; repair it or take it out"
        ) from error


def check_library_path(path: str | Path) -> None:
    """Raise `InputError` if a path is not UTF-8, which libraries for large data sets need."""
    if printable(str(path)) != str(path):
        raise InputError(
            f"{path}: its name is not UTF-8, and array_record and orbax cannot open it; rename "
            "the folder, or name another"
        )


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically, as `printable` text; see `write_atomic`."""
    write_atomic(path, lambda partial: partial.write_text(printable(text), "utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write an object to a JSON file atomically; see `write_atomic`."""
    write_text(path, json.dumps(content, indent=2) + "\n")
