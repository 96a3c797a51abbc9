"""Reader of MagnaTagATune: 25,863 clips, 188 tags from the game TagATune (Law et al.)."""

from pathlib import Path

from tinymu_jax.data.annotations.clip import UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists
from tinymu_jax.utils.tables import TAB, TableRow, read_rows

NAME = "MagnaTagATune"
LICENCE = "CC BY-NC-SA 3.0"
ANNOTATIONS, INFO = "annotations_final.csv", "clip_info_final.csv"
OTHER_COLUMNS = ("clip_id", "mp3_path")
"""Columns of annotations_final.csv that are not tags."""
_REMEDY = f"name MagnaTagATune's {ANNOTATIONS}, whose fields stand between tabs"


def read_magnatagatune(path: Path) -> Source:
    """Read clips from annotations_final.csv, and artists from clip_info_final.csv if it exists.

    `path` is annotations_final.csv or its folder. Tags have no categories and include negative tags
    such as "no vocals".
    """
    annotations = path / ANNOTATIONS if path.is_dir() else path
    artists = _read_artists(annotations.with_name(INFO))
    rows = read_rows(annotations, OTHER_COLUMNS, _REMEDY, TAB)
    return Source(NAME, unique_clips((row, _clip(row, artists)) for row in rows))


def _clip(row: TableRow, artists: dict[str, str]) -> AnnotatedClip:
    name, tags = row.filled("clip_id"), _tags(row)
    return AnnotatedClip(
        clip=name,
        file=row.filled("mp3_path"),
        source=NAME,
        licence=LICENCE,
        tags={UNSORTED: tags} if tags else {},
        artist=artists.get(name) or None,
    )


def _tags(row: TableRow) -> tuple[str, ...]:
    """Return the lower-case names of the tag columns that hold a 1 in a clip's row."""
    values = {name: value for name, value in row.fields.items() if name not in OTHER_COLUMNS}
    if not values:
        raise InputError(f"{row.path}: has no columns of tags; {_REMEDY}")
    for name, value in values.items():
        if value not in ("0", "1"):
            raise row.fault(f"has {value!r} as {name!r}; give 0 or 1")
    return tuple(name.lower() for name, value in values.items() if value == "1")


def _read_artists(path: Path) -> dict[str, str]:
    """Return the artist of each clip_id in clip_info_final.csv; {} if the file does not exist."""
    if not exists(path):
        return {}
    remedy = f"put MagnaTagATune's {INFO} there, or take this one away"
    rows = read_rows(path, ("clip_id", "artist"), remedy, TAB)
    return {row.filled("clip_id"): row.text("artist") for row in rows}
