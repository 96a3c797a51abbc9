"""An index from a data set's clip identifiers to the audio files below a folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.audio.load import list_audio_files
from tinymu_jax.errors import InputError

MUSICCAPS = "musiccaps"
"""Data set whose clip identifiers consist of a YouTube id, "_" and the clip's first second."""
_CAPS_FILE = re.compile(r"\[?(.{11})\]?-\[\d+-\d+\]")
"""Matches the file names that MuChoMusic gives to MusicCaps clips, such as "[id]-[30-40]"."""


class AudioIndex(NamedTuple):
    """The recordings below a folder, grouped by the clip identifiers in the file names."""

    folder: Path
    files: Mapping[str, tuple[Path, ...]]


def index_audio(folder: str | Path) -> AudioIndex:
    """Indexes the recordings below a folder by the identifiers in their names.

    "7.wav" has the identifier 7, "04/1004034.2min.mp3" (Song Describer) has 1004034, and
    "[id]-[30-40].wav" (a MusicCaps clip in MuChoMusic) has the YouTube id between the brackets.

    Raises:
        InputError: the folder holds no recordings.
    """
    files: dict[str, tuple[Path, ...]] = {}
    for path in list_audio_files(folder):
        stem = path.stem.removesuffix(".2min")
        caps = _CAPS_FILE.fullmatch(stem)
        name = caps[1] if caps else stem
        files[name] = (*files.get(name, ()), path)
    return AudioIndex(Path(folder), files)


def find_audio(index: AudioIndex, dataset: str, identifier: str) -> Path | None:
    """Returns the path of the recording with a data set's clip identifier; None if it is missing.

    If several files match, files in a folder with the data set's name are preferred. The name
    of a MusicCaps file may lack the clip's first second.

    Raises:
        InputError: more than one recording matches the identifier.
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
