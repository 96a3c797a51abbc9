"""The annotations of one source, as the readers of tables return them."""

from collections.abc import Iterable
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.utils.tables import TableRow


class Source(NamedTuple):
    """Annotations read from a public data set or from a user's recordings."""

    name: str
    clips: list[AnnotatedClip]
    unusable: tuple[str, ...] = ()
    """Paths of the recordings that cannot be read."""
    no_music: int = 0
    """Number of skipped table rows, which are not labelled as music."""


def unique_clips(clips: Iterable[tuple[TableRow, AnnotatedClip]]) -> list[AnnotatedClip]:
    """Return the clips; raise `InputError` if two lines have the same clip identifier or file."""
    lines: dict[tuple[str, str], int] = {}
    unique = []
    for row, clip in clips:
        for key in (("clip", clip.clip), ("file", clip.file)):
            first = lines.setdefault(key, row.line)
            if first != row.line:
                raise row.fault(
                    f"is about the {key[0]} {key[1]!r} of line {first}; keep one line of each "
                    "recording"
                )
        unique.append(clip)
    return unique
