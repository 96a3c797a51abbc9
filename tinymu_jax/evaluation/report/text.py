"""Makes text from outside fit for a report: no control characters, no folders of this machine."""

import re
from pathlib import PurePosixPath, PureWindowsPath

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that neither HTML nor XML may hold."""

FOLDERS = re.compile(r"(?<![\w/.:<])(?:/|[A-Za-z]:\\)(?:[^/\\\s'\"]+[/\\])+(?=[^/\\\s'\"])")
"""The folders of an absolute path in running text."""


def printable(text: str) -> str:
    """Returns a text with control characters escaped, as in `\\x1b`."""
    return CONTROL.sub(lambda character: ascii(character[0])[1:-1], text)


def without_folders(text: str) -> str:
    """Returns a text with absolute paths cut to file names, since reports are passed on."""
    return FOLDERS.sub("", text)


def file_name(path: str) -> str:
    """Returns the last part of a path."""
    return _path(path).name


def checkpoint_name(checkpoint: str) -> str:
    """Returns a checkpoint's name without the folders of this machine.

    A step keeps the name of its run: "/home/me/runs/sft/checkpoints/1200" gives
    "sft/checkpoints/1200".
    """
    path = _path(checkpoint)
    if not path.is_absolute():
        return checkpoint
    parts = path.parts[1:]
    start = len(parts) - 1
    while start > 0 and (parts[start].isdigit() or parts[start] == "checkpoints"):
        start -= 1
    return "/".join(parts[max(start, 0) :]) or checkpoint


def _path(path: str) -> PurePosixPath | PureWindowsPath:
    """Parses a path of whichever system wrote the report."""
    windows = PureWindowsPath(path)
    return windows if windows.drive else PurePosixPath(path)
