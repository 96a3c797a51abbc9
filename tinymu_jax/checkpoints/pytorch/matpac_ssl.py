"""Converts MATPAC and MATPAC++ pre-training checkpoints, with their teachers, from and to torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.checkpoint import Checkpoint, expected_shapes
from tinymu_jax.checkpoints.pytorch import matpac
from tinymu_jax.checkpoints.pytorch.key_map import (
    LINEAR,
    KeyRule,
    WeightLayout,
    check_state_dict,
    from_state_dict,
    linear,
    norm,
    to_state_dict,
)
from tinymu_jax.checkpoints.pytorch.published_files import read_published, read_sidecar
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import SelfSupervisedConfig

TEACHERS = ("_ema", "_cls_head_ema")
"""Keys of a pre-training checkpoint whose values are the state dicts of the two teachers."""
CENTRE = WeightLayout(lambda weight: weight.reshape(-1), lambda weight: weight.reshape(1, 1, -1))


def _blocks(path: str, blocks: str, last_norm: str) -> list[KeyRule]:
    """Return a transformer's key rules; `blocks` and `last_norm` are PyTorch keys of its parts."""
    rules = [rule.under(path, f"{blocks}.{{n}}") for rule in matpac.BLOCK_RULES]
    return rules + norm(f"{path}/norm", last_norm)


def _class_head(path: str, key: str) -> list[KeyRule]:
    """Return the key rules of a class head at parameter path `path` and PyTorch key `key`."""
    return [
        *linear(f"{path}/fc1", f"{key}.mlp.0"),
        *linear(f"{path}/fc2", f"{key}.mlp.2"),
        *linear(f"{path}/fc3", f"{key}.mlp.4"),
        KeyRule(f"{path}/last/length", f"{key}.last_layer.weight_g", LINEAR),
        KeyRule(f"{path}/last/direction", f"{key}.last_layer.weight_v", LINEAR),
    ]


def rules(hypotheses: int) -> list[KeyRule]:
    """Return the key map of a pre-training checkpoint with `hypotheses` predictions per patch."""
    heads = linear("predictor/heads", "mcl_heads.mcl_heads.{n}") if hypotheses > 1 else []
    return [
        *(rule._replace(path=f"encoder/{rule.path}") for rule in matpac.ENCODER_RULES),
        *heads,
        KeyRule("predictor/mask_token", "decoder.mask_token"),
        KeyRule("predictor/pos_embed", "decoder.decoder_pos_embed"),
        *linear("predictor/embed", "decoder.decoder_embed"),
        *_blocks("predictor/transformer", "decoder.decoder_blocks", "decoder.decoder_norm"),
        *linear("predictor/single", "decoder.decoder_pred"),
        KeyRule("centre", "cls_head_loss.center", CENTRE),
        *_class_head("class_head", "cls_student_head"),
        *_blocks("teacher/encoder/transformer", "_ema.blocks", "_ema.norm"),
        *_class_head("teacher/class_head", "_cls_head_ema"),
    ]


def join_teachers(content: Mapping[str, Any], where: Path) -> dict[str, np.ndarray]:
    """Return a pre-training checkpoint, in which each teacher is a nested dict, as one flat dict.

    The keys of the two teachers get the prefixes `_ema.` and `_cls_head_ema.`.

    Raises:
        InputError: a teacher is missing, or a value is not a tensor.
    """
    state = {key: value for key, value in content.items() if key not in TEACHERS}
    for name in TEACHERS:
        if not isinstance(content.get(name), dict):
            raise InputError(f"{where}: has no {name}, its teacher; name a pre-training checkpoint")
        state |= {f"{name}.{key}": value for key, value in content[name].items()}
    return check_state_dict(state, where)


