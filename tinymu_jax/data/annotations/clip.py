"""What is known of a recording, in one form whatever source it comes from.

Readers (`tinymu_jax.data.annotations.registry`) give clips with the source's own labels; the vocabulary
(`tinymu_jax.qa_builder.tags.vocabulary`) sorts these into categories and gives each its one name.
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
"""What is asked about. Production is how a recording sounds or was made (live, distorted, dry);
function is what music is used for, or where it is heard."""

UNSORTED = ""
"""The category of labels whose source has none; the vocabulary finds one."""

Tags = Mapping[str, tuple[str, ...]]
"""Names by category: of a reader in the source's own words, of the vocabulary in its own."""


@dataclass(frozen=True)
class AnnotatedClip:
    """A recording, or a part of one, and what its source says of it."""

    clip: str
    """Its identifier in the source: a YouTube id, a track's number."""
    file: str
    """Of the audio, below the source's folder."""
    source: str
    """Name of the data set."""
    licence: str
    """Of what is said here, as the source gives it."""
    tags: Tags = field(default_factory=dict)
    denied: Tags = field(default_factory=dict)
    """Tags that it is said not to have."""
    ambiguous: Tags = field(default_factory=dict)
    """Tags that it may have for all that is known, since labels contradict each other or are not
    asked about: none of them is called wrong."""
    captions: tuple[str, ...] = ()
    start: float | None = None
    """Seconds into the recording named by `clip`; None: from its beginning."""
    end: float | None = None
    artist: str | None = None
    exhaustive: tuple[str, ...] = ()
    """Categories in which nothing is left out: what is not named is not there."""
    test_sets: tuple[str, ...] = ()
    """Test sets that it belongs to by its source: "AudioSet eval", "MusicCaps balanced"."""
