"""Reads pipes: named ones, those of a shell's `<(...)`, and stdin."""

import os
import select
import stat
import time
from pathlib import Path

from tinymu_jax.errors import InputError

MAX_STREAM_BYTES = 512 * 2**20
"""Most bytes that are read from a pipe."""
WRITER_SECONDS = 3.0
"""Seconds to wait for a program that opens a named pipe for writing."""
SILENT_SECONDS = 60.0
"""Seconds to wait for the next bytes from a program that writes to a pipe."""


def is_pipe(path: str | Path) -> bool:
    """Return whether a path names a pipe; False if it is missing or cannot be accessed."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_pipe(path: Path) -> bytes:
    """Read a pipe to its end.

    Raises:
        InputError: no program writes to it, the program writes nothing for long, or it writes too
            much.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits until another program opens it.
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check who may read it"
        ) from error
    try:
        return _read_to_end(pipe, path)
    finally:
        os.close(pipe)


def _read_to_end(pipe: int, path: Path) -> bytes:
    content, ready = bytearray(), select.poll()
    ready.register(pipe, select.POLLIN)
    deadline = time.monotonic() + WRITER_SECONDS
    while True:
        events = ready.poll(100)
        try:
            block = os.read(pipe, 1 << 20)
        except BlockingIOError:
            # A program has opened the pipe, and has written nothing yet.
            if time.monotonic() > deadline + SILENT_SECONDS - WRITER_SECONDS:
                raise InputError(
                    f"{path}: nothing came from this pipe for {SILENT_SECONDS:g} s; check the "
                    "program that writes to it"
                ) from None
            continue
        if block:
            content += block
            deadline = time.monotonic() + WRITER_SECONDS
            if len(content) > MAX_STREAM_BYTES:
                raise InputError(
                    f"{path}: more than {MAX_STREAM_BYTES >> 20} MiB come from this pipe; write "
                    "them to a file, and name that"
                )
        elif events or content:
            return bytes(content)
        elif time.monotonic() > deadline:
            raise InputError(f"{path}: no program writes to this pipe; start one, or name a file")
