"""Finds the cache folder, and keeps in it what JAX and librosa compile."""

import fcntl
import os
import sys
import tempfile
import threading
import warnings
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import LOCK_FILE, make_folder

# librosa's lazy imports are not thread-safe.
_LIBROSA_LOCK = threading.Lock()


def cache_folder() -> Path:
    """Return the folder of converted checkpoints and compiled programs (`TINYMU_CACHE` if set)."""
    if folder := os.environ.get("TINYMU_CACHE"):
        return Path(os.path.expanduser(folder))
    # Without a home directory, "~" is not expanded, and the path stays relative.
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base if os.path.isabs(base) else tempfile.gettempdir()) / "tinymu_jax"


def make_cache_folder(*names: str) -> Path:
    """Create a subfolder of the cache folder; return its path, or raise `InputError`."""
    folder = cache_folder().joinpath(*names)
    try:
        return make_folder(folder)
    except InputError as error:
        reason = str(error).removesuffix("; name another folder")
        raise InputError(f"{reason}; set TINYMU_CACHE to a folder that can be written") from error


def enable_compilation_cache() -> None:
    """Enable JAX's persistent compilation cache, so that later processes start faster.

    The user's JAX settings (`JAX_COMPILATION_CACHE_DIR` etc.) take precedence; if their folder is
    not writable, a line on stderr says so. The cache stays off if the default folder is not
    writable. An unwritable `TINYMU_CACHE` raises `InputError`.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        _check_writable(jax.config.jax_compilation_cache_dir)
        return
    try:
        folder = make_cache_folder("compiled")
    except InputError:
        if "TINYMU_CACHE" in os.environ:
            raise
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def import_librosa() -> ModuleType:
    """Import librosa with all modules that numba compiles on import, and return it.

    The first process compiles for half a minute; later ones load this from the cache folder (or
    `NUMBA_CACHE_DIR`). Processes take turns: two that compile at once can leave a cache with which
    each later process ends in a segmentation fault (numba issue 10128).
    """
    with _LIBROSA_LOCK:
        return _import_librosa()


@lru_cache(maxsize=1)
def _import_librosa() -> ModuleType:
    with ExitStack() as stack:
        with suppress(InputError, OSError):  # without a folder or locks, numba does as it can
            folder = make_cache_folder("numba")
            lock = stack.enter_context(open(folder / LOCK_FILE, "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.environ.setdefault("NUMBA_CACHE_DIR", str(folder))
        import librosa.beat
        import librosa.effects
        import librosa.feature
        import librosa.onset
    return librosa


def _check_writable(folder: str) -> None:
    """Print a note if jax's cache folder cannot be written, in place of jax's many warnings."""
    if "://" in folder:
        return
    try:
        writable = os.access(make_folder(folder), os.W_OK)
    except InputError:
        writable = False
    if not writable:
        print(
            f"note: JAX_COMPILATION_CACHE_DIR={folder}: cannot be written, so that programs are "
            "compiled each time",
            file=sys.stderr,
        )
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
