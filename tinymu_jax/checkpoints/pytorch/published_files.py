"""The files that published models come in, and the json that may lie beside them."""

from pathlib import Path
from typing import Any

from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.safetensors import read_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, read_json_object

PARTS = {
    "encoder": {"embed_dim", "depth", "num_heads", "mlp_ratio", "n_t"},
    "projector": {"proj_name", "d_in", "d_h", "d_out", "prefix_length", "num_layers", "num_heads"},
    "lm": set(),
    "predictor": {"num_heads"},
    "head": {"activation", "labels"},
}
"""The parts of the json beside a checkpoint, and the names of their sizes; those of "lm" are
transformers', "predictor" is pre-training's, and "head" says how outputs become
probabilities, and the names of the classes."""


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
        InputError: it is no json, a part is no object, or a size has an unknown name.
    """
    beside = path.with_suffix(".json")
    if not exists(beside):
        return {}
    sizes = read_json_object(beside, "repair or remove it")
    for part, names in PARTS.items():
        found = sizes.get(part, {})
        if not isinstance(found, dict):
            raise InputError(f"{beside}: {part!r} is no object with sizes; repair or remove it")
        unknown = sorted(set(found) - names) if names else []
        if unknown:
            raise InputError(
                f"{beside}: unknown {part} size {unknown[0]!r}; use {', '.join(sorted(names))}"
            )
    return sizes
