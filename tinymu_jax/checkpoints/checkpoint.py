"""Checkpoint folders: `model.safetensors`, `config.json` and, with a decoder, `tokenizer.json`."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.checkpoints.safetensors import map_safetensors, write_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SelfSupervisedConfig, SmolLM2Config, TinyMUConfig
from tinymu_jax.utils.files import (
    check_content,
    exists,
    is_partial,
    make_folder,
    read_json_object,
    read_text,
    remove,
    write_text,
)
from tinymu_jax.utils.tree import Tree, flatten, unflatten

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
RUN_FILE, MODEL_FOLDER = "run.json", "model"
"""Files of a training run's folder: its config and data, and the trained model's checkpoint."""
KEPT_FILES = {"README.md", "LICENSE", "LICENSE.md", "LICENSE.txt"}
"""Other files that are kept when a checkpoint folder is overwritten."""
FORMAT = 2
"""Format version in `config.json`; files with another version are refused."""
ModelConfig = TinyMUConfig | MatpacConfig | SmolLM2Config | SelfSupervisedConfig
MODELS: dict[str, type[ModelConfig]] = {
    "tinymu": TinyMUConfig,
    "matpac": MatpacConfig,
    "smollm2": SmolLM2Config,
    "matpac_ssl": SelfSupervisedConfig,
}
"""Config classes by the model's name in `config.json`; `matpac_ssl` is for pre-training."""


class Checkpoint(NamedTuple):
    """A model's config, weights and tokenizer."""

    config: ModelConfig
    """The model's config; its class determines the kind of model."""
    params: Tree
    """Parameters with layers stacked: float32 numpy arrays, possibly views of a file."""
    tokenizer: str | None = None
    """Text of the model's `tokenizer.json`, or None."""
    source: Mapping[str, Any] = MappingProxyType({})
    """Metadata of the published file that was converted; `to_published` writes it back."""


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint folder and return its path.

    `config.json` is written last: a folder without it is incomplete. Existing files in `KEPT_FILES`
    are kept. Weights keep their dtypes (float32 or float16).

    Raises:
        InputError: `folder` is a file, holds other files, or cannot be written to.
    """
    folder = Path(folder)
    if exists(folder) and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder to write the checkpoint to")
    names = {CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE}
    partial = [p for p in folder.glob("*.partial") if any(is_partial(p, name) for name in names)]
    others = {p.name for p in folder.glob("*")} - names - KEPT_FILES - {p.name for p in partial}
    if others:
        raise InputError(
            f"{folder}: holds other files ({sorted(others)[0]}); name a new or empty folder"
        )
    name = next(name for name, kind in MODELS.items() if isinstance(checkpoint.config, kind))
    description = {
        "format": FORMAT,
        "model": name,
        "config": checkpoint.config.to_dict(),
        "source": dict(checkpoint.source),
    }
    try:
        text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    except TypeError as error:
        raise InputError(
            f"{folder}: the source's config cannot be stored as json ({error}); repair its yaml"
        ) from error
    make_folder(folder)
    for path in (folder / CONFIG_FILE, folder / TOKENIZER_FILE, *partial):
        remove(path)
    write_safetensors(folder / WEIGHTS_FILE, dict(flatten(checkpoint.params)))
    if checkpoint.tokenizer is not None:
        write_text(folder / TOKENIZER_FILE, checkpoint.tokenizer)
    write_text(folder / CONFIG_FILE, text)
    return folder


FLOAT32_PATHS = re.compile(r"((encoder|predictor)/)?(pos_embed|log_mel/.*)|.*head/norm/.*|centre")
"""Matches paths of fixed tables and running statistics, which `to_float16` keeps in float32."""


def to_float16(checkpoint: Checkpoint) -> Checkpoint:
    """Round a checkpoint's weights to float16: half the size, three significant digits.

    Fixed tables and running statistics stay float32. `read_checkpoint` returns float32 again.
    """
    leaves = {
        path: leaf if FLOAT32_PATHS.fullmatch(path) else np.asarray(leaf, np.float16)
        for path, leaf in flatten(checkpoint.params)
    }
    return checkpoint._replace(params=unflatten(leaves))


def encoder_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint's encoder (in pre-training, the student's) without a classifier.

    Raises:
        InputError: the checkpoint has no encoder.
    """
    config, params = checkpoint.config, checkpoint.params
    if isinstance(config, TinyMUConfig | SelfSupervisedConfig):
        return Checkpoint(config.encoder, params["encoder"])
    if isinstance(config, MatpacConfig):
        weights = {name: tree for name, tree in params.items() if name != "head"}
        return Checkpoint(replace(config, head=None), weights)
    raise InputError("the checkpoint is a decoder, which has no encoder; name another one")


def published_decoder(source: Mapping[str, Any]) -> str:
    """Return the decoder's hub name in `source`, a published TinyMU's metadata; "" if missing."""
    model = (source.get("config") or {}).get("model") or {}
    return str((model.get("decoder") or {}).get("textdec_name") or "")


