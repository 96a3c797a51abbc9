"""Starts jax's backend, and names the environment variables that keep jax from working."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tinymu_jax.errors import InputError, reason_of

VARIABLES = (
    "JAX_",
    "XLA_PYTHON_",
    "TPU_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
"""Beginnings of the names of variables that can keep jax from starting."""
IGNORED = (
    *("JAX_ENABLE_X64", "JAX_NUMPY_RANK_PROMOTION", "JAX_NUMPY_DTYPE_PROMOTION"),
    *("JAX_TRANSFER_GUARD", "JAX_TRANSFER_GUARD_HOST_TO_DEVICE"),
    *("JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE", "JAX_TRANSFER_GUARD_DEVICE_TO_HOST"),
    "MPLBACKEND",
)
"""Variables that change jax's types, forbid operations that this package uses, or choose a window
for matplotlib, which only writes files here."""


def ignore_variables() -> None:
    """Remove the environment variables in `IGNORED`; call it before jax is imported."""
    for name in IGNORED:
        os.environ.pop(name, None)


def start_backend() -> None:
    """Start jax's backend: the devices on which jax computes.

    Raises:
        InputError: jax finds no device, or computes in 64 bits; the message names the environment
            variables to correct.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:  # jax has no class of its own for these
        raise _start_error(error) from error
    if jax.config.jax_enable_x64:
        raise InputError(
            "jax_enable_x64 is on, but TinyMU computes in 32 bits; unset JAX_ENABLE_X64, or call "
            'jax.config.update("jax_enable_x64", False)'
        )


@contextmanager
def explain_jax_errors() -> Iterator[None]:
    """Raise `InputError` in place of an error in the `with` block if jax cannot be started.

    Other errors pass unchanged.
    """
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        if "jax._src" in sys.modules and "jax" not in sys.modules:  # its import has failed
            raise _start_error(error) from error
        if "jax" in sys.modules:
            start_backend()
        raise


def _start_error(error: Exception) -> InputError:
    """Return an `InputError` that names the variables with which jax cannot start."""
    # jax fails an assertion if a platform has no device; in parentheses, it advises other settings.
    is_assertion = isinstance(error, AssertionError)
    reason = "there is no such device" if is_assertion else reason_of(error).split(" (")[0]
    names = [name for name in sorted(os.environ) if name.startswith(VARIABLES)]
    # jax names some options in lower case.
    named = [name for name in names if name in reason or name.lower() in reason]
    settings = ", ".join(f"{name}={os.environ[name]}" for name in named or names)
    if not settings:
        return InputError(f"jax cannot start ({reason}); set JAX_PLATFORMS=cpu, or repair jax")
    return InputError(f"{settings}: jax cannot start with it ({reason}); correct it, or unset it")
