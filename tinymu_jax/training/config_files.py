"""Find and load the Python files that hold configs of runs."""

import os
import runpy
import sys
from pathlib import Path
from typing import TypeVar

from tinymu_jax.errors import InputError, reason_of, translate
from tinymu_jax.training.config import RunConfig

Config = TypeVar("Config", bound=RunConfig)


def shipped_configs() -> dict[str, Path]:
    """Return the paths of the config files that come with the package, by config name."""
    package = Path(__file__).parents[1]
    # The folder `configs` is inside the package in a wheel, and beside the package in a clone.
    folders = (package / "configs", package.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("[a-z]*.py"))}


def _run(path: Path) -> object:
    """Run a Python file and return its variable `config`, or None."""
    try:
        return runpy.run_path(str(path)).get("config")
    except SystemExit as error:
        raise RuntimeError(f"it calls exit({error.code!r})") from error


def load_config(name_or_path: str | Path, kind: type[Config] = RunConfig) -> Config:
    """Run a Python config file and return its variable `config`.

    A config file can build on another: `base = load_config("sft_tinymu", TrainConfig)`.

    Args:
        name_or_path: name of a config in the package, such as "sft_lora", or path of a .py file.
        kind: expected class of the config.

    Raises:
        InputError: the config does not exist, its file fails, or `config` is not a `kind`.
    """
    shipped = shipped_configs()
    path = Path(os.path.expanduser(name_or_path))
    if not path.is_file():
        path = shipped.get(path.stem, path)
    if not path.is_file():
        raise InputError(
            f"{name_or_path}: no such file, and no config of that name; give a path, or one of "
            f"{', '.join(shipped)}"
        )
    # A config file may import modules from its own folder.
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with translate(
            lambda e: f"{path}: cannot be run ({type(e).__name__}: {reason_of(e)}); correct it"
        ):
            config = _run(path)
    finally:
        sys.path.remove(folder)
    if not isinstance(config, kind):
        raise InputError(
            f"{path}: has no `config` that is a {kind.__name__}, but {type(config).__name__}; use "
            "the command that takes it, or one of configs/"
        )
    return config
