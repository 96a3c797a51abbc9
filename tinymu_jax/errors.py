"""The one error that users of the project see."""


class InputError(ValueError):
    """What was given cannot be used; the message names the file, key or record and the remedy.

    The command line prints the message in one line and exits with code 2.
    """
