"""Cache the results of steps in a folder, in one JSON file per step."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_folder, exists, make_folder, read_json_object, write_json
from tinymu_jax.utils.numbers import duration


def log(text: str) -> None:
    """Print a line of text to stderr, and flush it."""
    print(text, file=sys.stderr, flush=True)


class StepCache:
    """Cache of step results: JSON files in `folder`, which the first step creates."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self.folder = folder

    def get(self, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the cached result of a step; None if it was not run with these options."""
        result = self._read(name)
        return result if result is not None and result.get("options") == options else None

    def run(
        self,
        name: str,
        title: str,
        options: Mapping[str, Any],
        compute: Callable[[], Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Return the cached result of a step, or else compute and cache it.

        `title` is printed with the time that the step took. `options` are all options that the
        result depends on. `compute` returns a JSON object, to which `options` and `seconds` are
        added.

        Raises:
            InputError: the cached result was computed with other options.
        """
        result = self._read(name)
        if result is None:
            make_folder(self.folder)
            start = time.monotonic()
            result = {"options": dict(options), **compute()}
            result["seconds"] = time.monotonic() - start
            write_json(self._path(name), result)
            log(f"{title}: {duration(result['seconds'])}")
        elif result.get("options") != options:
            raise InputError(
                f"{self.folder.parent}: its step {name!r} was run with other options "
                f"({result.get('options')}); give them again, or name another --output"
            )
        else:
            log(f"{title}: done before in {duration(result['seconds'])}")
        return result

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        return read_json_object(path, "remove it, and run again") if exists(path) else None
