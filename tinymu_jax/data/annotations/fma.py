"""Reader of FMA: 106,574 tracks of the Free Music Archive with 161 genres (Defferrard et al.)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.utils.tables import TableRow, read_lines, read_rows, to_rows

NAME = "FMA"
TRACKS, GENRES = "tracks.csv", "genres.csv"
COLUMNS = (
    "track_id",
    "track/genre_top",
    "track/genres",
    "track/genres_all",
    "track/license",
    "artist/name",
)
"""Columns that are read from tracks.csv. A name joins the cells of the first two header lines by
"/"; the first column is named in the third line."""


def read_fma(path: Path) -> Source:
    """Read FMA's tracks.csv, with genre names from the genres.csv beside it.

    `path` is tracks.csv or its folder. A clip's tags are the track's own genres, their ancestors
    and the top genre, in this order. A clip's licence is the track's licence.
    """
    tracks = path / TRACKS if path.is_dir() else path
    remedy = f"put FMA's {GENRES} beside its {TRACKS}"
    rows = read_rows(tracks.with_name(GENRES), ("genre_id", "title"), remedy)
    titles = {row.filled("genre_id"): row.filled("title").lower() for row in rows}
    return Source(NAME, unique_clips((row, _clip(row, titles)) for row in _rows(tracks)))


def _clip(row: TableRow, titles: Mapping[str, str]) -> AnnotatedClip:
    name = row.filled("track_id")
    if not name.isdecimal():
        raise row.fault(f"has {name!r} as track_id; give a number")
    number, genres = f"{int(name):06d}", _genres(row, titles)
    return AnnotatedClip(
        clip=name,
        file=f"{number[:3]}/{number}.mp3",
        source=NAME,
        licence=row.text("track/license"),
        tags={"genre": genres} if genres else {},
        artist=row.text("artist/name") or None,
    )


def _genres(row: TableRow, titles: Mapping[str, str]) -> tuple[str, ...]:
    columns = ("track/genres", "track/genres_all")
    numbers = [str(number) for column in columns for number in row.python_list(column, int)]
    unknown = [number for number in numbers if number not in titles]
    if unknown:
        raise row.fault(f"has the genre {unknown[0]}, which {GENRES} does not name; complete that")
    top = row.text("track/genre_top").lower()
    return tuple(dict.fromkeys([*(titles[number] for number in numbers), *([top] if top else [])]))


def _rows(path: Path) -> Iterator[TableRow]:
    """Yield the rows of tracks.csv below its three header lines."""
    remedy = f"name FMA's {TRACKS}, which has three lines of names"
    lines = read_lines(path, remedy, ",")
    groups, names, third = (next(lines, (1, [""]))[1] for _ in range(3))
    head = [f"{group}/{name}" for group, name in zip(groups, names, strict=False)]
    head[:1] = third[:1]
    return to_rows(path, lines, head, COLUMNS, remedy)
