"""Index of the audio files below a folder, by the clip identifiers of data sets."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.audio.load import list_audio_files
from tinymu_jax.errors import InputError

MUSICCAPS = "musiccaps"
"""Identifiers are a YouTube id, "_" and the clip's first second."""

_CAPS_FILE = re.compile(r"\[?(.{11})\]?-\[\d+-\d+\]")
"""MuChoMusic's file names of MusicCaps clips: "[id]-[30-40]"."""


class AudioIndex(NamedTuple):
    """The recordings below a folder, by identifier."""

    folder: Path
    files: Mapping[str, tuple[Path, ...]]


def index_audio(folder: str | Path) -> AudioIndex:
    """Indexes the recordings below a folder by the identifiers in their names.

    "7.wav" is 7, "04/1004034.2min.mp3" is 1004034 (Song Describer), and "[id]-[30-40].wav" is a
    YouTube id (MusicCaps, as MuChoMusic names it).

    Raises:
        InputError: there are no recordings.
    """
    files: dict[str, tuple[Path, ...]] = {}
    for path in list_audio_files(folder):
        stem = path.stem.removesuffix(".2min")
        caps = _CAPS_FILE.fullmatch(stem)
        name = caps[1] if caps else stem
        files[name] = (*files.get(name, ()), path)
    return AudioIndex(Path(folder), files)


def find_audio(index: AudioIndex, dataset: str, identifier: str) -> Path | None:
    """Returns the recording of an identifier, or None.

    Files in a folder with the data set's name are preferred. MusicCaps files may be named without
    the clip's first second.

    Raises:
        InputError: several recordings match.
    """
    name = identifier.removesuffix(".json")
    names = [name, name.rpartition("_")[0]] if dataset == MUSICCAPS else [name]
    matches = next((index.files[n] for n in names if n in index.files), ())
    inside = [p for p in matches if dataset in p.relative_to(index.folder).parts[:-1]]
    candidates = inside or matches
    if len(candidates) > 1:
        raise InputError(
            f"{candidates[0]} and {candidates[1]}: either may be {name} of {dataset}; keep one of "
            f"them below {index.folder}"
        )
    return candidates[0] if candidates else None
