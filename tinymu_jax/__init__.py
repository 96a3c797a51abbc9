"""TinyMU in JAX: a 229M-parameter model that answers questions about music.

    import tinymu_jax
    tinymu = tinymu_jax.load("AndreasXi/TinyMU")
    tinymu.ask("song.mp3", "What is the main instrument?")

Public names are imported on first use, so that `import tinymu_jax` is fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and the modules that define them.
_PUBLIC = {
    "load": "tinymu_jax.inference.load",
    "Assistant": "tinymu_jax.inference.assistant",
    "Embedder": "tinymu_jax.inference.embedder",
    "Response": "tinymu_jax.inference.engine",
    "OptionScore": "tinymu_jax.inference.scoring",
    "InputError": "tinymu_jax.errors",
    "TinyMUConfig": "tinymu_jax.models.config",
    "load_audio": "tinymu_jax.audio.load",
    "log_mel": "tinymu_jax.audio.log_mel",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tinymu_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
