"""Copies data sets from buckets (gs://, s3://, any URL of fsspec) to the local disk.

ArrayRecord needs local files. One process per host copies, and the others wait for the copy.
"""

import fcntl
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tinymu_jax.checkpoints.hub_connection import require_hub
from tinymu_jax.data.dataset import DATASET_FILE
from tinymu_jax.errors import InputError, translate
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.compilation_cache import make_cache_folder

PARALLEL_FILES = 8
LOCK_FILE = "lock"
IN_PROGRESS_FILE = "copying.json"
"""Name of the manifest in an incomplete copy; renamed to `dataset.json` after the last file."""
PACKAGES = {
    **{"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "az": "adlfs", "abfs": "adlfs"},
    **{"http": "aiohttp", "https": "aiohttp"},
}
"""Protocol of a URL -> name of the package that fsspec needs to open the URL."""


def is_url(place: str) -> bool:
    """Return whether a string is a URL (gs://bucket/folder) instead of a local path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", place) is not None


def local_path(place: str) -> Path:
    """Return the local path of a data set; if `place` is a URL, copy the data set from there."""
    return local_copy(place) if is_url(place) else Path(place)


def local_copy(url: str) -> Path:
    """Copy a data set from a URL (gs://bucket/folder) to the cache; return the copy's folder.

    Complete copies are reused if the manifest is unchanged; interrupted copies are continued.

    Raises:
        InputError: the URL holds no data set, its protocol's package is missing, or copying fails.
    """
    files, root = _open_url(url)
    root = root.rstrip("/")
    name = re.sub(r"[^\w.-]", "_", root.rsplit("/", 1)[-1])[:60] or "data"
    folder = make_cache_folder("data", f"{name}-{fingerprint.of_text(url)[:12]}")
    message = (
        f"{url}: cannot be copied ({{reason}}); check the URL, your permissions and the free space "
        "on the disk, and run the command again: it continues"
    )
    missing = f"{url}: {{reason}} does not exist; check the URL"
    with translate(message, {FileNotFoundError: missing}), open(folder / LOCK_FILE, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _copy(files, root, folder, url)
    return folder


def _open_url(url: str) -> tuple[Any, str]:
    """Return the fsspec file system that a URL names, and the URL's path in this file system."""
    from fsspec.core import url_to_fs

    protocol = url.split(":", 1)[0]
    if protocol == "hf":
        require_hub(f"{url}: cannot be copied")
    package = PACKAGES.get(protocol, "the package of its file system")
    with translate(
        f"{url}: cannot be opened ({{reason}}); check the URL",
        {
            ImportError: f"{url}: needs {package}; pip install {package}",
            ValueError: f"{url}: {protocol}:// is not a known protocol; check the URL",
        },
    ):
        return url_to_fs(url)


def _copy(files: Any, root: str, folder: Path, url: str) -> None:
    """Copy the files at `root` that `folder` lacks; error messages name the data set as `url`."""
    remote_manifest = f"{root}/{DATASET_FILE}"
    try:
        manifest = files.cat_file(remote_manifest)
    except FileNotFoundError as error:
        raise InputError(
            f"{url}: has no {DATASET_FILE}; copy a folder there that `tinymu data prepare` made"
        ) from error
    complete, in_progress = folder / DATASET_FILE, folder / IN_PROGRESS_FILE
    if complete.exists() and complete.read_bytes() == manifest:
        return
    if not (in_progress.exists() and in_progress.read_bytes() == manifest):
        # Files left from an earlier data set at this URL may have the same names and sizes.
        for old in folder.iterdir():
            if old.is_file() and old.name != LOCK_FILE:
                old.unlink()
        in_progress.write_bytes(manifest)
    listing = files.find(root, detail=True)

    def fetch(path: str) -> None:
        target = folder / path[len(root) + 1 :]
        if not target.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{url}: {path} would leave the copy's folder; rename it there")
        if target.exists() and target.stat().st_size == listing[path]["size"]:
            return
        # A partial file may have full size, as some file systems write blocks out of order.
        part = target.with_name(f"{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(part))
        part.replace(target)

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        list(pool.map(fetch, [path for path in listing if path != remote_manifest]))
    in_progress.replace(complete)
