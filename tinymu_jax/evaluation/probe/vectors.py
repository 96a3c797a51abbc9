"""Compute the mean embeddings of recordings for linear probes, and cache them in a folder.

vectors.json        fingerprints of the encoder and of the list of recordings
vectors-00000.npy   mean embeddings of `FILE_SIZE` recordings; existing files are not recomputed
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from tinymu_jax.audio.load import read_clip
from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of
from tinymu_jax.data.unusable import bad_entry, check_bad_fraction
from tinymu_jax.errors import InputError, note_damage, report
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
from tinymu_jax.utils.progress import Progress, no_progress

INFO_FILE = "vectors.json"
BATCH_SIZE = 16
"""Recordings per call of the encoder."""
FILE_SIZE = 256
"""Mean embeddings per file."""


def mean_vectors(
    checkpoint: Checkpoint,
    paths: Sequence[Path],
    folder: Path,
    progress: Progress = no_progress,
    max_bad_fraction: float = 0.001,
    keep_damaged: bool = False,
) -> Float[np.ndarray, "R E"]:
    """Return each recording's embedding, averaged over time; NaN for unusable recordings.

    Args:
        checkpoint: a checkpoint that has an encoder, whose embeddings have width E.
        paths: the paths of R recordings.
        folder: the folder that caches the mean embeddings.
        progress: called with the number of recordings so far and the total number.
        max_bad_fraction: the largest fraction of the recordings that may be unusable.
        keep_damaged: whether to use what can be read of damaged recordings.

    Raises:
        InputError: too many recordings are unusable, or the folder holds the embeddings of another
            encoder or of other recordings.
    """
    encoder = encoder_of(checkpoint)
    info = {
        "encoder": fingerprint.of_weights(encoder.params),
        "recordings": fingerprint.of_text("\n".join(map(str, paths))),
        "number": len(paths),
    }
    if keep_damaged:
        info["keep_damaged"] = True
    folder = make_folder(folder)
    with folder_lock(folder):
        if exists(folder / INFO_FILE) and read_json_object(folder / INFO_FILE, "remove it") != info:
            raise InputError(
                f"{folder}: holds vectors of another encoder or of other recordings; name another "
                "folder, or remove it"
            )
        write_json(folder / INFO_FILE, info)
        params = jax.device_put(
            by_rows(unstack(encoder.params, matpac.param_axes(encoder.config))), may_alias=False
        )
        vectors = np.empty((len(paths), encoder.config.output_width), np.float32)
        for start in range(0, len(paths), FILE_SIZE):
            progress(start, len(paths))
            path = folder / f"vectors-{start // FILE_SIZE:05d}.npy"
            if not exists(path):
                means = _encode(
                    params, paths[start : start + FILE_SIZE], encoder.config, keep_damaged
                )
                write_atomic(path, lambda partial, means=means: _save(partial, means))
            vectors[start : start + FILE_SIZE] = np.load(path)
            bad = np.flatnonzero(np.isnan(vectors[: start + FILE_SIZE, 0]))
            entries = [bad_entry(paths[n], InputError(f"{paths[n]}: cannot be read")) for n in bad]
            check_bad_fraction(entries, len(paths), max_bad_fraction)
        progress(len(paths), len(paths))
        return vectors


def _encode(
    params: Any, paths: Sequence[Path], config: Any, keep_damaged: bool
) -> Float[np.ndarray, "R E"]:
    """Return mean embeddings; for an unusable recording, print the error and return NaN."""
    means = np.full((len(paths), config.output_width), np.nan, np.float32)

    def try_read(path: Path) -> Float[np.ndarray, "n"] | None:
        try:
            clip = read_clip(path, None, keep_damaged=keep_damaged)
            if clip.damage:
                note_damage(str(path), clip.damage)
            return clip.samples
        except InputError as error:
            report(error)
            return None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH_SIZE):
            clips = list(pool.map(try_read, paths[start : start + BATCH_SIZE]))
            good = [number for number, clip in enumerate(clips) if clip is not None]
            encoded = encode_clips(params, [clips[number] for number in good], config)
            for number, vectors in zip(good, encoded, strict=True):
                means[start + number] = np.asarray(vectors[0]).mean(0, dtype=np.float64)
    return means


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
