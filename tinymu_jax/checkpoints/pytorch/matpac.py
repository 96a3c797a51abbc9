"""MATPAC and MATPAC++ checkpoints: the encoder alone, with the AudioSet head, with a probe."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.audio.log_mel import NUM_MELS, hann_window, mel_filterbank
from tinymu_jax.checkpoints.checkpoint import Checkpoint, expected_shapes
from tinymu_jax.checkpoints.pytorch.key_map import (
    INTEGER,
    PATCH,
    Rule,
    as_state_dict,
    linear,
    norm,
    to_ours,
    to_theirs,
)
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.pytorch.published_files import read_json_beside, read_published
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import HeadConfig, MatpacConfig
from tinymu_jax.utils.tree import Tree

_BLOCK = "student_encoder.blocks.{n}"

BLOCK_RULES = [
    *norm("blocks/norm1", "norm1"),
    *linear("blocks/attn/qkv", "attn.qkv"),
    *linear("blocks/attn/proj", "attn.proj"),
    *norm("blocks/norm2", "norm2"),
    *linear("blocks/mlp/fc1", "mlp.fc1"),
    *linear("blocks/mlp/fc2", "mlp.fc2"),
]
"""Of a transformer's blocks; pre-training has two transformers more."""

ENCODER_RULES = [
    Rule("cls_token", "cls_token"),
    Rule("pos_embed", "pos_embed"),
    Rule("patch_embed/kernel", "patch_embed.proj.weight", PATCH),
    Rule("patch_embed/bias", "patch_embed.proj.bias"),
    *(rule.under("transformer", _BLOCK) for rule in BLOCK_RULES),
    *norm("transformer/norm", "student_encoder.norm"),
]

FRONT_END_RULES = [
    Rule("log_mel/window", "log_mel.MelSpectrogram.spectrogram.window"),
    Rule("log_mel/filterbank", "log_mel.MelSpectrogram.mel_scale.fb"),
]

HEAD_RULES = {
    "audioset": [
        Rule("head/norm/mean", "head_norm.running_mean"),
        Rule("head/norm/variance", "head_norm.running_var"),
        Rule("head/norm/count", "head_norm.num_batches_tracked", INTEGER),
        *linear("head/linear", "head"),
    ],
    "probe": linear("head/linear", "probe"),
}

TRAINING_KEYS = ("mcl_heads.", "cls_student_head.", "cls_head_loss.", "decoder.")


def encoder_config(
    state: Mapping[str, np.ndarray], where: Path, sizes: Mapping[str, Any] | None = None
) -> MatpacConfig:
    """Reads the encoder's sizes off its weights.

    Only the number of heads leaves no trace in them: it is taken from `sizes`, the "encoder" of
    the json beside the file; without one, heads are 64 wide as in every published checkpoint.

    Raises:
        InputError: a weight that tells a size is missing or of another rank; sizes that do not go
            together.
    """
    fc1 = _BLOCK.format(n=0) + ".mlp.fc1.weight"
    ranks = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, fc1: 2}
    for key, rank in ranks.items():
        if key not in state:
            raise InputError(f"{where}: has no {key}; name a MATPAC or TinyMU checkpoint")
        if state[key].ndim != rank or 0 in state[key].shape:
            raise InputError(
                f"{where}: {key} has shape {state[key].shape}, {rank} axes are expected; name a "
                "MATPAC or TinyMU checkpoint"
            )
    width, side = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[-1]
    if NUM_MELS % side:
        raise InputError(
            f"{where}: patch_embed.proj.weight has patches of {side}, which do not divide "
            f"{NUM_MELS} mel bands; name a MATPAC or TinyMU checkpoint"
        )
    columns = (state["pos_embed"].shape[1] - 1) // (NUM_MELS // side)
    num_heads = (sizes or {}).get("num_heads")
    if num_heads is None and width % 64:
        raise InputError(
            f"{where}: width {width} is no multiple of 64, so the number of heads is unknown; put "
            'a json of the same name beside it, with {"encoder": {"num_heads": ...}}'
        )
    prefix = "student_encoder.blocks."
    depth = len({key.split(".")[2] for key in state if key.startswith(prefix)})
    found = {
        "width": width,
        "depth": depth,
        "num_heads": width // 64 if num_heads is None else num_heads,
        "mlp_ratio": state[fc1].shape[0] // width,
        "num_frames": columns * side,
        "patch_size": side,
    }
    told_by = where if num_heads is None else where.with_suffix(".json")
    return MatpacConfig.from_dict(found, str(told_by))


