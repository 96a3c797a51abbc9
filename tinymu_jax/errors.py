"""The exception for bad input, and functions that raise it or print it in one line."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Message = str | Callable[[Exception], str]
"""Error message in which "{reason}" stands for the caught exception's message; or a function that
returns the message for the caught exception."""


class InputError(ValueError):
    """The input cannot be used; the message names the file, key or record, and the remedy.

    Commands print the message in one line and exit with code 2.
    """


def reason_of(error: Exception, max_length: int = 200) -> str:
    """Returns an exception's message, or the class name if there is no message, in one line."""
    return " ".join(str(error).split())[:max_length] or type(error).__name__


@contextmanager
def translate(
    message: Message, specific: Mapping[type[Exception], Message] | None = None
) -> Iterator[None]:
    """Converts any exception in the context to an `InputError`; an `InputError` passes unchanged.

    All exceptions are caught, since disks, clouds and HTTP clients each raise different classes::

        with translate(
            f"{url}: cannot be copied ({{reason}}); check the address",
            {FileNotFoundError: f"{url}: does not exist; check the address"},
        ):
            files.get(url, folder)

    Args:
        message: message of the `InputError`, which says what failed, and the remedy.
        specific: other messages for some exception classes; the first matching class is used.
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
    """Prints an error's message to stderr in one line."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Catches an error in the context, prints it in one line, and exits the process.

    The exit code is 2 for bad input or an OSError, 130 for Ctrl-C, and 1 if the output is closed.
    """
    try:
        yield
    except InputError as error:
        report(error)
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
