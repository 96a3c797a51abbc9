"""Annotations of a recording, in the same form for all data sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CATEGORIES = ("instrument", "genre", "mood", "tempo", "voice", "rhythm", "production", "function")
"""Categories of tags. Production: how a recording sounds or was made (live, distorted, dry).
Function: the purpose of the music, or the place where it is heard."""
UNSORTED = ""
"""Category of labels from data sets without categories."""
Tags = Mapping[str, tuple[str, ...]]
"""Labels of a recording, by category."""


@dataclass(frozen=True)
class AnnotatedClip:
    """A recording, or a part of a recording, with its annotations."""

    clip: str
    """Identifier of the recording in its data set, such as a YouTube id or a track number."""
    file: str
    """Path of the audio file, relative to the data set's folder."""
    source: str
    """Name of the data set."""
    licence: str
    """Licence of the annotations."""
    tags: Tags = field(default_factory=dict)
    denied: Tags = field(default_factory=dict)
    """Tags that are annotated as absent."""
    ambiguous: Tags = field(default_factory=dict)
    """Tags that may or may not apply; no question offers them as a wrong answer."""
    captions: tuple[str, ...] = ()
    start: float | None = None
    """Start of the clip in the recording, in seconds; None means the recording's beginning."""
    end: float | None = None
    """End of the clip in the recording, in seconds; None means the recording's end."""
    artist: str | None = None
    exhaustive: tuple[str, ...] = ()
    """Categories in which every tag that applies to the clip is annotated."""
    test_sets: tuple[str, ...] = ()
    """Names of the test sets that contain the clip: "AudioSet eval", "MusicCaps balanced"."""
