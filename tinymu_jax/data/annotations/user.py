"""Reads annotations of a user's recordings from a csv, or from tags inside the audio files."""

import os
import re
from pathlib import Path

from tinymu_jax.audio.decode import audio_length
from tinymu_jax.audio.ffmpeg import read_metadata
from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.data.annotations.clip import CATEGORIES, UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import printable
from tinymu_jax.utils.tables import FILE_COLUMNS, TableRow, read_rows

CAPTION_SEPARATOR = "|"
GENRE_SEPARATORS = re.compile(r"[;/,]")
"""Separators of several genres in the genre tag of an audio file."""
TAG_COLUMNS = {UNSORTED: "tags"} | {category: category for category in CATEGORIES}
"""Category -> name of the csv column that holds the category's labels."""
OTHER_COLUMNS = ("clip", "start", "end", "artist", "licence", "caption", "not", "exhaustive")
COLUMNS = (*FILE_COLUMNS, *OTHER_COLUMNS, *TAG_COLUMNS.values())
_REMEDY = f"name a csv with file (or file_name) and any of {', '.join(COLUMNS[2:])}"


def read_user_table(path: Path) -> Source:
    """Read the annotations in a user's csv; the source is named after the csv.

    Only the column `file` (or `file_name`) is required. Each category has a column of labels. The
    column `tags` holds labels without a category, `not` absent labels, and `exhaustive` the
    categories in which all labels are annotated; ";" or "|" separates entries. `caption` holds
    captions separated by "|". `start` and `end` are in seconds.
    """
    rows = read_rows(path, (), _REMEDY, optional=COLUMNS)
    return Source(path.stem, unique_clips((row, _clip(row)) for row in rows))


def _clip(row: TableRow) -> AnnotatedClip:
    files = [name for name in FILE_COLUMNS if name in row.fields]
    if len(files) != 1:
        problem = "both columns {} and {}" if files else "no column {} or {}"
        raise InputError(f"{row.path}: has {problem.format(*FILE_COLUMNS)}; {_REMEDY}")
    unknown = [name for name in row.fields if name not in COLUMNS]
    if unknown:
        raise InputError(f"{row.path}: has the unknown column {', '.join(unknown)}; {_REMEDY}")
    file, (start, end) = row.name(files[0]), row.time_span("start", "end")
    tags = {key: _labels(row, name) for key, name in TAG_COLUMNS.items()}
    denied = _labels(row, "not")
    both = sorted(set(denied) & {label for labels in tags.values() for label in labels})
    if both:
        raise row.fault(f"has {both[0]!r} both as a label and in not; take one out")
    exhaustive = _labels(row, "exhaustive")
    unknown = sorted(set(exhaustive) - set(CATEGORIES))
    if unknown:
        known = ", ".join(CATEGORIES)
        raise row.fault(f"has {unknown[0]!r} in exhaustive; name categories: {known}")
    captions = row.filled("caption") if row.text("caption") else ""
    return AnnotatedClip(
        clip=row.text("clip") or file,
        file=file,
        source=row.path.stem,
        licence=row.text("licence"),
        tags={category: labels for category, labels in tags.items() if labels},
        denied={UNSORTED: denied} if denied else {},
        captions=tuple(filter(None, map(str.strip, captions.split(CAPTION_SEPARATOR)))),
        start=start,
        end=end,
        artist=row.text("artist") or None,
        exhaustive=exhaustive,
    )


def _labels(row: TableRow, column: str) -> tuple[str, ...]:
    return tuple(label.lower() for label in row.names(column))


def read_user_folder(path: Path) -> Source:
    """Read genre and artist from the metadata tags inside all audio files below a folder.

    The source is named after the folder. Files without metadata give clips without labels; files
    without audio are listed in `unusable`.

    Raises:
        InputError: `path` is not a folder, or has no audio files.
    """
    if not path.is_dir():
        raise InputError(f"{path}: is not a folder; name one with recordings")
    name = printable(path.resolve().name)
    clips, unusable = [], []
    for recording in list_audio_files(path):
        tags = _read_file_tags(recording)
        if tags is None:
            unusable.append(str(recording))
            continue
        file = recording.relative_to(path).as_posix()
        parts = [part for genre in tags[0] for part in GENRE_SEPARATORS.split(genre)]
        genres = tuple(dict.fromkeys(part.strip().lower() for part in parts if part.strip()))
        clips.append(
            AnnotatedClip(
                clip=file,
                file=file,
                source=name,
                licence="",
                tags={"genre": genres} if genres else {},
                artist=", ".join(artist.strip() for artist in tags[1]) or None,
            )
        )
    return Source(name, clips, tuple(unusable))


def _read_file_tags(path: Path) -> tuple[list[str], list[str]] | None:
    """Return the genres and the artists in an audio file's metadata; None if it has no audio."""
    try:
        audio_length(path, keep_damaged=True)
    except InputError:
        return None
    genres, artists = _read_with_mutagen(path)
    if not genres and not artists:
        metadata = read_metadata(path)
        genres, artists = ([metadata.get(key, "")] for key in ("genre", "artist"))
    return list(filter(None, genres)), list(filter(None, artists))


def _read_with_mutagen(path: Path) -> tuple[list[str], list[str]]:
    """Return the genres and the artists that mutagen finds in a file."""
    import mutagen
    import soundfile
    from mutagen.wave import WAVE

    try:
        file = mutagen.File(path, easy=True)
        tags = (file and file.tags) or {}
        if not isinstance(file, WAVE):
            return tags.get("genre", []), tags.get("artist", [])
        # Tags of wav files are in an ID3 chunk or in an INFO chunk, which mutagen does not read.
        with soundfile.SoundFile(os.fsencode(path)) as sound:
            genres = tags["TCON"].genres if "TCON" in tags else [sound.genre]
            artists = tags["TPE1"].text if "TPE1" in tags else [sound.artist]
        return genres, artists
    # mutagen raises many kinds of errors for damaged files.
    except Exception:
        return [], []
