"""Reading what is known of recordings, from data sets by their names or from a user's own."""

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
"""The source that is read with an ontology."""

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


def read_source(name: str, path: str | Path, ontology: str | Path | None = None) -> Source:
    """Reads a source by the name that commands have for it.

    Args:
        name: a key of `READERS`.
        path: of its table or folder.
        ontology: path of AudioSet's ontology.json, which the others do not need.

    Raises:
        InputError: no source of that name, no ontology for AudioSet, nothing in the source; or as
            its reader.
    """
    if name not in READERS:
        raise InputError(f"source {name!r}: use one of {', '.join(READERS)}")
    given: tuple[Path, ...] = (Path(path),)
    if name == AUDIOSET:
        if ontology is None:
            raise InputError(f"{path}: AudioSet is read with its ontology.json; give --ontology")
        given += (Path(ontology),)
    source = READERS[name](*given)
    if not source.clips and not source.unusable:
        raise InputError(f"{path}: names no recording of music; name another file")
    return source
