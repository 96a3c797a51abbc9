"""Finds the cache folder, and enables JAX's compilation cache in it."""

import os
import tempfile
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import make_folder


def cache_folder() -> Path:
    """Return the folder of converted checkpoints and compiled programs (`TINYMU_CACHE` if set)."""
    if folder := os.environ.get("TINYMU_CACHE"):
        return Path(folder)
    # Without a home directory, "~" is not expanded, and the path stays relative.
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base if os.path.isabs(base) else tempfile.gettempdir()) / "tinymu_jax"


def enable_compilation_cache() -> None:
    """Enable JAX's persistent compilation cache, so that later processes start faster.

    The user's JAX settings (`JAX_COMPILATION_CACHE_DIR` etc.) take precedence. The cache stays off
    if the default folder is not writable. An unwritable `TINYMU_CACHE` raises `InputError`.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = make_folder(cache_folder() / "compiled")
        except InputError:
            if "TINYMU_CACHE" in os.environ:
                raise
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
