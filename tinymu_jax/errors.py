"""`InputError`, the exception for bad input, and functions that raise or print errors."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

Message = str | Callable[[Exception], str]
"""Text with "{reason}" for the exception's message, or a function from exception to text."""


MAX_MESSAGE = 1_500
"""Largest number of characters of an error's message."""


class InputError(ValueError):
    """Bad input; the message names the file, key or record, and the remedy.

    Commands print the message in one line and exit with code 2. A message of more than
    `MAX_MESSAGE` characters (it quotes a long value) loses its middle.
    """

    def __init__(self, message: str) -> None:
        half = MAX_MESSAGE // 2
        long = len(message) > MAX_MESSAGE
        super().__init__(f"{message[:half]} ... {message[-half:]}" if long else message)


def reason_of(error: Exception, max_length: int = 200) -> str:
    """Return an exception's message in one line (up to `max_length`), or else its class name."""
    return " ".join(str(error).split())[:max_length] or type(error).__name__


@contextmanager
def translate(
    message: Message, specific: Mapping[type[Exception], Message] | None = None
) -> Iterator[None]:
    """Convert any exception in the `with` block, except an `InputError`, to an `InputError`.

    The error's text is `message`, or the entry of `specific` for the exception's class. "{reason}"
    in it is replaced by the exception's message::

        with translate(
            f"{url}: cannot be copied ({{reason}}); check the address",
            {FileNotFoundError: f"{url}: does not exist; check the address"},
        ):
            files.get(url, folder)
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        matches = (text for kind, text in (specific or {}).items() if isinstance(error, kind))
        chosen = next(matches, message)
        text = chosen if isinstance(chosen, str) else chosen(error)
        raise InputError(text.replace("{reason}", reason_of(error))) from error


def report(error: Exception) -> None:
    """Print an error's message to stderr in one line."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


def note(text: str) -> None:
    """Print a note to stderr in one line."""
    print(f"note: {' '.join(text.split())}", file=sys.stderr)


@cache
def note_damage(recording: str, damage: str) -> None:
    """Print what is wrong with a recording of which only a part is used, once per recording."""
    note(f"{recording}: {damage}; what can be read is used")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Catch an error in the `with` block, print it in one line, and exit the process.

    The exit code is 2 for bad input or an OSError, 130 for Ctrl-C, and 1 for a closed output pipe.
    """
    try:
        yield
    except InputError as error:
        report(error)
        raise SystemExit(2) from None
    except UnicodeEncodeError as error:
        part = ascii(error.object[max(0, error.start - 20) : error.end + 20])
        report(InputError(f"{part}: is not UTF-8 text; rename the file, or repair the text"))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The process that reads the output has ended (`| head`), so nothing can be printed.
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        report(InputError(f"{error.filename or 'output'}: {error.strerror or error}"))
        raise SystemExit(2) from None
