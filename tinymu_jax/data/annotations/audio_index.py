"""Finds the audio file of a data set's clip by the clip identifier in the file's name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.audio.files import canonical_name, composed, list_audio_files
from tinymu_jax.errors import InputError

MUSICCAPS = "musiccaps"
"""Data set with clip identifiers of the form "<YouTube id>_<start in seconds>"."""
PREFERRED = (".wav", ".flac", ".ogg", ".mp3")
"""Suffixes of the files that are taken where a clip has files of several formats."""
_CAPS_FILE = re.compile(r"\[?(.{11})\]?-\[\d+-\d+\]")
"""Matches file names such as "[id]-[30-40]", which MuChoMusic gives to MusicCaps clips."""


class AudioIndex(NamedTuple):
    """Paths of the recordings below a folder, by the clip identifier in the file name."""

    folder: Path
    files: Mapping[str, tuple[Path, ...]]


def index_audio(folder: str | Path) -> AudioIndex:
    """Index the recordings below a folder by the clip identifiers in their file names.

    "7.wav" has the identifier 7 and "04/1004034.2min.mp3" (Song Describer) has 1004034. In
    "[id]-[30-40].wav" (a MusicCaps clip in MuChoMusic), `id` is the YouTube id.
    "04/1004034.low.mp3" (MTG-Jamendo) has the identifier 1004034 if no other recording has it.

    Raises:
        InputError: the folder holds no recordings.
    """
    files: dict[str, tuple[Path, ...]] = {}
    for path in list_audio_files(folder, all_names=True):
        stem = path.stem.removesuffix(".2min")
        caps = _CAPS_FILE.fullmatch(stem)
        name = composed(caps[1] if caps else stem)
        files[name] = (*files.get(name, ()), path)
    for name, paths in list(files.items()):
        files.setdefault(canonical_name(name), paths)
    return AudioIndex(Path(folder), files)


def find_audio(index: AudioIndex, dataset: str, identifier: str) -> Path | None:
    """Return the path of a clip's recording; None if it is missing.

    `identifier` is the clip's identifier in the data set `dataset`. If several files match, those
    below a folder named `dataset` are preferred, and then wav files and the like to videos. A file
    name of MusicCaps may lack the start time.

    Raises:
        InputError: more than one recording matches the identifier.
    """
    name = composed(identifier.removesuffix(".json"))
    names = [name, name.rpartition("_")[0]] if dataset == MUSICCAPS else [name]
    matches = next((index.files[n] for n in names if n in index.files), ())
    inside = [p for p in matches if dataset in p.relative_to(index.folder).parts[:-1]]
    candidates = inside or matches
    # A video is often kept beside the wav that was made of it.
    candidates = tuple(p for p in candidates if p.suffix.lower() in PREFERRED) or candidates
    if len({path.resolve() for path in candidates}) > 1:
        raise InputError(
            f"{candidates[0]} and {candidates[1]}: either may be {name} of {dataset}; keep one of "
            f"them below {index.folder}"
        )
    return candidates[0] if candidates else None
