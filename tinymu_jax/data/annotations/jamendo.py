"""MTG-Jamendo: 55,000 tracks with tags of genre, instrument, mood and theme (Bogdanov et al.)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinymu_jax.data.annotations.clip import AnnotatedClip, Tags
from tinymu_jax.data.annotations.tables import (
    TAB,
    Source,
    TableRow,
    check_columns,
    make_row,
    read_lines,
    unique_clips,
)

NAME = "MTG-Jamendo"

LICENCE = "CC BY-NC-SA 4.0"

COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")

KINDS = {"genre": "genre", "instrument": "instrument", "mood/theme": "mood"}
"""Categories by the words before a tag's `---`."""

_REMEDY = f"name a tsv of MTG-Jamendo ({', '.join(COLUMNS)})"


def read_jamendo(path: Path) -> Source:
    """Reads a tsv of MTG-Jamendo. Licences are of the tags.

    Raises:
        InputError: it is another table, or a row that cannot be used; the message names its line.
    """
    return Source(NAME, unique_clips(path, _clips(path)))


def _clips(path: Path) -> Iterator[tuple[int, AnnotatedClip]]:
    lines = read_lines(path, _REMEDY, TAB)
    check_columns(path, next(lines, (1, []))[1], COLUMNS, _REMEDY)
    single = len(COLUMNS) - 1
    for line, cells in lines:
        # Every tag is a field of its own: a row may have any number of them.
        row = make_row(path, line, COLUMNS[:single], cells[:single])
        yield (
            line,
            AnnotatedClip(
                clip=row.filled("TRACK_ID"),
                file=row.filled("PATH"),
                source=NAME,
                licence=LICENCE,
                tags=_tags(row, cells[single:]),
                artist=row.filled("ARTIST_ID"),
            ),
        )


def _tags(row: TableRow, cells: Sequence[str]) -> Tags:
    found = defaultdict(list)
    for cell in filter(None, map(str.strip, cells)):
        kind, _, label = cell.partition("---")
        if kind not in KINDS or not label:
            kinds = ", ".join(KINDS)
            raise row.fault(f"has the tag {cell!r}; write it as kind---tag, a kind of {kinds}")
        found[KINDS[kind]].append(label.strip().lower())
    return {category: tuple(labels) for category, labels in found.items()}
