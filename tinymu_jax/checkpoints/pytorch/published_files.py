"""Reads files of published models, and JSON files beside them with sizes that weights lack."""

from pathlib import Path
from typing import Any

from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.safetensors import read_safetensors
from tinymu_jax.errors import InputError, translate
from tinymu_jax.utils.files import exists, read_json_object

SIDECAR_SIZES = {
    "encoder": {"embed_dim", "depth", "num_heads", "mlp_ratio", "n_t"},
    "projector": {"proj_name", "d_in", "d_h", "d_out", "prefix_length", "num_layers", "num_heads"},
    "lm": set(),
    "predictor": {"num_heads"},
    "head": {"activation", "labels"},
}
"""Entries of the JSON file beside a checkpoint, and the names that each may hold. "lm" may hold any
name that transformers uses."""


MAX_VALUES = 100_000
"""Largest number of values in a published config, written out."""


def check_values(content: object, where: str | Path) -> None:
    """Check that a published config can be written out, in messages and as JSON.

    `content` is the config, and `where` its file's name in messages. A small file whose lists
    contain the same list many times would otherwise fill all memory.

    Raises:
        InputError: the config has over `MAX_VALUES` values, contains itself, is nested too deep, or
            has an integer of over 64 bits.
    """
    counts: dict[int, int] = {}

    def count(value: object) -> int:
        if isinstance(value, int) and value.bit_length() > 64:
            return MAX_VALUES
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return 1
        if id(value) not in counts:
            counts[id(value)] = MAX_VALUES  # what a container that contains itself counts
            parts = (*value, *value.values()) if isinstance(value, dict) else value
            counts[id(value)] = 1 + sum(map(count, parts))
        return counts[id(value)]

    with translate(f"{where}: its config is nested too deep; download it again"):
        total = count(content)
    if total > MAX_VALUES:
        raise InputError(
            f"{where}: its config has over {MAX_VALUES} values, contains itself or has a number of "
            "over 64 bits; download it again"
        )


def read_published(path: str | Path) -> object:
    """Return the content of a `.pt` file, or {"model": weights} of a `.safetensors` file.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return {"model": read_safetensors(path)}
    return read_torch_file(path)


def read_sidecar(path: Path) -> dict[str, dict[str, Any]]:
    """Return the content of the JSON file beside `path` with the same name; {} if there is none.

    The entries listed in `SIDECAR_SIZES` are checked.

    Raises:
        InputError: the file is not json, an entry is not an object, or a size has an unknown name.
    """
    sidecar = path.with_suffix(".json")
    if not exists(sidecar):
        return {}
    content = read_json_object(sidecar, "repair or remove it")
    for part, names in SIDECAR_SIZES.items():
        sizes = content.get(part, {})
        if not isinstance(sizes, dict):
            raise InputError(
                f"{sidecar}: {part!r} is not an object with sizes; repair or remove it"
            )
        unknown = sorted(set(sizes) - names) if names else []
        if unknown:
            raise InputError(
                f"{sidecar}: unknown {part} size {unknown[0]!r}; use {', '.join(sorted(names))}"
            )
    return content
