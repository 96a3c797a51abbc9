"""Writes a file beside each recording, as trainers of music generators look for it."""

import json
import os
from pathlib import Path
from typing import Any

from tinymu_jax.audio.decode import audio_length
from tinymu_jax.errors import InputError
from tinymu_jax.library.description import Description
from tinymu_jax.library.formats.options import Format, FormatOptions, caption_text

SIDECAR_SUFFIXES = {"txt": ".txt", "acestep": ".caption.txt", "musicgen": ".json"}
"""Format -> what stands in place of the recording's suffix in the name of the file beside it.

Read so by SimpleTuner (helpers/prompts.py, `prepare_instance_prompt_from_textfile`) and by users'
metadata modules for Stable Audio Tools; by ACE-Step 1.5 (training/dataset_builder_modules/
audio_io.py); and by AudioCraft (data/music_dataset.py)."""


def sidecar_path(format: Format, recording: Path) -> Path | None:
    """Return the file that a format puts beside a recording; None if it puts none."""
    suffix = SIDECAR_SUFFIXES.get(format)
    return None if suffix is None else Path(os.path.splitext(recording)[0] + suffix)


def sidecar_text(
    format: Format, recording: Path, description: Description, options: FormatOptions
) -> str | None:
    """Return the content of the file beside a recording.

    None: there shall be no file, since the format has none, the recording is silent (trainers shall
    not learn silence), or the file would be empty.
    """
    if format not in SIDECAR_SUFFIXES or description.silent:
        return None
    if format == "musicgen":
        return json.dumps(musicgen_record(recording, description, options), ensure_ascii=False)
    return caption_text(description.caption, options)


def musicgen_record(
    recording: Path, description: Description, options: FormatOptions
) -> dict[str, Any]:
    """Return the metadata of a recording for AudioCraft's `MusicDataset`.

    All keys are there, as it requires by default; those that nobody measured are None or empty.
    Title and artist, and the genre if no field gives it, are those in the file's tags.
    """
    values = {name: field.value for name, field in description.fields.items()}
    tags = read_tags(recording)
    moods = [values.get(name) for name in ("mood", "moods")]
    return {
        "key": description.key or "",
        "artist": tags.get("artist", ""),
        "sample_rate": _sample_rate(recording),
        "file_extension": recording.suffix[1:].lower(),
        "description": caption_text(description.caption, options) or "",
        "keywords": "",
        "duration": description.seconds,
        "bpm": description.bpm if description.bpm is not None else "",
        "genre": values.get("genre") or tags.get("genre", ""),
        "title": tags.get("title", ""),
        "name": recording.stem,
        "instrument": values.get("instrument") or values.get("instruments") or "",
        "moods": [mood for mood in moods if mood],
    }


def read_tags(recording: Path) -> dict[str, str]:
    """Return the title, artist and genre in a file's tags, those that are there."""
    import mutagen

    try:
        file = mutagen.File(recording, easy=True)
        tags = (file and file.tags) or {}
        # wav and aiff files have ID3 frames, which mutagen gives no easy names.
        names = {"title": "TIT2", "artist": "TPE1", "genre": "TCON"}
        texts = {name: tags.get(name) or tags.get(frame) for name, frame in names.items()}
        return {name: str(text[0]) for name, text in texts.items() if text and str(text[0])}
    # mutagen raises many kinds of errors for damaged files.
    except Exception:
        return {}


def _sample_rate(recording: Path) -> int | None:
    try:
        return audio_length(recording, keep_damaged=True)[1]
    except InputError:
        return None
