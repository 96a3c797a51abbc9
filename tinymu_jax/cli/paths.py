"""Paths in the arguments of commands: names that look like options, and "~" for the home folder."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TypeVar

from tinymu_jax.audio.files import is_audio
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import expand_user

Value = TypeVar("Value")
TEXT_FIELDS = ("prompt", "option")
"""Fields of commands that hold texts, in which "~" is no folder."""


def check_dashes(arguments: Sequence[str]) -> None:
    """Raise `InputError` if a file's name or a text begins with "-" and would be read as an option.

    The shell may expand "*.ogg" to such names. Arguments after "--" are not checked.
    """
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for before, name in zip(("", *arguments), arguments, strict=False):
        if _is_file_name(name):
            suffix = Path(name).suffix
            raise InputError(
                f'{name}: begins with "-" and is read as an option; write ./*{suffix} for '
                f"*{suffix} (./{name} for one file), or put -- before the names"
            )
        if _is_text(name) and before.startswith("--") and "=" not in before:
            raise InputError(
                f'{name}: begins with "-" and is read as an option; write {before}='
                f"{shlex.quote(name)}"
            )


def _is_file_name(name: str) -> bool:
    """Return whether an argument that begins with "-" is the name of a file, not an option."""
    if not name.startswith("-") or name == "-h":
        return False
    may_be_option = name.startswith("--") and "." not in name
    is_recording = is_audio(Path(name)) and "=" not in name
    return is_recording or (os.path.exists(name) and not may_be_option)


def _is_text(name: str) -> bool:
    """Return whether an argument that begins with "-" is neither an option nor a number."""
    has_space = name.startswith("--") and any(c.isspace() for c in name.partition("=")[0])
    return has_space or (re.match(r"-[^-\d.]", name + " ") is not None and name not in ("-", "-h"))


def expand_home(value: Value) -> Value:
    """Return a command or config in which a "~" at the beginning of a path is the home folder.

    The shell does not expand "~" in `--output=~/run`, in quotes and in config files.
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
    return expand_user(value)
