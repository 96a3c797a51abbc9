"""The vectors that probes are learnt on: means over time, kept on disk as they are made.

vectors.json        of which encoder and which recordings they are
vectors-00000.npy   some of them; those that are there are not made again
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from tinymu_jax.audio.load import read_clip
from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of
from tinymu_jax.errors import InputError, report
from tinymu_jax.inference.chunked_encoding import encode_clips
from tinymu_jax.inference.param_layout import by_rows, unstack
from tinymu_jax.models import matpac
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import (
    exists,
    folder_lock,
    make_folder,
    read_json_object,
    write_atomic,
    write_json,
)

PAGE = "vectors.json"

TOGETHER = 16
"""Recordings in one call of the encoder."""

IN_FILE = 256
"""Vectors of one file."""

Progress = Callable[[int, int], Any]


def mean_vectors(
    checkpoint: Checkpoint,
    paths: Sequence[Path],
    folder: Path,
    progress: Progress = lambda done, total: None,
    max_bad: float = 0.001,
) -> Float[np.ndarray, "R E"]:
    """Returns the mean over time of each recording's vectors; goes on with what lies there.

    Those of a recording that cannot be used are no numbers.

    Args:
        checkpoint: with an encoder.
        paths: of the recordings.
        folder: where they are kept.
        progress: told how many are done, of how many.
        max_bad: share of the recordings that may be unusable.

    Raises:
        InputError: more recordings cannot be used; the folder holds others' vectors.
    """
    encoder = encoder_of(checkpoint)
    page = {
        "encoder": fingerprint.of_weights(encoder.params),
        "recordings": fingerprint.of_text("\n".join(map(str, paths))),
        "number": len(paths),
    }
    folder = make_folder(folder)
    with folder_lock(folder):
        if exists(folder / PAGE) and read_json_object(folder / PAGE, "remove it") != page:
            raise InputError(
                f"{folder}: holds vectors of another encoder or of other recordings; name another "
                "folder, or remove it"
            )
        write_json(folder / PAGE, page)
        params = jax.device_put(by_rows(unstack(encoder.params, matpac.param_axes(encoder.config))))
        found = np.empty((len(paths), encoder.config.output_width), np.float32)
        for start in range(0, len(paths), IN_FILE):
            progress(start, len(paths))
            path = folder / f"vectors-{start // IN_FILE:05d}.npy"
            if not exists(path):
                made = _means(params, paths[start : start + IN_FILE], encoder.config)
                write_atomic(path, lambda partial, made=made: _save(partial, made))
            found[start : start + IN_FILE] = np.load(path)
            _check_bad(found[: start + IN_FILE], paths, max_bad)
        progress(len(paths), len(paths))
        return found


def _check_bad(found: Float[np.ndarray, "R E"], paths: Sequence[Path], max_bad: float) -> None:
    """Stops when too many recordings are unusable."""
    bad = np.flatnonzero(np.isnan(found[:, 0]))
    if len(bad) > max_bad * len(paths):
        raise InputError(
            f"{len(bad)} of {len(paths)} recordings cannot be used, more than {100 * max_bad:g} %; "
            f"the first is {paths[bad[0]]}: repair them, or allow more with --max-bad"
        )


def _means(params: Any, paths: Sequence[Path], config: Any) -> Float[np.ndarray, "R E"]:
    """Listens to recordings, read in threads; says what is wrong with those that cannot be used."""
    means = np.full((len(paths), config.output_width), np.nan, np.float32)

    def try_read(path: Path) -> Float[np.ndarray, "n"] | None:
        try:
            return read_clip(path, None).samples
        except InputError as error:
            report(error)
            return None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), TOGETHER):
            clips = list(pool.map(try_read, paths[start : start + TOGETHER]))
            good = [number for number, clip in enumerate(clips) if clip is not None]
            heard = encode_clips(params, [clips[number] for number in good], config)
            for number, vectors in zip(good, heard, strict=True):
                means[start + number] = np.asarray(vectors[0]).mean(0)
    return means


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
