"""Opens recordings: files, and pipes, which are read into memory once."""

import io
import os
import stat
from functools import cached_property
from pathlib import Path
from typing import overload

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_content, exists
from tinymu_jax.utils.pipes import read_pipe

BLOCK_BYTES = 256 * 2**10
"""Least bytes to read at once from a file."""
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_TEXT_HEADERS = (b"NIST_1A", b"PVF1\n")
"""First bytes of sound files whose header is text: NIST SPHERE and Portable Voice Format."""
_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))


class FileBytes:
    """The bytes of a file, of which a block is read when it is used.

    With a memory map instead, a program that cuts the file meanwhile would end this process.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        self._block, self._start = b"", 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: int | slice) -> int | bytes:
        """Return a byte at a position from 0 on, or the bytes of a slice.

        Raises:
            InputError: the file has been cut since it was opened, or cannot be read.
        """
        if not isinstance(key, slice):
            if not self._start <= key < self._start + len(self._block):
                self._read(key, 1)
            return self._block[key - self._start]
        start, stop, _ = key.indices(self._size)
        if start >= stop:
            return b""
        if start < self._start or stop > self._start + len(self._block):
            self._read(start, stop - start)
        return self._block[start - self._start : stop - self._start]

    def find(self, part: bytes, start: int = 0, stop: int | None = None) -> int:
        """Return the first position of `part` in the bytes [start, stop); -1 if none."""
        stop = self._size if stop is None else min(stop, self._size)
        while start + len(part) <= stop:
            end = self._start + len(self._block)
            if not self._start <= start <= end - len(part):
                self._read(start, len(part))
                end = self._start + len(self._block)
            place = self._block.find(part, start - self._start, min(stop, end) - self._start)
            if place >= 0:
                return self._start + place
            start = end - len(part) + 1
        return -1

    def _read(self, start: int, size: int) -> None:
        """Read a block that begins at `start` and has `size` bytes or more."""
        if start >= self._size:
            raise IndexError(start)
        size = min(max(size, BLOCK_BYTES), self._size - start)
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                block = file.read(size)
        except OSError as error:
            raise InputError(
                f"{self._path}: cannot be read ({error.strerror}); check the disk"
            ) from error
        if len(block) < size:
            raise InputError(f"{self._path}: was cut while it was read; copy it again")
        self._block, self._start = block, start


class Source:
    """A recording's bytes, in a file or in memory."""

    def __init__(self, name: str, path: Path | None, content: bytes = b"") -> None:
        """Store a file's `path`, or its `content` if `path` is None. Errors call it `name`."""
        self.name, self.path, self._content = name, path, content

    @cached_property
    def data(self) -> bytes | FileBytes:
        """All bytes; those of a file are read from the disk when they are used."""
        return self._content if self.path is None else FileBytes(self.path)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self._content) if self.path is None else self.path.stat().st_size

    def open(self) -> io.BufferedIOBase:
        """Return a new binary file object, to be closed by the caller."""
        return io.BytesIO(self._content) if self.path is None else self.path.open("rb")


def open_source(recording: "str | Path | bytes", name: str = "audio bytes") -> Source:
    """Open a recording: a path, "-" (stdin), or a file's content, which error messages call `name`.

    Raises:
        InputError: the recording is missing, a folder, empty, unreadable or text; or a pipe gives
            nothing, or too much.
    """
    if isinstance(recording, bytes):
        source = Source(name, None, recording)
    else:
        path = Path("/dev/stdin" if str(recording) == "-" else recording)
        check_content(path, may_be_empty=True)
        source = (
            Source(str(recording), path)
            if _is_file(path)
            else Source(str(path), None, read_pipe(path))
        )
    try:
        with source.open() as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(
            f"{source.name}: cannot be read ({error.strerror}); check who may read it"
        ) from error
    if not head:
        raise InputError(f"{source.name}: is empty; replace or skip it")
    if _is_text(head):
        raise InputError(f"{source.name}: is text, not a recording; name a sound file")
    return source


def is_stream(path: str | Path) -> bool:
    """Return whether a path names a pipe or "-" (stdin), which can be read only once."""
    path = "/dev/stdin" if str(path) == "-" else path
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _is_file(path: Path) -> bool:
    """Return False for a pipe; raise `InputError` if the path is missing, a folder or a device."""
    if not exists(path):
        raise InputError(f"{path}: no such file; check the path of the recording")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; name the recordings in it ({path}/*)")
    if stat.S_ISCHR(mode) and os.path.realpath(path) == os.path.realpath(os.devnull):
        raise InputError(f"{path}: is empty; replace or skip it")
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
        return stat.S_ISREG(mode)
    raise InputError(f"{path}: is no file but a device or terminal; name a file or a pipe")


def _is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a text, not of a sound file."""
    if head.startswith(_TEXT_HEADERS):
        return False
    encoding = _BYTE_ORDER_MARKS.get(head[:2])
    if encoding:
        head = head[2:].decode(encoding, "ignore").encode()
    if not head or any(byte in _CONTROL_BYTES for byte in head):
        return False
    return len(head.translate(None, bytes(range(128, 256)))) > len(head) / 2 or _is_utf8(head)


def _is_utf8(head: bytes) -> bool:
    try:
        head[:-3].decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 6
    return True
