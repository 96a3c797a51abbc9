"""Clean texts for a report: escape control characters, remove the folders of local paths."""

import re
from pathlib import PurePosixPath, PureWindowsPath

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Pattern of the characters that neither HTML nor XML allows."""
FOLDERS = re.compile(r"(?<![\w/.:<])(?:/|[A-Za-z]:\\)(?:[^/\\\s'\"]+[/\\])+(?=[^/\\\s'\"])")
"""Pattern of the folders in an absolute path inside running text."""


def printable(text: str) -> str:
    """Return a text with control characters escaped, as in `\\x1b`."""
    return CONTROL.sub(lambda character: ascii(character[0])[1:-1], text)


def without_folders(text: str) -> str:
    """Return a text with absolute paths cut to file names, so that reports can be passed on."""
    return FOLDERS.sub("", text)


def file_name(path: str) -> str:
    """Return the last part of a POSIX or Windows path."""
    return _path(path).name


def checkpoint_name(checkpoint: str) -> str:
    """Return the last folder of a checkpoint's absolute path; return other names unchanged.

    A checkpoint of a training run keeps the name of the run: "/runs/sft/checkpoints/1200"
    becomes "sft/checkpoints/1200".
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
    """Parse a path as a Windows path if it has a drive, else as a POSIX path."""
    windows = PureWindowsPath(path)
    return windows if windows.drive else PurePosixPath(path)
