"""Reader of MusicCaps: 5,521 clips of AudioSet, described by musicians (Agostinelli et al.)."""

from pathlib import Path

from tinymu_jax.data.annotations.clip import UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.utils.tables import TableRow, read_rows

NAME = "MusicCaps"
LICENCE = "CC BY-SA 4.0"
COLUMNS = (
    "ytid",
    "start_s",
    "end_s",
    "aspect_list",
    "caption",
    "is_balanced_subset",
    "is_audioset_eval",
)
TEST_SETS = {"is_audioset_eval": "AudioSet eval", "is_balanced_subset": "MusicCaps balanced"}
"""Column of musiccaps-public.csv -> test set of the clips for which the column is True."""


def read_musiccaps(path: Path, extension: str = "wav") -> Source:
    """Read the clips in musiccaps-public.csv; audio files are named <YouTube id>.<extension>.

    Tags are MusicCaps' free-form aspects; they have no categories and may be repeated.
    """
    rows = read_rows(path, COLUMNS, "name MusicCaps' musiccaps-public.csv")
    return Source(NAME, unique_clips((row, _clip(row, extension)) for row in rows))


def _clip(row: TableRow, extension: str) -> AnnotatedClip:
    name, (start, end) = row.filled("ytid"), row.time_span("start_s", "end_s")
    aspects = [aspect.strip().lower() for aspect in row.python_list("aspect_list", str)]
    if not all(aspects):
        raise row.fault("has an empty aspect in its aspect_list; take it out")
    return AnnotatedClip(
        clip=name,
        file=f"{name}.{extension.removeprefix('.')}",
        source=NAME,
        licence=LICENCE,
        tags={UNSORTED: tuple(aspects)} if aspects else {},
        captions=(row.filled("caption"),),
        start=start,
        end=end,
        test_sets=tuple(name for column, name in TEST_SETS.items() if row.boolean(column)),
    )
