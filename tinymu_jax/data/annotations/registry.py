"""Reading annotations by the name of their source: public data sets or a user's recordings."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tinymu_jax.data.annotations.audioset import read_audioset
from tinymu_jax.data.annotations.fma import read_fma
from tinymu_jax.data.annotations.jamendo import read_jamendo
from tinymu_jax.data.annotations.magnatagatune import read_magnatagatune
from tinymu_jax.data.annotations.musiccaps import read_musiccaps
from tinymu_jax.data.annotations.song_describer import read_song_describer
from tinymu_jax.data.annotations.tables import Source
from tinymu_jax.data.annotations.user import read_user_folder, read_user_table
from tinymu_jax.errors import InputError

AUDIOSET = "audioset"
"""The source that also needs an ontology."""

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
"""Readers by name. Given another file or an invalid row, they raise an `InputError` that names it.
A path may also be the table's folder, where a data set has several tables."""


def read_source(name: str, path: str | Path, ontology: str | Path | None = None) -> Source:
    """Reads the annotations of a source.

    Args:
        name: a key of `READERS`.
        path: of its table or folder.
        ontology: path of AudioSet's ontology.json, only for AudioSet.

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
