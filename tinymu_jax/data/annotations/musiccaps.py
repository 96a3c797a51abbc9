"""MusicCaps: 5,521 clips of AudioSet, described by musicians (Agostinelli et al.)."""

from collections.abc import Iterator
from pathlib import Path

from tinymu_jax.data.annotations.clip import UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.tables import Source, read_rows, unique_clips

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
"""By the columns that say so."""


def read_musiccaps(path: Path, extension: str = "wav") -> Source:
    """Reads musiccaps-public.csv.

    Aspects are free words without categories; one that a clip is given twice is there twice.

    Args:
        path: of the csv.
        extension: of the recordings, which are named by their YouTube ids.

    Raises:
        InputError: it is another table, or a row that cannot be used; the message names its line.
    """
    return Source(NAME, unique_clips(path, _clips(path, extension)))


def _clips(path: Path, extension: str) -> Iterator[tuple[int, AnnotatedClip]]:
    for row in read_rows(path, COLUMNS, "name MusicCaps' musiccaps-public.csv"):
        name, (start, end) = row.filled("ytid"), row.span("start_s", "end_s")
        aspects = [aspect.strip().lower() for aspect in row.listed("aspect_list", str)]
        if not all(aspects):
            raise row.fault("has an empty aspect in its aspect_list; take it out")
        yield (
            row.line,
            AnnotatedClip(
                clip=name,
                file=f"{name}.{extension.removeprefix('.')}",
                source=NAME,
                licence=LICENCE,
                tags={UNSORTED: tuple(aspects)} if aspects else {},
                captions=(row.filled("caption"),),
                start=start,
                end=end,
                test_sets=tuple(test for column, test in TEST_SETS.items() if row.truth(column)),
            ),
        )
