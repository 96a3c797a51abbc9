"""The one error that users of the project see, and how commands end with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What was given cannot be used; the message names the file, key or record and the remedy.

    Commands print the message in one line and exit with code 2.
    """


def reason_of(error: Exception, most: int = 200) -> str:
    """Returns what another library's error says, in one line of at most so many characters.

    Disks, clouds and networks each have classes of their own; one that says nothing is named by
    its class.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def report(error: Exception) -> None:
    """Prints an error to stderr in one line."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program with code 2 and one line where an `InputError` comes out."""
    try:
        yield
    except InputError as error:
        report(error)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output has gone (`| head`); what is left has nowhere to go.
            sys.stderr.close()
            raise SystemExit(1) from None
        report(InputError(f"{error.filename or 'output'}: {error.strerror or error}"))
        raise SystemExit(2) from None
