"""MATPAC and MATPAC++ pre-training checkpoints: student, predictor, heads, and both teachers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.audio.log_mel import hann_window, mel_filterbank
from tinymu_jax.checkpoints.checkpoint import Checkpoint, expected_shapes
from tinymu_jax.checkpoints.pytorch.key_map import (
    LINEAR,
    Form,
    Rule,
    as_state_dict,
    linear,
    norm,
    to_ours,
    to_theirs,
)
from tinymu_jax.checkpoints.pytorch.matpac import BLOCK_RULES, ENCODER_RULES, encoder_config, sizes
from tinymu_jax.checkpoints.pytorch.published_files import read_json_beside, read_published
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.utils.tree import Tree

TEACHERS = ("_ema", "_cls_head_ema")
"""Keys of a training checkpoint that hold a dictionary each."""

CENTRE = Form(lambda weight: weight.reshape(-1), lambda weight: weight.reshape(1, 1, -1))


def _blocks(ours: str, blocks: str, last: str) -> list[Rule]:
    """Returns the rules of transformer blocks and the norm after them."""
    own = [rule.under(ours, f"{blocks}.{{n}}") for rule in BLOCK_RULES]
    return own + norm(f"{ours}/norm", last)


def _class_head(ours: str, theirs: str) -> list[Rule]:
    layers = [
        rule
        for name, place in (("fc1", "mlp.0"), ("fc2", "mlp.2"), ("fc3", "mlp.4"))
        for rule in linear(f"{ours}/{name}", f"{theirs}.{place}")
    ]
    return [
        *layers,
        Rule(f"{ours}/last/length", f"{theirs}.last_layer.weight_g", LINEAR),
        Rule(f"{ours}/last/direction", f"{theirs}.last_layer.weight_v", LINEAR),
    ]


def rules(hypotheses: int) -> list[Rule]:
    """Returns the table: our tree of student and teaching, theirs with its dictionaries joined."""
    heads = linear("predictor/heads", "mcl_heads.mcl_heads.{n}") if hypotheses > 1 else []
    return [
        *(rule._replace(ours=f"encoder/{rule.ours}") for rule in ENCODER_RULES),
        *heads,
        Rule("predictor/mask_token", "decoder.mask_token"),
        Rule("predictor/pos_embed", "decoder.decoder_pos_embed"),
        *linear("predictor/embed", "decoder.decoder_embed"),
        *_blocks("predictor/transformer", "decoder.decoder_blocks", "decoder.decoder_norm"),
        *linear("predictor/single", "decoder.decoder_pred"),
        Rule("centre", "cls_head_loss.center", CENTRE),
        *_class_head("class_head", "cls_student_head"),
        *_blocks("teacher/encoder/transformer", "_ema.blocks", "_ema.norm"),
        *_class_head("teacher/class_head", "_cls_head_ema"),
    ]


def joined(content: Mapping[str, Any], where: Path) -> dict[str, np.ndarray]:
    """Returns a training checkpoint's state dict with its teachers' under their names.

    Raises:
        InputError: a teacher is missing, or something is no named tensor.
    """
    state = {key: value for key, value in content.items() if key not in TEACHERS}
    for name in TEACHERS:
        if not isinstance(content.get(name), dict):
            raise InputError(f"{where}: has no {name}, its teacher; name a pre-training checkpoint")
        state |= {f"{name}.{key}": value for key, value in content[name].items()}
    return as_state_dict(state, where)


def parted(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns `joined`'s state dict as it is published."""
    own: dict[str, Any] = {
        key: value
        for key, value in state.items()
        if not key.startswith(tuple(f"{name}." for name in TEACHERS))
    }
    for name in TEACHERS:
        start = f"{name}."
        own[name] = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    return own


