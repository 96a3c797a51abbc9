"""Reading and writing files so that what goes wrong is told in one line."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError


def exists(path: str | Path) -> bool:
    """Returns whether there is a file or folder.

    Raises:
        InputError: the path cannot be followed: a name too long, a folder that may not be entered.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be looked at ({reason}); check the path") from error
    return True


def read_text(path: str | Path, remedy: str = "download or write it again") -> str:
    """Returns the text of a file; `remedy` is what to do if it is none.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text; {remedy}") from error


def read_json_object(path: str | Path, remedy: str) -> dict[str, Any]:
    """Returns the object that a json file holds; `remedy` is what to do if it holds none.

    Raises:
        InputError: it cannot be read, is no json, or holds something else.
    """
    return _read_json(path, dict, "json object", remedy)


def read_json_list(path: str | Path, remedy: str) -> list[Any]:
    """Returns the list of records that a json file holds; arguments as `read_json_object`.

    Raises:
        InputError: it cannot be read, is no json, or holds something else.
    """
    return _read_json(path, list, "list of records", remedy)


def _read_json(path: str | Path, kind: type, named: str, remedy: str) -> Any:
    try:
        content = json.loads(read_text(path, remedy))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is no json ({error}); {remedy}") from error
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds no {named}; {remedy}")
    return content


def check_folder(path: str | Path) -> None:
    """Makes sure, without making anything, that no file is in the way of a folder.

    Raises:
        InputError: one is.
    """
    there = next(p for p in (Path(path), *Path(path).absolute().parents) if exists(p))
    if not there.is_dir():
        which = "it" if there == Path(path) else f"{there}"
        raise InputError(f"{path}: {which} is a file; name another folder")


def make_folder(path: str | Path) -> Path:
    """Makes a folder and those above it, if they are not there.

    Raises:
        InputError: a file is in the way, or the place cannot be written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be made a folder ({error.strerror}); name another place"
        ) from error
    return path


LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing a folder meanwhile; a kill gives it free.

    Raises:
        InputError: another process is writing it.
    """
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is writing it; wait for its end, or name another folder"
            ) from error
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be locked ({error.strerror}); name a folder on a file system "
                "that has locks"
            ) from error
        yield


def remove(path: Path) -> None:
    """Removes a file if it is there.

    Raises:
        InputError: it may not be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be replaced ({error.strerror}); name another place"
        ) from error


def write_atomic(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file under another name first: none is ever found half-written.

    The file gets the permissions of any new one, also where its writer makes it private.

    Raises:
        InputError: the place cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb"):
            mode = partial.stat().st_mode
        write(partial)
        partial.chmod(mode)
        os.replace(partial, path)
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise InputError(f"{path}: {problem}; name a place that can be written to") from error
    finally:
        with suppress(OSError):  # it is gone once it has taken the file's place
            partial.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file whole; see `write_atomic`."""
    write_atomic(path, lambda partial: partial.write_text(text, "utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a json file whole; see `write_atomic`."""
    write_text(path, json.dumps(content, indent=2) + "\n")