def from_published(path: str | Path, content: object = None) -> Checkpoint:
    """Reads a published MATPAC checkpoint, and the json of the same stem beside it if there is one.

    Args:
        path: `matpac_10_2048.pt` and its like, with or without the AudioSet head.
        content: of the file, where it has been read already.

    Raises:
        InputError: as `read_published`; keys missing, left over or of wrong shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    inner = content.get("model") if isinstance(content, dict) else None
    state = inner if isinstance(inner, dict) else content
    if isinstance(state, dict) and {"_ema", "_cls_head_ema"} & set(map(str, state)):
        state = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    state = as_state_dict(state, path)
    if any(key.startswith(TRAINING_KEYS) for key in state):
        raise InputError(
            f"{path}: is a pre-training checkpoint with its heads and teachers; name the "
            "encoder-only file (the published names end in _enconly.pt)"
        )
    beside = read_json_beside(path)
    config = encoder_config(state, path, beside.get("encoder"))
    head = beside.get("head", {})
    for kind, key in (("audioset", "head.weight"), ("probe", "probe.weight")):
        if key in state:
            told = {"kind": kind, "num_classes": len(state[key])}
            if "activation" in head:
                told["activation"] = head["activation"]
            found = HeadConfig.from_dict(told, str(path.with_suffix(".json")))
            config = replace(config, head=found)
    source = {"labels": head["labels"]} if "labels" in head and config.head else {}
    rules = ENCODER_RULES + (HEAD_RULES[config.head.kind] if config.head else [])
    shapes = expected_shapes(config)
    del shapes["log_mel"]
    params = to_ours(state, rules, shapes, path)
    # These files carry no front end: it is the default one.
    front_end = {"window": hann_window(), "filterbank": mel_filterbank()}
    return Checkpoint(config, params | {"log_mel": front_end}, source=source)


def with_probe(checkpoint: Checkpoint, path: str | Path) -> Checkpoint:
    """Puts a probe's own file (`probe.weight`, `probe.bias`) on top of an encoder.

    Raises:
        InputError: the encoder has a head already; keys missing, left over or of wrong shape.
    """
    if checkpoint.config.head is not None:
        raise InputError(f"{path}: the encoder has a head already; load it without a probe")
    state = as_state_dict(read_torch_file(path), path)
    classes = len(state["probe.weight"]) if "probe.weight" in state else 1
    config = replace(checkpoint.config, head=HeadConfig("probe", classes))
    shapes = {"head": expected_shapes(config)["head"]}
    head = to_ours(state, HEAD_RULES["probe"], shapes, path)
    return checkpoint._replace(config=config, params=checkpoint.params | head)


def to_published(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Returns the state dict of a published encoder file, with its head or probe if it has one."""
    params: Tree = {key: value for key, value in checkpoint.params.items() if key != "log_mel"}
    head = checkpoint.config.head
    return to_theirs(params, ENCODER_RULES + (HEAD_RULES[head.kind] if head else []))


def sizes(config: MatpacConfig, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what the weights do not show, for the json beside the file; often nothing.

    Args:
        config: of the encoder.
        labels: names of its head's classes, where they are known.
    """
    found: dict[str, Any] = {}
    if config.width != 64 * config.num_heads:
        found["encoder"] = {"num_heads": config.num_heads}
    head: dict[str, Any] = {"labels": list(labels)} if labels else {}
    if config.head is not None and config.head.activation != HeadConfig.activation:
        head["activation"] = config.head.activation
    return found | ({"head": head} if head else {})
