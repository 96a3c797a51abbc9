"""TinyMU in JAX: a 229M-parameter model that listens to music and answers questions about it.

    import tinymu_jax
    tinymu = tinymu_jax.load("AndreasXi/TinyMU")
    tinymu.ask("song.mp3", "What is the main instrument?")

Names are imported at first use, so that `import tinymu_jax` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load": "tinymu_jax.inference.load",
    "Assistant": "tinymu_jax.inference.assistant",
    "Listener": "tinymu_jax.inference.embedder",
    "Answer": "tinymu_jax.inference.assistant",
    "OptionScore": "tinymu_jax.inference.option_scoring",
    "InputError": "tinymu_jax.errors",
    "TinyMUConfig": "tinymu_jax.models.config",
    "load_audio": "tinymu_jax.audio.load",
    "log_mel": "tinymu_jax.audio.log_mel",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name where it lives."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tinymu_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
