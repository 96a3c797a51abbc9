"""The files that published models come in, and the json that may lie beside them."""

from pathlib import Path
from typing import Any

from conversion.torch_file import read_torch_file
from tinymu_jax.checkpoint import read_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.files import read_json_object


def read_published(path: str | Path) -> object:
    """Returns what a `.pt` holds, or the weights of a `.safetensors` as the "model" of one.

    Raises:
        InputError: as `read_torch_file` or `read_safetensors`.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return {"model": read_safetensors(path)}
    return read_torch_file(path)


def read_json_beside(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the sizes in the json of the same stem beside a checkpoint; {} if there is none.

    Raises:
        InputError: it is no json, or its "encoder" or "lm" is no object.
    """
    beside = path.with_suffix(".json")
    if not beside.exists():
        return {}
    sizes = read_json_object(beside, "repair or remove it")
    for part in ("encoder", "lm"):
        if not isinstance(sizes.get(part, {}), dict):
            raise InputError(f"{beside}: {part!r} is no object with sizes; repair or remove it")
    return sizes
