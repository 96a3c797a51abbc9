"""Annotations of a recording, in one form for all data sets.

Readers (`tinymu_jax.data.annotations.registry`) give a data set's own labels; the vocabulary
(`tinymu_jax.qa_builder.tags.vocabulary`) normalizes them and sorts them into categories.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

CATEGORIES = (
    "instrument",
    "genre",
    "mood",
    "tempo",
    "voice",
    "rhythm",
    "production",
    "function",
)
"""Categories of tags. Production: how a recording sounds or was made (live, distorted, dry);
function: what music is used for, or where it is heard."""

UNSORTED = ""
"""Category of labels whose data set has no categories; the vocabulary sorts them."""

Tags = Mapping[str, tuple[str, ...]]
"""Labels by category."""


@dataclass(frozen=True)
class AnnotatedClip:
    """A recording, or a part of one, with its annotations."""

    clip: str
    """Identifier in the data set: a YouTube id, a track number."""
    file: str
    """Audio file, below the data set's folder."""
    source: str
    """Name of the data set."""
    licence: str
    """Licence of the annotations."""
    tags: Tags = field(default_factory=dict)
    denied: Tags = field(default_factory=dict)
    """Tags that are annotated as absent."""
    ambiguous: Tags = field(default_factory=dict)
    """Tags that may or may not apply (contradicting or unused labels); never used as wrong."""
    captions: tuple[str, ...] = ()
    start: float | None = None
    """Start in the recording named by `clip`, in seconds; None: its beginning."""
    end: float | None = None
    """End in seconds; None: the end of the recording."""
    artist: str | None = None
    exhaustive: tuple[str, ...] = ()
    """Categories in which all tags that apply are annotated."""
    test_sets: tuple[str, ...] = ()
    """Test sets that the clip belongs to: "AudioSet eval", "MusicCaps balanced"."""