def read_config(folder: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Read `config.json` of a checkpoint folder; return the model's config and `source` metadata.

    Raises:
        InputError: `config.json` is missing, not json, or of another format version.
    """
    path = Path(folder) / CONFIG_FILE
    check_content(path)
    if not exists(path):
        raise InputError(f"{folder}: has no {CONFIG_FILE}; name a checkpoint folder")
    description = read_json_object(path, "convert the checkpoint again")
    name = description.get("model")
    if not isinstance(name, str) or name not in MODELS:
        raise InputError(
            f"{path}: names none of the models {', '.join(MODELS)}; convert the checkpoint with "
            "tinymu convert from-torch"
        )
    if description.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {description.get('format')!r}, this version reads {FORMAT}; "
            "use the version of tinymu_jax that wrote it, or convert the published file again"
        )
    config = MODELS[name].from_dict(description.get("config"), str(path))
    return config, description.get("source") or {}


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder, widen float16 weights to float32 and check all shapes.

    The weights are memory-mapped and read-only.

    Raises:
        InputError: a file is missing or damaged, or weights are missing, unexpected or of the wrong
            shape or dtype.
    """
    folder = Path(folder)
    config, source = read_config(folder)
    tokenizer = folder / TOKENIZER_FILE
    check_content(tokenizer)
    text = read_text(tokenizer) if exists(tokenizer) else None
    leaves = map_safetensors(folder / WEIGHTS_FILE)
    expected = dict(flatten(expected_shapes(config)))
    check_keys(folder / WEIGHTS_FILE, leaves, {k: v.shape for k, v in expected.items()})
    for path, leaf in leaves.items():
        if leaf.dtype == np.float16 and expected[path].dtype == np.float32:
            # float32 holds every float16 number exactly.
            leaves[path] = leaf.astype(np.float32)
        elif leaf.dtype != expected[path].dtype:
            raise InputError(
                f"{folder / WEIGHTS_FILE}: {path} is {leaf.dtype} instead of "
                f"{expected[path].dtype}; convert the checkpoint again"
            )
    return Checkpoint(config, unflatten(leaves), text, source)


def check_keys(
    where: str | Path, arrays: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]
) -> None:
    """Check that a file's arrays have the expected keys and shapes; `where` names the file.

    Raises:
        InputError: keys are missing or unexpected, or arrays have the wrong shape.
    """
    missing = [key for key in expected if key not in arrays]
    left_over = [key for key in arrays if key not in expected]
    if missing or left_over:
        parts = [f"missing {_first_three(missing)}"] if missing else []
        parts += [f"left over {_first_three(left_over)}"] if left_over else []
        raise InputError(
            f"{where}: {'; '.join(parts)}; it is not a complete checkpoint of this model: download "
            "it again, or name the file that its config describes"
        )
    wrong = [
        f"{key} {tuple(arrays[key].shape)} instead of {tuple(shape)}"
        for key, shape in expected.items()
        if tuple(arrays[key].shape) != tuple(shape)
    ]
    if wrong:
        raise InputError(
            f"{where}: wrong shapes: {_first_three(wrong)}; give the config that these weights "
            "were trained with"
        )


def _first_three(names: list[str]) -> str:
    """Join the first three names, and state the number of further names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def expected_shapes(config: ModelConfig) -> Tree:
    """Return a model's parameter tree with shapes and dtypes in place of arrays."""
    return unflatten(_expected_leaves(config))


@lru_cache
def _expected_leaves(config: ModelConfig) -> dict[str, Any]:
    """Return the leaves of `expected_shapes` by path; cached, since tracing a model takes 0.3 s."""
    import jax

    return dict(flatten(jax.eval_shape(lambda: init_params(config, 0))))


def init_params(config: ModelConfig, seed: int) -> Tree:
    """Return random initial parameters of a model, with layers stacked."""
    import jax
    import jax.numpy as jnp

    from tinymu_jax.audio.log_mel import column_samples
    from tinymu_jax.models.matpac import Matpac
    from tinymu_jax.models.matpac_ssl import student_teacher
    from tinymu_jax.models.smollm2 import SmolLM2
    from tinymu_jax.models.tinymu import TinyMU

    if isinstance(config, SelfSupervisedConfig):
        return student_teacher.init_student_and_teacher(config, seed)
    model = {TinyMUConfig: TinyMU, MatpacConfig: Matpac, SmolLM2Config: SmolLM2}[type(config)]
    if isinstance(config, SmolLM2Config):
        example = jnp.zeros((1, 2), jnp.int32)
    else:
        has_decoder = isinstance(config, TinyMUConfig)
        encoder, columns = (config.encoder, config.pooling) if has_decoder else (config, 1)
        example = jnp.zeros((1, columns, column_samples(encoder.patch_size)))
    key = jax.random.key(seed)
    return model(config).init(key, example, method="init_all")["params"]
