"""Finds recordings on disk: the suffixes of audio files, one walk of a folder, and names of lists.

All commands that take a folder list it here, so that all of them see the same recordings.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.errors import InputError, note
from tinymu_jax.utils.files import expand_user

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        # read by libsndfile
        *("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "mp2", "mpga", "aif", "aiff", "aifc"),
        *("au", "snd", "caf", "w64", "rf64", "sph", "nist", "voc", "avr", "paf", "pvf", "wve"),
        # read by FFmpeg
        *("m4a", "m4b", "m4r", "mp4", "m4v", "mov", "3gp", "aac", "ac3", "eac3", "dts", "webm"),
        *("mka", "mkv", "wma", "asf", "wv", "tta", "ape", "mpc", "amr", "spx", "ogv", "avi"),
        *("flv", "dsf", "dff", "weba", "alac"),
    )
)
"""Suffixes, in lower case, of the files that are taken for recordings."""
MAX_REPORTED = 5
"""Number of suffixes that a note about passed over files names one by one."""
_JAMENDO_TRACK = re.compile(r"\d+")
_LOW_QUALITY_NAME = re.compile(r"^(\d+)\.low(?=$|\.mp3$)")


class Listing(NamedTuple):
    """The files below a folder."""

    files: list[Path]
    """Paths of the files, sorted; a file with several names has several paths."""
    passed_over: Counter[str]
    """What is below the folder besides `files` -> how often."""


def list_files(folder: str | Path) -> Listing:
    """List the files below a folder and below the folders that it links to.

    Each folder is listed once, even if several links, or a circle of links, lead to it; its own
    path is preferred to that of a link. Names that begin with a dot are passed over.

    Raises:
        InputError: the folder does not exist, or cannot be read.
    """
    files: list[Path] = []
    passed_over: Counter[str] = Counter()
    # Folders come before links to folders: their files are listed under their own paths.
    folders, links, visited = [Path(folder)], list[Path](), set[tuple[int, int]]()
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if place == Path(folder):
                raise InputError(
                    f"{folder}: cannot be listed ({error.strerror}); name a folder of recordings"
                ) from error
            passed_over[f"the folder {place} ({error.strerror})"] += 1
            continue
        for entry in ordered:
            path = place / entry.name
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(path) if is_link else entry.is_dir(follow_symlinks=False)
            if entry.name.startswith("."):
                passed_over["hidden"] += is_audio(path) and not is_folder
            elif is_folder:
                (links if is_link else folders).append(path)
            # A broken link is listed too: its recording is missing.
            elif entry.is_file(follow_symlinks=False) or (is_link and not _is_special(path)):
                files.append(path)
            else:
                passed_over["pipe or device"] += 1
    return Listing(sorted(files), +passed_over)


def _is_special(path: Path) -> bool:
    """Return whether a path leads to a pipe, a socket or a device."""
    return os.path.exists(path) and not os.path.isfile(path)


def is_audio(path: Path) -> bool:
    """Return whether a path has the suffix of an audio file."""
    return path.suffix.lower() in AUDIO_SUFFIXES


def list_audio_files(folder: str | Path, all_names: bool = False) -> list[Path]:
    """Return the sorted paths of the recordings below a folder; see `list_files`.

    A note on stderr, once per folder, counts the other files by suffix. If a recording also has
    links to it in the list, one path is returned; with `all_names`, all are.

    Raises:
        InputError: the folder does not exist, or has no recordings.
    """
    files, passed_over = list_files(folder)
    recordings = [path for path in files if is_audio(path)]
    others = Counter(path.suffix.lower() or "without a suffix" for path in files)
    for suffix in AUDIO_SUFFIXES:
        others.pop(suffix, None)
    others = _counted(others + passed_over)
    if not recordings:
        raise InputError(
            f"{folder}: has no recordings (.wav, .flac, .ogg, .mp3, .m4a or another audio format); "
            f"it {f'holds {others}' if others else 'is empty'}: name another folder"
        )
    distinct = _distinct(recordings)
    if others:
        _note_once(f"{folder}: {len(distinct):,} recordings; passed over: {others}")
    return recordings if all_names else distinct


def list_named(names: Iterable[str | Path]) -> Iterator[tuple[Path, Path | None]]:
    """Yield the recordings that are named, and those below the folders that are named.

    Each comes with the folder, or with None if it is named itself. Raises `InputError` as
    `list_audio_files` does.
    """
    for name in names:
        if os.path.isdir(name):
            yield from ((path, Path(name)) for path in list_audio_files(name))
        else:
            yield Path(name), None


def _counted(counts: Mapping[str, int]) -> str:
    """Return a text such as "3 .txt, 1 .jpg, 2 others", the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {name}" for name, count in ordered[:MAX_REPORTED]]
    rest = sum(count for _, count in ordered[MAX_REPORTED:])
    return ", ".join([*parts, f"{rest:,} others"] if rest else parts)


