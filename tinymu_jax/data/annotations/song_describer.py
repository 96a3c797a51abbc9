"""Reader of Song Describer: a test set of 706 tracks with 1,106 captions (Manco et al.)."""

from pathlib import Path

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.utils.tables import TableRow, read_rows

NAME = "Song Describer"
LICENCE = "CC BY-SA 4.0"
COLUMNS = ("caption_id", "track_id", "caption", "artist_id", "path")


def read_song_describer(path: Path) -> Source:
    """Read song_describer.csv; return one clip per track with all captions of the track."""
    tracks: dict[str, list[TableRow]] = {}
    captions: dict[str, int] = {}
    for row in read_rows(path, COLUMNS, "name Song Describer's song_describer.csv"):
        number = row.filled("caption_id")
        line = captions.setdefault(number, row.line)
        if line != row.line:
            raise row.fault(f"has the caption_id {number} of line {line}; keep one of them")
        tracks.setdefault(row.filled("track_id"), []).append(row)
    clips = ((rows[0], _clip(name, rows)) for name, rows in tracks.items())
    return Source(NAME, unique_clips(clips))


def _clip(name: str, rows: list[TableRow]) -> AnnotatedClip:
    first = rows[0]
    for row in rows:
        for column in ("artist_id", "path"):
            if row.filled(column) != first.filled(column):
                raise row.fault(
                    f"has another {column} of track {name} than line {first.line}; correct one"
                )
    return AnnotatedClip(
        clip=name,
        file=first.filled("path"),
        source=NAME,
        licence=LICENCE,
        captions=tuple(row.filled("caption") for row in rows),
        artist=first.filled("artist_id"),
        test_sets=(NAME,),
    )
