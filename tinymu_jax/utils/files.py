"""Reads and writes files; errors name the file and the remedy."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tinymu_jax.errors import InputError
from tinymu_jax.utils.text import open_text

Name = TypeVar("Name")


def expand_user(path: Name) -> Name:
    """Return a path, or another value, in which a "~" at the beginning is the home folder."""
    if isinstance(path, str | Path) and str(path).startswith("~"):
        return type(path)(os.path.expanduser(path))
    return path


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


PLACEHOLDERS = {
    (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"): (
        "is a Git LFS pointer without the content; run `git lfs pull` in its repository"
    ),
    (b"/annex/objects/",): (
        "is a git-annex pointer without the content; run `git annex get` in its repository"
    ),
    (
        b"# xet version",
    ): "is a Xet pointer without the content; download the file from the hub again",
    (b"<!doctype html", b"<html", b"<?xml"): (
        "is a web page, not the file itself; download it again, logged in if the page asks for it"
    ),
}
"""First bytes of files that stand in for others, in lower case -> what they are, and a remedy."""


def check_content(path: str | Path, may_be_empty: bool = False) -> None:
    """Raise `InputError` if a file is empty (unless `may_be_empty`), or a placeholder.

    Placeholders are pointers of Git LFS, git-annex and Xet, and web pages or error pages in XML
    saved in place of a download.
    Missing files, pipes and other special files are not checked.
    """
    if os.path.islink(path) and not os.path.exists(path):
        if "annex/objects/" in os.readlink(path):
            raise InputError(
                f"{path}: its content is not here; run `git annex get` in its repository"
            )
        return
    if not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as file:
            start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
            is_empty = os.fstat(file.fileno()).st_size == 0
    except OSError:
        return  # reported by the reader
    if is_empty and not may_be_empty:
        raise InputError(f"{path}: the file is empty; copy or download it again")
    for starts, problem in PLACEHOLDERS.items():
        if start.startswith(starts):
            raise InputError(f"{path}: {problem}")


def read_text(path: str | Path, remedy: str = "download or write it again") -> str:
    """Return the text of a file, with "\\n" as line ends; see `open_text` for encodings.

    Raises:
        InputError: the file cannot be read, is a placeholder (see `check_content`), or is not text
            (this message ends with the advice `remedy`).
    """
    check_content(path, may_be_empty=True)
    try:
        with open_text(path, remedy) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def read_json_object(path: str | Path, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file; other content raises `InputError` with advice `remedy`."""
    content = parse_json(read_text(path, remedy), path, remedy)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a json object; {remedy}")
    return content


def parse_json(text: str, where: str | Path, remedy: str) -> Any:
    """Return the content of a JSON text.

    Raises:
        InputError: the text is empty or not JSON, or an object has a key twice. The message begins
            with `where`, the text's file and line, and ends with the advice `remedy`.
    """
    if not text.strip():
        raise InputError(f"{where}: is empty; {remedy}")
    try:
        return json.loads(text, object_pairs_hook=_with_different_keys)
    except (ValueError, RecursionError) as error:
        one_line = isinstance(error, json.JSONDecodeError) and "\n" not in text.strip()
        reason = f"{error.msg} at column {error.colno}" if one_line else str(error)
        raise InputError(f"{where}: is not json ({reason}); {remedy}") from error