_note_once = lru_cache(maxsize=None)(note)


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Leave out links to files that have another path in `paths`."""
    paths = list(paths)
    links = [path for path in paths if path.is_symlink()]
    if not links:
        return paths
    linked, seen = set(links), set[tuple[int, int]]()
    repeated = set()
    for path in (*(path for path in paths if path not in linked), *links):
        try:
            status = os.stat(path)
        except OSError:  # a broken link
            continue
        key = status.st_dev, status.st_ino
        if key in seen and path in linked:
            repeated.add(path)
        seen.add(key)
    return [path for path in paths if path not in repeated]


def find_file(path: str | Path) -> Path:
    """Return the path that a file has on disk; `path` itself if the file is missing.

    A "~" at the beginning is the home folder. Two differences are allowed. An accented letter may
    be one character in `path` and two on disk, or the reverse (Unicode NFC and NFD). In place of
    "34/1004034.mp3", MTG-Jamendo's low quality "34/1004034.low.mp3" may be on disk.
    """
    path = Path(path)
    path = path if os.path.exists(path) else expand_user(path)
    for name in (path, _low_quality(path)):
        if name is None:
            continue
        if os.path.exists(name):
            return name
        same = _in_other_normal_form(name)
        if same is not None:
            return same
    return path


def _low_quality(path: Path) -> Path | None:
    """Return the path of an MTG-Jamendo track's low quality file; None for any other path."""
    # A track's folder is named by the last two digits of its number.
    if path.suffix != ".mp3" or not _JAMENDO_TRACK.fullmatch(path.stem):
        return None
    return path.with_suffix(".low.mp3") if path.parent.name == path.stem[-2:].zfill(2) else None


def _in_other_normal_form(path: Path) -> Path | None:
    """Return the existing path that differs from `path` only in its Unicode form, or None."""
    if str(path).isascii():
        return None
    place = Path(path.anchor)
    for part in path.relative_to(place).parts if path.anchor else path.parts:
        name = part
        if not os.path.exists(place / part):
            try:
                names = _names_by_form(place, os.stat(place).st_mtime_ns)
            except OSError:
                return None
            name = names.get(composed(part))
            if name is None:
                return None
        place /= name
    return place


def composed(text: str) -> str:
    """Return a text in the composed normal form (NFC), in which file names are compared."""
    return unicodedata.normalize("NFC", text)


def canonical_name(name: str) -> str:
    """Return the form of a file name, with or without its suffix, in which names are compared.

    That is NFC, with MTG-Jamendo's "1004034.low.mp3" as "1004034.mp3"; see `find_file`.
    """
    return composed(_LOW_QUALITY_NAME.sub(r"\1", name))


@lru_cache(maxsize=256)
def _names_by_form(folder: Path, modified: int) -> Mapping[str, str]:
    """Map the composed form (NFC) of each name in a folder to the name on disk.

    `modified` is the folder's modification time; a new time makes the cache read the folder again.
    """
    return {composed(name): name for name in sorted(os.listdir(folder), reverse=True)}
