"""Reads annotations by the name of their source: a public data set or a user's recordings."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tinymu_jax.data.annotations.audioset import read_audioset
from tinymu_jax.data.annotations.fma import read_fma
from tinymu_jax.data.annotations.jamendo import read_jamendo
from tinymu_jax.data.annotations.magnatagatune import read_magnatagatune
from tinymu_jax.data.annotations.musiccaps import read_musiccaps
from tinymu_jax.data.annotations.song_describer import read_song_describer
from tinymu_jax.data.annotations.source import Source
from tinymu_jax.data.annotations.user import read_user_folder, read_user_table
from tinymu_jax.errors import InputError

AUDIOSET = "audioset"
"""Name of the data set that also needs an ontology to be read."""
READERS: Mapping[str, Callable[..., Source]] = {
    "musiccaps": read_musiccaps,
    "magnatagatune": read_magnatagatune,
    "fma": read_fma,
    AUDIOSET: read_audioset,
    "jamendo": read_jamendo,
    "song_describer": read_song_describer,
    "user_table": read_user_table,
    "user_folder": read_user_folder,
}
"""Name of a source -> function that reads the source from the path of its table or folder."""


def read_source(name: str, path: str | Path, ontology: str | Path | None = None) -> Source:
    """Read the annotations of a public data set or of a user's recordings.

    Args:
        name: name of the data set or kind of user data, a key of `READERS`.
        path: path of the table or folder.
        ontology: path of AudioSet's ontology.json, which only AudioSet needs.

    Raises:
        InputError: the name is unknown, the ontology is missing, or no clips can be read.
    """
    if name not in READERS:
        raise InputError(f"source {name!r}: use one of {', '.join(READERS)}")
    arguments = [Path(path)]
    if name == AUDIOSET:
        if ontology is None:
            raise InputError(f"{path}: AudioSet is read with its ontology.json; give --ontology")
        arguments.append(Path(ontology))
    source = READERS[name](*arguments)
    if not source.clips and not source.unusable:
        raise InputError(f"{path}: names no recording of music; name another file")
    return source
