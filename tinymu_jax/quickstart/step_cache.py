"""What has been done in a folder, and what came of it: a json file for each step."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, make_folder, read_json_object, write_json


class Ledger:
    """Does each step once."""

    def __init__(self, folder: Path, say: Callable[[str], Any] = print) -> None:
        """Takes the place.

        Args:
            folder: of the json files; made where it is not there.
            say: prints a line.
        """
        self.folder, self.say = make_folder(folder), say

    def done(self, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns what came of a step, where it was done with these options."""
        found = self._read(name)
        return found if found is not None and found["of"] == options else None

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{name}.json"
        return read_json_object(path, "remove it, and run again") if exists(path) else None

    def step(
        self,
        name: str,
        doing: str,
        options: Mapping[str, Any],
        do: Callable[[], Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Does a step, or reads what came of it when it was done; says so in a line.

        Args:
            name: of its file.
            doing: the step in words.
            options: that its numbers depend on.
            do: returns what came of it, as plain json.

        Raises:
            InputError: it was done with other options.
        """
        found = self._read(name)
        if found is not None:
            if found["of"] != options:
                raise InputError(
                    f"{self.folder.parent}: its step {name!r} was done with other options "
                    f"({found['of']}); give them again, or name another --output"
                )
            self.say(f"{doing}: done before, {found['seconds']:.0f} s")
            return found
        began = time.monotonic()
        found = {"of": dict(options), **do()}
        found["seconds"] = time.monotonic() - began
        write_json(self.folder / f"{name}.json", found)
        self.say(f"{doing}: {found['seconds']:.0f} s")
        return found
