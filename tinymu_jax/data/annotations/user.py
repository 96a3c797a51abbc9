"""What users know of their own recordings: a csv, or the tags in the files of a folder."""

import re
from collections.abc import Iterator
from pathlib import Path

from tinymu_jax.audio.load import list_audio_files
from tinymu_jax.data.annotations.clip import CATEGORIES, UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.labelled import FILE_COLUMNS, LABEL_SEPARATOR
from tinymu_jax.data.annotations.tables import (
    Source,
    TableRow,
    read_rows,
    split_labels,
    unique_clips,
)
from tinymu_jax.errors import InputError

CAPTIONS = "|"
"""Stands between captions of one recording."""

GENRES = re.compile(r"[;/,]")
"""Stands between the genres of a file's tag."""

TAG_COLUMNS = {UNSORTED: "tags"} | {category: category for category in CATEGORIES}
"""By the category of their labels."""

OTHER_COLUMNS = ("clip", "start", "end", "artist", "licence", "caption", "not", "exhaustive")

COLUMNS = (*FILE_COLUMNS, *OTHER_COLUMNS, *TAG_COLUMNS.values())

_REMEDY = f"name a csv with file (or file_name) and any of {', '.join(COLUMNS[2:])}"


def read_user_table(path: Path) -> Source:
    """Reads a csv of a user's own; the source is called as it is.

    Its columns are `file` (or `file_name`) and any of `COLUMNS`: labels with ";" between them by
    category, `tags` without one, `not` for those that are not heard, captions with "|" between
    them, `exhaustive` for the categories in which nothing is left out.

    Raises:
        InputError: it has no column of files, or one that is not known; or a row that cannot be
            used; the message names its line.
    """
    return Source(path.stem, unique_clips(path, _clips(path)))


def _clips(path: Path) -> Iterator[tuple[int, AnnotatedClip]]:
    for row in read_rows(path, (), _REMEDY):
        files = [name for name in FILE_COLUMNS if name in row.fields]
        unknown = [name for name in row.fields if name not in COLUMNS]
        if len(files) != 1:
            problem = "both columns {} and {}" if files else "no column {} or {}"
            raise InputError(f"{path}: has {problem.format(*FILE_COLUMNS)}; {_REMEDY}")
        if unknown:
            raise InputError(f"{path}: has the unknown column {', '.join(unknown)}; {_REMEDY}")
        yield row.line, _clip(row, row.filled(files[0]))


def _clip(row: TableRow, file: str) -> AnnotatedClip:
    start, end = row.span("start", "end")
    labels = {
        key: split_labels(row.text(name), LABEL_SEPARATOR) for key, name in TAG_COLUMNS.items()
    }
    denied = split_labels(row.text("not"), LABEL_SEPARATOR)
    both = sorted(set(denied) & {label for own in labels.values() for label in own})
    if both:
        raise row.fault(f"says of {both[0]!r} that it is heard and that it is not; take one out")
    exhaustive = split_labels(row.text("exhaustive"), LABEL_SEPARATOR)
    unknown = sorted(set(exhaustive) - set(CATEGORIES))
    if unknown:
        known = ", ".join(CATEGORIES)
        raise row.fault(f"has {unknown[0]!r} in exhaustive; name categories: {known}")
    captions = (caption.strip() for caption in row.text("caption").split(CAPTIONS))
    return AnnotatedClip(
        clip=row.text("clip") or file,
        file=file,
        source=row.path.stem,
        licence=row.text("licence"),
        tags={category: own for category, own in labels.items() if own},
        denied={UNSORTED: denied} if denied else {},
        captions=tuple(filter(None, captions)),
        start=start,
        end=end,
        artist=row.text("artist") or None,
        exhaustive=exhaustive,
    )


def read_user_folder(path: Path) -> Source:
    """Reads genre and artist from the tags in the recordings of a folder and those below it.

    The source is called as the folder. Recordings without tags give clips without them; those in
    which no sound is found are listed as unusable.

    Raises:
        InputError: it is no folder, or has no recordings.
    """
    if not path.is_dir():
        raise InputError(f"{path}: is no folder; name one with recordings")
    name = path.resolve().name
    clips, unusable = [], []
    for recording in list_audio_files(path):
        tags = _file_tags(recording)
        if tags is None:
            unusable.append(str(recording))
            continue
        file = recording.relative_to(path).as_posix()
        parts = [part.strip().lower() for one in tags["genre"] for part in GENRES.split(one)]
        genres = tuple(dict.fromkeys(filter(None, parts)))
        clips.append(
            AnnotatedClip(
                clip=file,
                file=file,
                source=name,
                licence="",
                tags={"genre": genres} if genres else {},
                artist=", ".join(tags["artist"]) or None,
            )
        )
    return Source(name, clips, tuple(unusable))


def _file_tags(path: Path) -> dict[str, list[str]] | None:
    """Returns a recording's genres and artists as it gives them; None: it has no sound."""
    from tinytag import TinyTag, TinyTagException

    try:
        found = TinyTag.get(path)
    except (TinyTagException, OSError):
        return None
    # Files that are none are taken for mp3 without complaint; they have no duration.
    if not found.duration:
        return None
    fields = found.as_dict()
    return {name: [one.strip() for one in fields.get(name, [])] for name in ("genre", "artist")}
