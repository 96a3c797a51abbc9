"""FMA: 106,574 tracks of the Free Music Archive with 161 genres (Defferrard et al.)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.tables import (
    Source,
    TableRow,
    check_columns,
    make_row,
    read_lines,
    read_rows,
    unique_clips,
)

NAME = "FMA"

TRACKS, GENRES = "tracks.csv", "genres.csv"

COLUMNS = ("track/genre_top", "track/genres", "track/genres_all", "track/license", "artist/name")
"""That are read of tracks.csv: the first two of its three lines of names, joined."""

IDENTIFIER = "track_id"


def read_fma(path: Path) -> Source:
    """Reads tracks.csv and the genres.csv beside it.

    A track has its own genres and, after them, those above them. Licences are of the tracks.

    Args:
        path: of tracks.csv, or of its folder.

    Raises:
        InputError: one is another table, or a row that cannot be used; the message names its line.
    """
    tracks = path / TRACKS if path.is_dir() else path
    remedy = f"put FMA's {GENRES} beside its {TRACKS}"
    rows = read_rows(tracks.with_name(GENRES), ("genre_id", "title"), remedy)
    titles = {row.filled("genre_id"): row.filled("title").lower() for row in rows}
    return Source(NAME, unique_clips(tracks, _clips(tracks, titles)))


def _clips(path: Path, titles: Mapping[str, str]) -> Iterator[tuple[int, AnnotatedClip]]:
    for row in _rows(path):
        name = row.filled(IDENTIFIER)
        if not name.isdecimal():
            raise row.fault(f"has {name!r} as {IDENTIFIER}; give a number")
        number, genres = f"{int(name):06d}", _genres(row, titles)
        yield (
            row.line,
            AnnotatedClip(
                clip=name,
                file=f"{number[:3]}/{number}.mp3",
                source=NAME,
                licence=row.text("track/license"),
                tags={"genre": genres} if genres else {},
                artist=row.text("artist/name") or None,
            ),
        )


def _genres(row: TableRow, titles: Mapping[str, str]) -> tuple[str, ...]:
    numbers = [*row.listed("track/genres", int), *row.listed("track/genres_all", int)]
    unknown = [number for number in numbers if str(number) not in titles]
    if unknown:
        raise row.fault(f"has the genre {unknown[0]}, which {GENRES} does not name; complete that")
    top = row.text("track/genre_top").lower()
    names = [*(titles[str(number)] for number in numbers), *([top] if top else [])]
    return tuple(dict.fromkeys(names))


def _rows(path: Path) -> Iterator[TableRow]:
    """Yields the rows below the three lines of names."""
    remedy = f"name FMA's {TRACKS}, which has three lines of names"
    lines = read_lines(path, remedy)
    groups, names, third = (next(lines, (1, [""]))[1] for _ in range(3))
    head = [f"{group}/{name}" for group, name in zip(groups, names, strict=False)]
    head[:1] = third[:1]
    check_columns(path, head, (IDENTIFIER, *COLUMNS), remedy)
    for line, cells in lines:
        yield make_row(path, line, head, cells)
