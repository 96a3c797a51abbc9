"""Reader of MTG-Jamendo: 55,000 tracks with genre, instrument and mood tags (Bogdanov et al.)."""

from collections import defaultdict
from pathlib import Path

from tinymu_jax.data.annotations.clip import AnnotatedClip, Tags
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.utils.tables import TAB, TableRow, read_lines, to_rows

NAME = "MTG-Jamendo"
LICENCE = "CC BY-NC-SA 4.0"
COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")
KINDS = {"genre": "genre", "instrument": "instrument", "mood/theme": "mood"}
"""Prefix of a tag, such as "genre" in "genre---rock" -> category of the tag."""
_REMEDY = f"name a tsv of MTG-Jamendo ({', '.join(COLUMNS)})"


def read_jamendo(path: Path) -> Source:
    """Read the tracks in one of MTG-Jamendo's tsv files, with tags by category."""
    lines = read_lines(path, _REMEDY, TAB)
    head = next(lines, (1, []))[1]
    # A row has one cell per tag; the cells of all tags are joined into the field TAGS.
    single = len(COLUMNS) - 1
    joined = (
        (line, [*cells[:single], TAB.join(cells[single:])] if len(cells) >= single else cells)
        for line, cells in lines
    )
    rows = to_rows(path, joined, head, COLUMNS, _REMEDY)
    return Source(NAME, unique_clips((row, _clip(row)) for row in rows))


def _clip(row: TableRow) -> AnnotatedClip:
    return AnnotatedClip(
        clip=row.filled("TRACK_ID"),
        file=row.filled("PATH"),
        source=NAME,
        licence=LICENCE,
        tags=_tags(row),
        artist=row.filled("ARTIST_ID"),
    )


def _tags(row: TableRow) -> Tags:
    tags = defaultdict(list)
    for cell in filter(None, map(str.strip, row.text("TAGS").split(TAB))):
        kind, _, label = cell.partition("---")
        if kind not in KINDS or not label:
            kinds = ", ".join(KINDS)
            raise row.fault(f"has the tag {cell!r}; write it as kind---tag, a kind of {kinds}")
        tags[KINDS[kind]].append(label.strip().lower())
    return {category: tuple(labels) for category, labels in tags.items()}