def split_teachers(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Move each teacher's weights to a nested dict. Inverse of `join_teachers`."""
    content: dict[str, Any] = {}
    teachers: dict[str, Any] = {name: {} for name in TEACHERS}
    for key, value in state.items():
        name, _, rest = key.partition(".")
        if name in teachers:
            teachers[name][rest] = value
        else:
            content[key] = value
    return content | teachers


def infer_config(
    state: Mapping[str, np.ndarray], where: Path, sidecar: Mapping[str, Any]
) -> SelfSupervisedConfig:
    """Infer the config of a pre-training checkpoint from the shapes of its weights.

    `sidecar`, the content of a JSON file beside the weights, may give the numbers of attention
    heads. By default, heads are as wide as the published ones.

    Raises:
        InputError: a weight is missing or has the wrong number of axes.
    """
    block = "decoder.decoder_blocks."
    ranks = {
        "decoder.mask_token": 3,
        f"{block}0.mlp.fc1.weight": 2,
        "cls_student_head.mlp.0.weight": 2,
        "cls_student_head.last_layer.weight_v": 2,
    }
    for key, rank in ranks.items():
        if key not in state or state[key].ndim != rank or 0 in state[key].shape:
            raise InputError(f"{where}: has no usable {key}; name a pre-training checkpoint")
    mask_token, fc1, first, last = (state[key] for key in ranks)
    width = mask_token.shape[-1]
    heads = {key.split(".")[2] for key in state if key.startswith("mcl_heads.")}
    classes, bottleneck = last.shape
    values = {
        "encoder": matpac.encoder_config(state, where, sidecar.get("encoder")).to_dict(),
        "predictor": {
            "width": width,
            "depth": len({key.split(".")[2] for key in state if key.startswith(block)}),
            "num_heads": sidecar.get("predictor", {}).get("num_heads", max(1, width // 32)),
            "mlp_ratio": fc1.shape[0] // width,
            "hypotheses": max(1, len(heads)),
        },
        "class_head": {
            "hidden_width": len(first),
            "bottleneck": bottleneck,
            "num_classes": classes,
        },
    }
    return SelfSupervisedConfig.from_dict(values, str(where))


def is_pretraining(content: object) -> bool:
    """Return whether a file's content is a pre-training checkpoint."""
    keys = (*TEACHERS, "cls_head_loss.center", "decoder.mask_token")
    inner = _state_of(content)
    return isinstance(inner, dict) and all(key in inner for key in keys)


def _state_of(content: object) -> Any:
    """Return the state dict in a file's content: the entry "model", or else the whole content."""
    inner = content.get("model") if isinstance(content, dict) else None
    return inner if isinstance(inner, dict) else content


def from_published(path: str | Path, content: object = None) -> Checkpoint:
    """Read a pre-training checkpoint, and further sizes from a JSON file of the same name.

    `content` is the file's content, if it was read before.

    Raises:
        InputError: the file cannot be read, or keys are missing, unexpected or of the wrong shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    state = join_teachers(_state_of(content), path)
    config = infer_config(state, path, read_sidecar(path))
    shapes = expected_shapes(config)
    del shapes["encoder"]["log_mel"]
    params = from_state_dict(state, rules(config.predictor.hypotheses), shapes, path)
    params["encoder"] |= matpac.default_front_end()
    return Checkpoint(config, params)


def to_published(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the content of a pre-training checkpoint's .pt file. Inverse of `from_published`."""
    config, params = checkpoint.config, checkpoint.params
    encoder = {name: leaf for name, leaf in params["encoder"].items() if name != "log_mel"}
    state = to_state_dict({**params, "encoder": encoder}, rules(config.predictor.hypotheses))
    return {"model": split_teachers(state)}


def sidecar_sizes(config: SelfSupervisedConfig) -> dict[str, Any]:
    """Return the numbers of attention heads for the weights' JSON file; {} if as published."""
    sizes = matpac.sidecar_sizes(config.encoder)
    if config.predictor.width != 32 * config.predictor.num_heads:
        sizes["predictor"] = {"num_heads": config.predictor.num_heads}
    return sizes
