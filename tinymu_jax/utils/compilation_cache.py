"""The cache folder, and the compiled programs in it."""

import os
import tempfile
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import make_folder


def cache_folder() -> Path:
    """Returns where converted checkpoints and compiled programs are kept (`TINYMU_CACHE`)."""
    given = os.environ.get("TINYMU_CACHE")
    if given:
        return Path(given)
    # A process without a home has one in the temporary folder.
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base if os.path.isabs(base) else tempfile.gettempdir()) / "tinymu_jax"


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next process starts fast.

    Leaves alone what the user has set (`JAX_COMPILATION_CACHE_DIR`); does without where the home
    cannot be written to.

    Raises:
        InputError: `TINYMU_CACHE` names a place that cannot be written to.
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
