"""SHA-256 fingerprints of texts, files and weights, as hexadecimal digits."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.errors import InputError
from tinymu_jax.utils.pipes import is_pipe
from tinymu_jax.utils.tree import flatten


def of_text(text: str) -> str:
    """Return the SHA-256 fingerprint of a text."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def check_is_no_pipe(path: str | Path) -> None:
    """Raise `InputError` if a path names a pipe, which can be read only once."""
    if is_pipe(path):
        raise InputError(
            f"{path}: is a pipe, whose content cannot be compared when the work is resumed; write "
            "it to a file, and name that"
        )


def of_file(path: str | Path) -> str:
    """Return the SHA-256 fingerprint of a file; raise `InputError` if the file is unreadable.

    A pipe is refused.
    """
    check_is_no_pipe(path)
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def of_weights(params: Mapping[str, Any]) -> str:
    """Return the SHA-256 fingerprint of the paths and values of all weights in a tree."""
    digest = hashlib.sha256()
    for path, leaf in flatten(params):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
