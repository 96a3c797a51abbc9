"""The error of bad input: raised by the library, printed in one line by the commands."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Message = str | Callable[[Exception], str]
"""A sentence, in which "{reason}" stands for what the caught error says; or a function of it."""


class InputError(ValueError):
    """The input cannot be used; the message names the file, key or record and the remedy.

    Commands print the message in one line and exit with code 2.
    """


def reason_of(error: Exception, max_length: int = 200) -> str:
    """Returns an exception's message in one line, or its class name if it has no message."""
    return " ".join(str(error).split())[:max_length] or type(error).__name__


@contextmanager
def translate(
    message: Message, specific: Mapping[type[Exception], Message] | None = None
) -> Iterator[None]:
    """Turns the exceptions of other libraries into an `InputError`; an `InputError` passes.

    Disks, clouds and HTTP clients each raise classes of their own, so all exceptions are caught::

        with translate(
            f"{url}: cannot be copied ({{reason}}); check the address",
            {FileNotFoundError: f"{url}: does not exist; check the address"},
        ):
            files.get(url, folder)

    Args:
        message: of the `InputError`: what failed, and the remedy.
        specific: messages for single classes of exceptions; the first that matches is used.
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
    """Prints an error to stderr in one line."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Prints errors of a command in one line and exits: 2 for bad input, 130 for an interrupt."""
    try:
        yield
    except InputError as error:
        report(error)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): there is nowhere to write to.
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        report(InputError(f"{error.filename or 'output'}: {error.strerror or error}"))
        raise SystemExit(2) from None