def _with_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {repeated!r} twice")
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


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Create a folder and its parents, and yield its path; remove them after an error if unused.

    Unused means that the folder holds at most empty files that no other process has locked. Folders
    that existed before stay. Raises `InputError` if the folder cannot be created.
    """
    path = Path(path)
    created = [p for p in (path, *path.absolute().parents) if not exists(p)]
    make_folder(path)
    try:
        yield path
    except BaseException:
        if created and all(p.is_file() and not p.stat().st_size for p in path.iterdir()):
            with suppress(OSError):  # another process uses a folder
                for file in sorted(path.iterdir()):  # the lock is first
                    _remove_unlocked(file)
                for folder in created:
                    folder.rmdir()
        raise


def _remove_unlocked(path: Path) -> None:
    """Remove a file; raise `OSError` if another process has locked it."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder until the context ends or the process dies.

    After an `InputError` in the context, a lock file that was created here is removed.

    Raises:
        InputError: another process holds the lock, or the file system has no locks.
    """
    path = folder / LOCK_FILE
    is_new = not exists(path)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have removed the file since it was opened.
            if not (exists(path) and os.path.samestat(os.fstat(lock.fileno()), path.stat())):
                raise BlockingIOError
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is writing it; wait for it, or name another folder"
            ) from error
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be locked ({error.strerror}); name a folder on a file system "
                "that supports locks"
            ) from error
        try:
            yield
        except InputError:
            if is_new:
                remove(path)
            raise


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


def edit_atomic(path: str | Path, edit: Callable[[Path], Any]) -> None:
    """Replace a file atomically by a copy that `edit` has changed; a link is followed.

    `edit` gets the path of the copy, which lies beside the file. Mode, extended attributes and,
    where permitted, owner and group stay; other hard links to the file keep the old content. A
    killed process leaves the file as it was, and a copy that ends in ".partial", which the next
    edit of the file replaces.

    Raises:
        InputError: the file is read-only or cannot be replaced, another process is editing it, or
            it changed meanwhile.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f"{_partial_prefix(target.name)}.edit.partial")
    try:
        with target.open("rb") as file:
            before = os.fstat(file.fileno())
            # Root may write any file, but what nobody may write is meant to stay.
            if not before.st_mode & 0o222 or not os.access(target, os.W_OK):
                raise InputError(f"{path}: is read-only; make it writable (chmod u+w), or leave it")
            _lock_file(file.fileno(), path)
            _check_unchanged(path, target, before)
            try:
                shutil.copy2(target, partial)
                _copy_owner(before, partial)
                edit(partial)
                with partial.open("rb") as copy:
                    os.fsync(copy.fileno())
                _check_unchanged(path, target, before)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be replaced ({error.strerror or error}) and is as it was; check the "
            "permissions and the free space of its folder"
        ) from error


def _lock_file(descriptor: int, path: str | Path) -> None:
    """Lock a file until it is closed; do without where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{path}: another process is changing it; run this again later") from error
    except OSError:
        pass


def _check_unchanged(path: str | Path, target: Path, before: os.stat_result) -> None:
    now = target.stat()
    same = ("st_ino", "st_size", "st_mtime_ns")
    if any(getattr(now, name) != getattr(before, name) for name in same):
        raise InputError(f"{path}: another process is changing it; run this again later")


def _copy_owner(status: os.stat_result, path: Path) -> None:
    for owner, group in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
        with suppress(PermissionError):  # only root may give a file to another user
            os.chown(path, owner, group)
            path.chmod(stat.S_IMODE(status.st_mode))  # chown removes the setuid bits
            return


def _partial_prefix(name: str) -> str:
    """Return the start of a file's temporary name: a hash of `name`, which is never too long."""
    return hashlib.sha256(printable(name).encode()).hexdigest()[:16]


def is_partial(path: Path, name: str) -> bool:
    """Return whether `path` is a temporary file from an interrupted write of the file `name`."""
    prefixes = (f"{name}.", f"{_partial_prefix(name)}.")
    return path.suffix == ".partial" and path.name.startswith(prefixes)


def printable(text: str) -> str:
    r"""Return a text that UTF-8 can encode: lone surrogates become escapes, such as \udc80.

    In a file name, Python reads each byte that is not UTF-8 as a lone surrogate. In JSON, the
    escapes are read as the same surrogates.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def check_encodable(value: Any, where: str) -> None:
    """Raise `InputError` if a JSON value holds a text that UTF-8 cannot encode.

    Such a text has half a character (a lone surrogate), which JSON can escape. The error message
    begins with `where`.
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
    """Write a text as UTF-8, atomically (`write_atomic`), with escapes as in `printable`."""
    write_atomic(path, lambda partial: partial.write_text(printable(text), "utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write an object to a JSON file atomically; see `write_atomic`."""
    write_text(path, json.dumps(content, indent=2) + "\n")