def self_supervised_config(
    state: Mapping[str, np.ndarray], where: Path, beside: Mapping[str, Any]
) -> SelfSupervisedConfig:
    """Reads all sizes off the weights; the numbers of heads, where they are not the published
    ones, off `beside`, the json of the file's stem.

    Raises:
        InputError: a weight that tells a size is missing or of another rank.
    """
    block = "decoder.decoder_blocks."
    tells = {
        "decoder.mask_token": 3,
        f"{block}0.mlp.fc1.weight": 2,
        "cls_student_head.mlp.0.weight": 2,
        "cls_student_head.last_layer.weight_v": 2,
    }
    for key, rank in tells.items():
        if key not in state or state[key].ndim != rank or 0 in state[key].shape:
            raise InputError(f"{where}: has no usable {key}; name a pre-training checkpoint")
    mask_token, fc1, first, last = (state[key] for key in tells)
    width = mask_token.shape[-1]
    heads = {key.split(".")[2] for key in state if key.startswith("mcl_heads.")}
    predictor = {
        "width": width,
        "depth": len({key.split(".")[2] for key in state if key.startswith(block)}),
        "num_heads": beside.get("predictor", {}).get("num_heads", max(1, width // 32)),
        "mlp_ratio": fc1.shape[0] // width,
        "hypotheses": max(1, len(heads)),
    }
    classes, bottleneck = last.shape
    found = {
        "encoder": encoder_config(state, where, beside.get("encoder")).to_dict(),
        "predictor": predictor,
        "class_head": {
            "hidden_width": len(first),
            "bottleneck": bottleneck,
            "num_classes": classes,
        },
    }
    return SelfSupervisedConfig.from_dict(found, str(where))


def is_training(content: object) -> bool:
    """Tells a training checkpoint by its teachers and a head."""
    inner = _inner(content)
    return isinstance(inner, dict) and all(
        key in inner for key in (*TEACHERS, "cls_head_loss.center", "decoder.mask_token")
    )


def _inner(content: object) -> Any:
    """Returns the state dict of a file, which may have it as its "model"."""
    inner = content.get("model") if isinstance(content, dict) else None
    return inner if isinstance(inner, dict) else content


def from_published(path: str | Path, content: object = None) -> Checkpoint:
    """Reads a training checkpoint, and the json of the same stem beside it if there is one.

    Args:
        path: of the file.
        content: of the file, where it has been read already.

    Raises:
        InputError: keys missing, left over or of wrong shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    return Checkpoint(*from_training(_inner(content), path, read_json_beside(path)))


def to_published(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns what `from_published` read: the state dict as the "model" of a file."""
    return {"model": to_training(checkpoint.config, checkpoint.params)}


def sizes_of(config: SelfSupervisedConfig) -> dict[str, Any]:
    """Returns what the weights do not show, for the json beside the file; often nothing."""
    found = sizes(config.encoder)
    if config.predictor.width != 32 * config.predictor.num_heads:
        found["predictor"] = {"num_heads": config.predictor.num_heads}
    return found


def from_training(
    content: Mapping[str, Any], where: Path, beside: Mapping[str, Any]
) -> tuple[SelfSupervisedConfig, Tree]:
    """Reads a training checkpoint's weights.

    Args:
        content: its state dict, teachers included.
        where: for messages.
        beside: the json beside it.

    Raises:
        InputError: keys missing, left over or of wrong shape.
    """
    state = joined(content, where)
    config = self_supervised_config(state, where, beside)
    shapes = expected_shapes(config)
    del shapes["encoder"]["log_mel"]
    params = to_ours(state, rules(config.predictor.hypotheses), shapes, where)
    # These files carry no front end: it is the default one.
    front_end = {"window": hann_window(), "filterbank": mel_filterbank()}
    params["encoder"] |= {"log_mel": front_end}
    return config, params


def to_training(config: SelfSupervisedConfig, params: Tree) -> dict[str, Any]:
    """Returns the state dict as it is published, teachers included."""
    encoder = {name: leaf for name, leaf in params["encoder"].items() if name != "log_mel"}
    return parted(to_theirs({**params, "encoder": encoder}, rules(config.predictor.hypotheses)))
