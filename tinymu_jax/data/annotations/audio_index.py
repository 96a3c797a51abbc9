"""Index of the audio files below a folder, by the identifiers that data sets give them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.audio.load import list_audio_files
from tinymu_jax.errors import InputError

MUSICCAPS = "musiccaps"
"""Its identifiers are a YouTube id, "_" and the second that the clip begins at."""

_CAPS_FILE = re.compile(r"\[?(.{11})\]?-\[\d+-\d+\]")
"""How MuChoMusic names MusicCaps' clips: "[id]-[30-40]"."""


class AudioIndex(NamedTuple):
    """The recordings below a folder, by the identifiers that their names may stand for."""

    folder: Path
    files: Mapping[str, tuple[Path, ...]]


def index_audio(folder: str | Path) -> AudioIndex:
    """Lists the recordings below a folder.

    "7.wav" is 7, "04/1004034.2min.mp3" is 1004034 as in Song Describer, and "[id]-[30-40].wav" is
    the id of a YouTube video, as MuChoMusic names MusicCaps' clips.

    Raises:
        InputError: there are none.
    """
    files: dict[str, tuple[Path, ...]] = {}
    for path in list_audio_files(folder):
        stem = path.stem.removesuffix(".2min")
        caps = _CAPS_FILE.fullmatch(stem)
        name = caps[1] if caps else stem
        files[name] = (*files.get(name, ()), path)
    return AudioIndex(Path(folder), files)


def find_audio(index: AudioIndex, dataset: str, identifier: str) -> Path | None:
    """Returns the recording of an identifier, or None if there is none.

    One in a folder with the data set's name is preferred. MusicCaps' clips may be named without
    the second that they begin at.

    Raises:
        InputError: there are several.
    """
    name = identifier.removesuffix(".json")
    names = [name, name.rpartition("_")[0]] if dataset == MUSICCAPS else [name]
    found = next((index.files[n] for n in names if n in index.files), ())
    own = [p for p in found if dataset in p.relative_to(index.folder).parts[:-1]] or found
    if len(own) > 1:
        raise InputError(
            f"{own[0]} and {own[1]}: either may be {name} of {dataset}; keep one of them below "
            f"{index.folder}"
        )
    return own[0] if own else None
