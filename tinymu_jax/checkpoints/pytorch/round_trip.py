"""What a conversion wrote, read again and held against what it came from, tensor by tensor.

Both sides are views of their files: nothing is loaded whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.checkpoints import hub
from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    MODEL_FOLDER,
    RUN_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    read_config,
)
from tinymu_jax.checkpoints.pytorch import matpac, matpac_ssl, smollm2, tinymu
from tinymu_jax.checkpoints.pytorch.key_map import to_theirs
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.safetensors import map_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SelfSupervisedConfig, SmolLM2Config
from tinymu_jax.utils.files import exists, read_json_object
from tinymu_jax.utils.tree import unflatten

State = Mapping[str, np.ndarray]


class Verified(NamedTuple):
    """What was found equal."""

    tensors: int
    widened: int
    """Of them, how many are kept in fewer bits by the source; the wider number is the same one."""

    def __str__(self) -> str:
        wider = f" ({self.widened} of them in a wider type, the same numbers)"
        return f"{self.tensors} tensors bit for bit{wider if self.widened else ''}"


def check_converted(source: Path, folder: Path, probe: Path | None = None) -> Verified:
    """Turns a checkpoint folder back to PyTorch's keys and compares them with its source.

    Args:
        source: what the folder was converted from.
        folder: the checkpoint folder.
        probe: the probe's file that was put on top of the source.

    Raises:
        InputError: a tensor is not the same, or is missing on one side.
    """
    config, _ = read_config(folder)
    leaves = map_safetensors(folder / WEIGHTS_FILE)
    if _is_folder_of_ours(source):
        inner = source / MODEL_FOLDER if exists(source / RUN_FILE) else source
        return _compare(map_safetensors(inner / WEIGHTS_FILE), leaves, source, folder)
    wanted = dict(_state_of(source))
    if probe is not None:
        wanted |= _state_of(probe)
    found = dict(_published_state(Checkpoint(config, unflatten(leaves))))
    if "lm_head.weight" in wanted and isinstance(config, SmolLM2Config):
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    return _compare(wanted, found, source, folder)


def check_written(checkpoint: Checkpoint, output: Path) -> Verified:
    """Reads a file or folder for PyTorch again and compares it with what was to be written.

    Raises:
        InputError: a tensor is not the same, or is missing on one side.
    """
    return _compare(_published_state(checkpoint), _state_of(output), "the checkpoint", output)


def _is_folder_of_ours(source: Path) -> bool:
    """Tells a checkpoint folder, or a run's, from those of PyTorch."""
    if not source.is_dir():
        return False
    if exists(source / RUN_FILE):
        return True
    return exists(source / CONFIG_FILE) and "model_type" not in read_json_object(
        source / CONFIG_FILE, "convert it again"
    )


def _state_of(path: Path) -> State:
    """Returns the state dict of a PyTorch file or folder, teachers of pre-training joined."""
    if path.is_dir() and exists(path / hub.WEIGHTS) and not exists(path / CONFIG_FILE):
        path = path / hub.WEIGHTS
    if path.is_dir():
        parts = [map_safetensors(part) for part in sorted(path.glob("*.safetensors"))]
        return {key: value for part in parts for key, value in part.items()}
    if path.suffix == ".safetensors":
        return map_safetensors(path)
    content: Any = read_torch_file(path)
    inner = content.get("model")
    state = inner if isinstance(inner, dict) else content
    if matpac_ssl.is_training(state):
        return matpac_ssl.joined(state, path)
    return {key: value for key, value in state.items() if isinstance(value, np.ndarray)}


def _published_state(checkpoint: Checkpoint) -> State:
    """Returns a checkpoint under PyTorch's keys, as views where possible."""
    config = checkpoint.config
    if isinstance(config, SmolLM2Config):
        return to_theirs(checkpoint.params, smollm2.FOLDER_RULES)
    if isinstance(config, MatpacConfig):
        return matpac.to_published(checkpoint)
    if isinstance(config, SelfSupervisedConfig):
        whole = matpac_ssl.to_published(checkpoint)["model"]
        return matpac_ssl.joined(whole, Path(CONFIG_FILE))
    return tinymu.to_published(checkpoint)["model"]


def _compare(wanted: State, found: State, source: str | Path, output: str | Path) -> Verified:
    """Compares two state dicts, key by key."""
    widened = 0
    for key in sorted(wanted.keys() | found.keys()):
        if key not in wanted or key not in found:
            where = output if key not in found else source
            raise InputError(f"{output}: came out wrong: {where} has no {key}; convert it again")
        ours, theirs = found[key], wanted[key]
        widened += ours.dtype != theirs.dtype
        if not _same(ours, theirs):
            raise InputError(
                f"{output}: came out wrong: {key} is not what it is in {source}; convert it again, "
                "and if that does not help, look after the disk"
            )
    return Verified(len(wanted), widened)


def _same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Compares bits, so that numbers that are none and the sign of zero count too."""
    if ours.shape != theirs.shape:
        return False
    if ours.dtype != theirs.dtype:
        theirs = theirs.astype(ours.dtype)
    bits = f"u{ours.dtype.itemsize}"
    return bool(np.array_equal(ours.view(bits), theirs.view(bits)))
