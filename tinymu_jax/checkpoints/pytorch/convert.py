"""Writes checkpoints for PyTorch, and compares conversions with their sources bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.checkpoints import hub
from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    MODEL_FOLDER,
    RUN_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    read_config,
)
from tinymu_jax.checkpoints.gguf import from_gguf, is_gguf
from tinymu_jax.checkpoints.pytorch import matpac, matpac_ssl, smollm2, tinymu
from tinymu_jax.checkpoints.pytorch.key_map import to_state_dict
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file
from tinymu_jax.checkpoints.pytorch.published_files import SIDECAR_SIZES, read_sidecar
from tinymu_jax.checkpoints.safetensors import map_safetensors, write_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SelfSupervisedConfig, SmolLM2Config
from tinymu_jax.utils.files import (
    exists,
    read_json_object,
    read_text,
    remove,
    write_json,
    write_text,
)
from tinymu_jax.utils.tree import unflatten

State = Mapping[str, np.ndarray]

# --- Writing -----------------------------------------------------------------------------------


def write_model(checkpoint: Checkpoint, output: Path) -> list[Path]:
    """Write a model or pre-training checkpoint for PyTorch, and return the paths of all files.

    `output` is a `.pt` that the original code loads strictly, or a `.safetensors` of a state dict
    with the same keys. For a TinyMU, the tokenizer and a yaml with the config are written beside
    it. Sizes that none of these files show are written to a JSON file.

    Raises:
        InputError: a file cannot be written, or would replace a file of another model.
    """
    written, sidecar = [output], output.with_suffix(".json")
    replaced_sidecar = read_sidecar(output)
    if isinstance(checkpoint.config, MatpacConfig):
        state = matpac.to_published(checkpoint)
        _write_state(output, state, state)
        sizes = matpac.sidecar_sizes(checkpoint.config, checkpoint.source.get("labels", ()))
    elif isinstance(checkpoint.config, SelfSupervisedConfig):
        if output.suffix == ".safetensors":
            raise InputError(
                f"{output}: a pre-training checkpoint holds dictionaries (its teachers), which "
                "safetensors cannot store; name a .pt, or write the encoder alone (--encoder)"
            )
        write_torch_file(output, matpac_ssl.to_published(checkpoint))
        sizes = matpac_ssl.sidecar_sizes(checkpoint.config)
    else:
        tokenizer = output.with_name(TOKENIZER_FILE)
        _check_tokenizer(tokenizer, checkpoint.tokenizer, replaced=exists(output))
        content = tinymu.to_published(checkpoint)
        _write_state(output, content, content["model"])
        sizes = tinymu.sidecar_sizes(content["config"], checkpoint.config)
        written.append(_write_yaml(output.with_suffix(".yaml"), content["config"]))
        if checkpoint.tokenizer is not None:
            write_text(tokenizer, checkpoint.tokenizer)
            written.append(tokenizer)
    if replaced_sidecar.keys() & SIDECAR_SIZES.keys():
        remove(sidecar)
    if sizes:
        write_json(sidecar, sizes)
        written.append(sidecar)
    return written


def _check_tokenizer(path: Path, text: str | None, replaced: bool) -> None:
    """Raise an `InputError` if the tokenizer at `path` exists and belongs to another model.

    `text` is the model's own tokenizer; None: it has none. If `replaced`, an older model is
    overwritten, and so may be its tokenizer at `path`.
    """
    if not exists(path):
        return
    if text is None:
        raise InputError(
            f"{path}: lies beside a checkpoint that has no tokenizer, and would be taken for its "
            "tokenizer; name another folder"
        )
    if not replaced and read_text(path) != text:
        raise InputError(f"{path}: is another model's tokenizer; name another folder")


def _write_state(output: Path, content: object, state: dict[str, np.ndarray]) -> None:
    """Write `content` to a .pt file, or only `state`, its state dict, to a .safetensors file."""
    if output.suffix == ".safetensors":
        write_safetensors(output, state)  # tied weights are written twice: the format has no ties
    else:
        write_torch_file(output, content)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    import yaml

    write_text(path, yaml.safe_dump(content, sort_keys=False))
    return path


# --- Checking: tensors are views of mapped files, so that no file is loaded as a whole ------------


class Verified(NamedTuple):
    """Counts of a comparison in which all tensors were equal."""

    tensors: int
    """Number of tensors compared."""
    widened: int
    """Number of tensors with equal values in a wider data type than in the source."""

    def __str__(self) -> str:
        wider = f" ({self.widened} of them in a wider type, the same numbers)"
        return f"{self.tensors} tensors bit for bit{wider if self.widened else ''}"


def check_converted(source: Path, folder: Path, probe: Path | None = None) -> Verified:
    """Convert a checkpoint folder's weights back and compare them bit for bit with `source`.

    `source` is the file or folder from which `folder` was converted; `probe` is the file of a
    linear classifier that was added, if any.

    Raises:
        InputError: a tensor differs, or is missing on one side.
    """
    config, _ = read_config(folder)
    leaves = map_safetensors(folder / WEIGHTS_FILE)
    if _is_checkpoint_folder(source):
        inner = source / MODEL_FOLDER if exists(source / RUN_FILE) else source
        return _compare(map_safetensors(inner / WEIGHTS_FILE), leaves, source, folder)
    expected = dict(_read_state(source))
    if probe is not None:
        expected |= _read_state(probe)
    actual = dict(_to_state(Checkpoint(config, unflatten(leaves))))
    if "lm_head.weight" in expected and isinstance(config, SmolLM2Config):
        actual["lm_head.weight"] = actual["model.embed_tokens.weight"]
    return _compare(expected, actual, source, folder)


def check_written(checkpoint: Checkpoint, output: Path) -> Verified:
    """Read back a file or folder written for PyTorch and compare it with its checkpoint.

    Raises:
        InputError: a tensor differs, or is missing on one side.
    """
    return _compare(_to_state(checkpoint), _read_state(output), "the checkpoint", output)


def _is_checkpoint_folder(source: Path) -> bool:
    """Return whether a path is a checkpoint folder or a run's folder, not PyTorch's format."""
    config = source / CONFIG_FILE
    if not source.is_dir() or exists(source / RUN_FILE):
        return source.is_dir()
    return exists(config) and "model_type" not in read_json_object(config, "convert it again")


def _read_state(path: Path) -> State:
    """Read a PyTorch (or GGUF) file or folder as a flat state dict, teachers as `join_teachers`."""
    if path.is_dir() and exists(path / hub.PUBLISHED_WEIGHTS) and not exists(path / CONFIG_FILE):
        path = path / hub.PUBLISHED_WEIGHTS
    if path.is_dir():
        parts = [map_safetensors(part) for part in sorted(path.glob("*.safetensors"))]
        return {key: value for part in parts for key, value in part.items()}
    if path.suffix == ".safetensors":
        return map_safetensors(path)
    if is_gguf(path):
        return to_state_dict(from_gguf(path).params, smollm2.FOLDER_RULES)
    content: Any = read_torch_file(path)
    inner = content.get("model")
    state = inner if isinstance(inner, dict) else content
    if matpac_ssl.is_pretraining(state):
        return matpac_ssl.join_teachers(state, path)
    return {key: value for key, value in state.items() if isinstance(value, np.ndarray)}


def _to_state(checkpoint: Checkpoint) -> State:
    """Return a checkpoint's weights as a PyTorch state dict, without copies where possible."""
    config = checkpoint.config
    if isinstance(config, SmolLM2Config):
        return to_state_dict(checkpoint.params, smollm2.FOLDER_RULES)
    if isinstance(config, MatpacConfig):
        return matpac.to_published(checkpoint)
    if isinstance(config, SelfSupervisedConfig):
        model = matpac_ssl.to_published(checkpoint)["model"]
        return matpac_ssl.join_teachers(model, Path(CONFIG_FILE))
    return tinymu.to_published(checkpoint)["model"]


def _compare(expected: State, actual: State, source: str | Path, output: str | Path) -> Verified:
    """Compare two state dicts, named `source` and `output` in messages; raise if they differ."""
    widened = 0
    for key in sorted(expected.keys() | actual.keys()):
        if key not in expected or key not in actual:
            where = output if key not in actual else source
            raise InputError(f"{output}: came out wrong: {where} has no {key}; convert it again")
        widened += actual[key].dtype != expected[key].dtype
        if not _is_same(actual[key], expected[key]):
            raise InputError(
                f"{output}: came out wrong: {key} differs from {source}; convert it again, and if "
                "that does not help, check the disk"
            )
    return Verified(len(expected), widened)


def _is_same(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether shapes and bits are equal once `expected` is cast to `actual`'s dtype."""
    if actual.shape != expected.shape:
        return False
    if actual.dtype != expected.dtype:
        expected = expected.astype(actual.dtype)
    bits = f"u{actual.dtype.itemsize}"
    return bool(np.array_equal(actual.view(bits), expected.view(bits)))
