"""Opens text files in UTF-8, or UTF-16 and UTF-32 with a byte order mark; refuses the rest."""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tinymu_jax.errors import InputError
from tinymu_jax.utils.pipes import is_pipe, read_pipe

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = {
    b"PK\x03\x04": "is a zip archive or a workbook, not text; export the table as a csv in UTF-8",
    b"\x1f\x8b": "is compressed (gzip), not text; unpack it",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook, not text; export the table as a csv in UTF-8",
}
"""Problem and remedy of files that are no text, by their first bytes."""
_CODECS = {"WINDOWS-1252": "cp1252", "MACINTOSH": "mac_roman", "CP850": "cp850"}
"""Name for iconv -> Python's name of the encodings that spreadsheets write besides UTF-8."""
_LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøœùúûüÿßÄÖÜÉ\u2018\u2019\u201c\u201d\u2013\u2014\u2026")
"""Frequent characters of Western European texts that are not in ASCII."""
_CONTEXT = 12
"""Number of bytes around a wrong byte that an error shows."""


@contextmanager
def open_text(path: str | Path, remedy: str, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file for reading; `newline` is as in Python's `open`.

    A byte order mark is removed. UTF-16 without a mark is recognized by its zero bytes.

    Raises:
        OSError: the file cannot be read.
        InputError: the file is not text (`remedy` ends the message), or is in another encoding.
    """
    try:
        with _open_bytes(Path(path)) as file:
            encoding = _encoding(file.peek(64))
            if encoding is None:
                raise InputError(f"{path}: is not text; {remedy}")
            with io.TextIOWrapper(file, encoding=encoding, newline=newline) as text:
                yield text
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {_problem(Path(path), error, remedy)}") from error


def _open_bytes(path: Path) -> io.BufferedReader:
    """Open a file for reading; a pipe is read to its end, since opening it may wait forever."""
    if is_pipe(path):
        return io.BufferedReader(io.BytesIO(read_pipe(path)))
    return path.open("rb")


def _encoding(head: bytes) -> str | None:
    """Return the encoding of a file that begins with `head`; None if it is no text."""
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked or head.count(0) <= len(head) / 4:
        return marked or "utf-8"
    if 0 not in head[0::2]:
        return "utf-16-le"
    return None if 0 in head[1::2] else "utf-16-be"


def _problem(path: Path, error: UnicodeDecodeError, remedy: str) -> str:
    """Return why a file cannot be decoded, and the remedy."""
    content = path.read_bytes() if path.is_file() else error.object
    for head, problem in _BINARY.items():
        if content.startswith(head):
            return problem
    if error.encoding != "utf-8":
        return f"is not text; {remedy}"
    if len(re.findall(rb"[\x00-\x08\x0e-\x1f]", content)) > len(content) / 50:
        return f"is not text; {remedy}"
    try:
        content.decode()
    except UnicodeDecodeError as first_error:
        error = first_error
    return _other_encoding(content, error, path.name, remedy)


def _other_encoding(content: bytes, error: UnicodeDecodeError, name: str, remedy: str) -> str:
    """Return a message: which line is not UTF-8, the likely encoding, and how to convert the file.

    The message shows some of the text in that encoding, for the user to judge. The file is not read
    in it: Windows-1252 and similar encodings accept nearly any bytes, so a wrong guess would go
    unnoticed.
    """
    lines = re.split(rb"\r\n|[\r\n]", content[: error.start])
    # A last lone byte is half a character only where the text before it is in UTF-8, not ASCII.
    if error.reason == "unexpected end of data" and not content[: error.start].isascii():
        return f"line {len(lines)} ends in the middle of a character; {remedy}"
    rest = re.split(rb"[\r\n]", content[error.start : error.start + _CONTEXT])[0]
    sample = lines[-1][-_CONTEXT:] + rest
    problem = f"line {len(lines)} is not UTF-8 text"
    if re.search(rb"[\x80-\xff]{4}", sample):
        return f"{problem} (perhaps Windows-1251, Shift-JIS or GBK); save the file as UTF-8"
    texts = {name: sample.decode(codec, "replace") for name, codec in _CODECS.items()}
    likely = max(texts, key=lambda name: sum(letter in _LETTERS for letter in texts[name]))
    return (
        f"{problem} but probably {likely} ({texts[likely]!r}); save the file as UTF-8, for example "
        f"with: iconv -f {likely} -t UTF-8 {name} > utf8_{name}"
    )
