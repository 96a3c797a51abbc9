"""Data sets on buckets (gs://, s3://, whatever fsspec knows): copied to this machine's disk first.

ArrayRecord's reader asks for records by their place in a file and opens files of a disk alone; from
a copy every epoch is read at the disk's speed. Of several processes on a machine one copies.
"""

import fcntl
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tinymu_jax.data.dataset import DATASET_FILE
from tinymu_jax.errors import InputError, reason_of
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.compilation_cache import cache_folder
from tinymu_jax.utils.files import make_folder

FILES_AT_ONCE = 8

LOCK_FILE, IN_PROGRESS_FILE = "lock", "copying.json"
"""Held while a copy is made; the page of the data set that is being copied."""

PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "az": "adlfs", "abfs": "adlfs"}
"""What fsspec needs for an address, by how it begins."""


def is_url(place: str) -> bool:
    """Tells gs://bucket/folder from a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", place) is not None


def local_path(place: str) -> Path:
    """Returns a folder of this machine: the place itself, or the copy of an address."""
    return local_copy(place) if is_url(place) else Path(place)


def local_copy(address: str) -> Path:
    """Returns the folder that holds a data set's copy; copies what is missing or has changed.

    A copy that was cut short goes on; `dataset.json` comes last, so that none is taken for whole.

    Args:
        address: of a folder that `tinymu data prepare` made, such as gs://bucket/data.

    Raises:
        InputError: there is no such data set, no package for such addresses, or no way to it.
    """
    files, root = _opened(address)
    name = re.sub(r"[^\w.-]", "_", root.rstrip("/").rsplit("/", 1)[-1]) or "data"
    folder = cache_folder() / "data" / f"{name}-{fingerprint.of_text(address)[:12]}"
    make_folder(folder)

    def alone() -> None:
        with open(folder / LOCK_FILE, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _copy(files, root, folder, address)

    _told(address, alone)
    return folder


def _opened(address: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the folder's path in it."""
    from fsspec.core import url_to_fs

    kind = address.split(":", 1)[0]
    try:
        return url_to_fs(address)
    except ImportError as error:
        package = PACKAGES.get(kind, "the package of its file system")
        raise InputError(f"{address}: needs {package}; pip install {package}") from error
    except ValueError as error:
        raise InputError(f"{address}: {kind}:// is no kind of address that is known") from error


def _told(address: str, act: Callable[[], None]) -> None:
    """Acts; turns the errors of disks and of clouds into a sentence."""
    try:
        act()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{address}: {error} is not there; check the address") from error
    except Exception as error:
        raise InputError(
            f"{address}: cannot be copied ({reason_of(error)}); check the address, your rights to "
            "it and the room on the disk, and begin again: it goes on where it was"
        ) from error


def _copy(files: Any, root: str, folder: Path, address: str) -> None:
    """Copies what the folder lacks."""
    page = f"{root.rstrip('/')}/{DATASET_FILE}"
    try:
        whole = files.cat_file(page)
    except FileNotFoundError as error:
        raise InputError(
            f"{address}: has no {DATASET_FILE}; copy a folder there that `tinymu data prepare` made"
        ) from error
    own, begun = folder / DATASET_FILE, folder / IN_PROGRESS_FILE
    if own.exists() and own.read_bytes() == whole:
        return
    if not (begun.exists() and begun.read_bytes() == whole):
        # Nothing there yet, or another data set of the same address, whose shards have these names.
        for old in folder.iterdir():
            if old.is_file() and old.name != LOCK_FILE:
                old.unlink()
        begun.write_bytes(whole)
    found = files.find(root, detail=True)
    start = len(root.rstrip("/")) + 1

    def take(path: str) -> None:
        target = folder / path[start:]
        if not target.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{address}: {path} would leave the copy's folder; rename it there")
        if target.exists() and target.stat().st_size == found[path]["size"]:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        files.get_file(path, str(part))
        os.replace(part, target)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(take, [path for path in found if path != page]))
    os.replace(begun, own)
