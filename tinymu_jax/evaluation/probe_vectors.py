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

from tinymu_jax import fingerprint
from tinymu_jax.audio import read_clip
from tinymu_jax.checkpoint import Checkpoint, encoder_of
from tinymu_jax.errors import InputError
from tinymu_jax.files import (
    alone_in,
    exists,
    make_folder,
    read_json_object,
    write_json,
    write_whole,
)
from tinymu_jax.inference_layout import by_rows, unstack
from tinymu_jax.listening import listen
from tinymu_jax.models import matpac

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
) -> Float[np.ndarray, "R E"]:
    """Returns the mean over time of each recording's vectors; goes on with what lies there.

    Args:
        checkpoint: with an encoder.
        paths: of the recordings.
        folder: where they are kept.
        progress: told how many are done, of how many.

    Raises:
        InputError: a recording cannot be read; the folder holds others' vectors.
    """
    encoder = encoder_of(checkpoint)
    page = {
        "encoder": fingerprint.of_weights(encoder.params),
        "recordings": fingerprint.of_text("\n".join(map(str, paths))),
        "number": len(paths),
    }
    folder = make_folder(folder)
    with alone_in(folder):
        if exists(folder / PAGE) and read_json_object(folder / PAGE, "remove it") != page:
            raise InputError(
                f"{folder}: holds vectors of another encoder or of other recordings; name another "
                "folder, or remove it"
            )
        write_json(folder / PAGE, page)
        params = jax.device_put(by_rows(unstack(encoder.params, matpac.param_axes(encoder.config))))
        files = []
        for start in range(0, len(paths), IN_FILE):
            progress(start, len(paths))
            path = folder / f"vectors-{start // IN_FILE:05d}.npy"
            if not exists(path):
                made = _means(params, paths[start : start + IN_FILE], encoder.config)
                write_whole(path, lambda partial, made=made: _save(partial, made))
            files.append(np.load(path))
        progress(len(paths), len(paths))
        return np.concatenate(files)


def _means(params: Any, paths: Sequence[Path], config: Any) -> Float[np.ndarray, "R E"]:
    """Listens to recordings, read in threads."""
    means = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), TOGETHER):
            own = paths[start : start + TOGETHER]
            clips = list(pool.map(lambda path: read_clip(path, None).samples, own))
            means += [np.asarray(vectors[0]).mean(0) for vectors in listen(params, clips, config)]
    return np.stack(means)


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
