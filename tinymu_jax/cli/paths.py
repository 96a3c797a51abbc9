"""Paths in the arguments of commands: names that look like options, and "~" for the home folder."""

import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TypeVar

from tinymu_jax.audio.files import is_audio
from tinymu_jax.errors import InputError

Value = TypeVar("Value")
TEXT_FIELDS = ("prompt", "option")
"""Fields of commands that hold texts, in which "~" is no folder."""


def check_file_names(arguments: Sequence[str]) -> None:
    """Raise `InputError` if the name of a file begins with "-", as some that "*.ogg" expands to.

    It would be read as an option. Arguments after "--" are never options.
    """
    names = list(arguments)
    for name in names[: names.index("--")] if "--" in names else names:
        is_name = (is_audio(Path(name)) and "=" not in name) or (
            "." in name and os.path.exists(name)
        )
        if name.startswith("-") and is_name:
            suffix = Path(name).suffix
            raise InputError(
                f'{name}: begins with "-" and is read as an option; write ./*{suffix} for '
                f"*{suffix} (./{name} for one file), or put -- before the names"
            )


def expand_home(value: Value) -> Value:
    """Return a command or config with the home folder in place of a leading "~" of its paths.

    The shell leaves "~" in `--output=~/run`, in quotes and in config files.
    """
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.init]
        old = {name: getattr(value, name) for name in names if name not in TEXT_FIELDS}
        new = {name: expand_home(item) for name, item in old.items()}
        changed = {name: item for name, item in new.items() if item is not old[name]}
        return replace(value, **changed) if changed else value
    if isinstance(value, tuple):
        items = tuple(map(expand_home, value))
        return value if items == value else items
    if isinstance(value, str | Path) and str(value).startswith("~"):
        return type(value)(os.path.expanduser(value))
    return value
