"""Writes m3u8 playlists, one per value of a field."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import mutagen

from tinymu_jax.errors import InputError
from tinymu_jax.library.tag_values import Values
from tinymu_jax.utils.files import exists, make_folder, printable, write_atomic

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
"""Characters that a file name cannot hold on some system."""
_MAX_NAME = 100
"""Largest number of characters of a playlist's name."""


class Entry(NamedTuple):
    """A recording that may be in playlists."""

    path: Path
    seconds: float
    """Length of the recording; -1 if it is not known, as in m3u."""
    values: Values


def write_playlists(
    entries: Sequence[Entry], field: str, folder: Path, overwrite: bool
) -> tuple[list[Path], list[str]]:
    """Write a playlist for each value of a field, with the recordings in sorted order.

    Playlists are in UTF-8, with paths relative to `folder`.

    Returns the paths of the playlists, and a sentence for each recording that a playlist cannot
    hold.

    Raises:
        InputError: a playlist exists with other content and `overwrite` is false (then none is
            written), or cannot be written.
    """
    groups: dict[str, list[Entry]] = {}
    left_out = []
    for entry in sorted(entries, key=lambda entry: os.fsencode(entry.path)):
        values = entry.values.get(field, ())
        problem = _problem(relative_path(entry.path, folder)) if values else ""
        if problem:
            left_out.append(f"{printable(str(entry.path))}: {problem}; it is in no playlist")
            continue
        for value in values:
            groups.setdefault(value, []).append(entry)
    make_folder(folder)
    texts = {
        folder / name: _playlist_text(groups[value], folder)
        for value, name in playlist_names(field, sorted(groups)).items()
    }
    for path, text in texts.items():
        if exists(path) and not overwrite and path.read_bytes() != text.encode():
            raise InputError(f"{path}: is another playlist; pass --overwrite to replace it")
    for path, text in texts.items():
        content = text.encode()
        write_atomic(path, lambda partial, content=content: partial.write_bytes(content))
    return list(texts), left_out


def playlist_names(field: str, values: Sequence[str]) -> Mapping[str, str]:
    """Return a file name for each value, such as "mood - calm.m3u8".

    Characters that a file system may refuse become "_"; names that are the same in lower case get
    a number.
    """
    names: dict[str, str] = {}
    used = set()
    for value in values:
        stem = _UNSAFE.sub("_", f"{field} - {value}")[:_MAX_NAME].strip(" .")
        name, number = stem, 1
        while name.casefold() in used:
            number += 1
            name = f"{stem} ({number})"
        used.add(name.casefold())
        names[value] = f"{name}.m3u8"
    return names


def _problem(name: str) -> str:
    """Return why a playlist cannot hold a path; "" if it can."""
    if "\r" in name or "\n" in name:
        return "its path has a line break"
    if printable(name) != name:
        return "its path is not UTF-8"
    return ""


def _playlist_text(entries: Sequence[Entry], folder: Path) -> str:
    lines = ["#EXTM3U"]
    for entry in entries:
        title = " ".join(_title(entry.path).split())
        lines += [f"#EXTINF:{round(entry.seconds)},{title}", relative_path(entry.path, folder)]
    return printable("\n".join(lines) + "\n")


def relative_path(path: Path, folder: Path) -> str:
    """Return a file's path relative to a playlist's folder, as a playlist has to name it."""
    # The links in the folder's path are resolved: ".." leads to the real parent.
    place = os.path.join(os.path.realpath(path.parent), path.name)
    name = os.path.relpath(place, os.path.realpath(folder)).replace(os.sep, "/")
    # A comment begins with "#", a URL has ":", and players strip spaces.
    is_ambiguous = name[0] in "#\ufeff" or name[0].isspace() or ":" in name.partition("/")[0]
    return f"./{name}" if is_ambiguous else name


def _title(path: Path) -> str:
    """Return "artist - title" of a file's tags, or else its name without the suffix."""
    try:
        tags = mutagen.File(path, easy=True)
        title, artist = ((tags.get(name) or [""])[0] for name in ("title", "artist"))
    except Exception:  # mutagen raises many kinds of errors for damaged files
        title = artist = ""
    return f"{artist} - {title}" if title and artist else title or path.stem
