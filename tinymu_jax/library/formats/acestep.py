"""Writes the dataset file of ACE-Step 1.5, which its trainers load in place of a folder.

The keys are those of `AudioSample` and `DatasetMetadata` (acestep/training/dataset_builder_modules/
models.py), and the values those that acestep/constants.py allows.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinymu_jax.library.description import Description
from tinymu_jax.library.formats.options import FormatOptions, one_line

MIN_BPM, MAX_BPM = 30, 300
TIME_SIGNATURES = {"2/4": "2", "3/4": "3", "4/4": "4", "6/8": "6"}
"""Time signature -> what ACE-Step calls it; it knows no others."""
KEY = re.compile(r"[A-G][#b♯♭]? (major|minor)")
TAG_POSITIONS = {"before": "prepend", "after": "append", "instead": "replace"}
NO_VOICE = frozenset(("instrumental", "none", "no", "no voice", "no vocals"))
"""Values of a field `voice` or `vocals` that say that nobody sings."""


def acestep_dataset(
    described: Iterable[tuple[Path, Description]], options: FormatOptions
) -> dict[str, Any]:
    """Return the content of the dataset file; recordings that are silent are left out."""
    trigger = one_line(options.trigger)
    samples = [
        _sample(recording, description, trigger)
        for recording, description in described
        if not description.silent
    ]
    metadata = {
        "name": "tinymu",
        "custom_tag": trigger,
        "tag_position": TAG_POSITIONS[options.trigger_place],
        "created_at": "",  # a time would make each run's file another
        "num_samples": len(samples),
        "all_instrumental": all(sample.get("is_instrumental", False) for sample in samples),
        "genre_ratio": 0,
    }
    return {"metadata": metadata, "samples": samples}


def _sample(recording: Path, description: Description, trigger: str) -> dict[str, Any]:
    """Return what ACE-Step reads about a recording; what nobody measured is empty or left out."""
    caption = one_line(description.caption or "")
    genre = description.fields.get("genre")
    bpm = None if description.bpm is None else round(description.bpm)
    sample = {
        # Trainers name the encoded recording by it.
        "id": hashlib.sha256(description.file.encode("utf-8", "replace")).hexdigest()[:16],
        # A relative path would be looked for in the folder in which the trainer was started.
        "audio_path": os.path.abspath(recording),
        "filename": recording.name,
        "caption": caption,
        "genre": (genre and genre.value) or "",
        "bpm": bpm if bpm is not None and MIN_BPM <= bpm <= MAX_BPM else None,
        "keyscale": description.key if KEY.fullmatch(description.key or "") else "",
        "timesignature": TIME_SIGNATURES.get(description.time_signature or "", ""),
        "duration": int(description.seconds),
        "language": "unknown",
        "custom_tag": trigger,
        "labeled": bool(caption or trigger),
    }
    instrumental = _is_instrumental(description)
    if instrumental is None:
        return sample
    lyrics = "[Instrumental]" if instrumental else ""
    return sample | {"is_instrumental": instrumental, "lyrics": lyrics}


def _is_instrumental(description: Description) -> bool | None:
    """Return whether nobody sings; None if no field says it."""
    for name in ("voice", "vocals"):
        field = description.fields.get(name)
        if field is not None and field.value is not None:
            return field.value.casefold() in NO_VOICE
    return None
