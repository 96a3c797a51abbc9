"""Folders of recordings."""

from pathlib import Path

from tinymu_jax.errors import InputError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def heard_in(folder: str | Path) -> list[Path]:
    """Returns the recordings in a folder and those below it, sorted.

    Raises:
        InputError: there are none.
    """
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: has no recordings ({', '.join(SUFFIXES)}); name others")
    return found
