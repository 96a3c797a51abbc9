"""Converts MATPAC encoders, with or without a classifier, from and to PyTorch."""

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
    KeyRule,
    check_state_dict,
    from_state_dict,
    linear,
    norm,
    to_state_dict,
)
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.pytorch.published_files import read_published, read_sidecar
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
"""Key map (pairs of PyTorch key and parameter path) of a transformer's blocks, without prefixes."""
ENCODER_RULES = [
    KeyRule("cls_token", "cls_token"),
    KeyRule("pos_embed", "pos_embed"),
    KeyRule("patch_embed/kernel", "patch_embed.proj.weight", PATCH),
    KeyRule("patch_embed/bias", "patch_embed.proj.bias"),
    *(rule.under("transformer", _BLOCK) for rule in BLOCK_RULES),
    *norm("transformer/norm", "student_encoder.norm"),
]
FRONT_END_RULES = [
    KeyRule("log_mel/window", "log_mel.MelSpectrogram.spectrogram.window"),
    KeyRule("log_mel/filterbank", "log_mel.MelSpectrogram.mel_scale.fb"),
]
HEAD_RULES = {
    "audioset": [
        KeyRule("head/norm/mean", "head_norm.running_mean"),
        KeyRule("head/norm/variance", "head_norm.running_var"),
        KeyRule("head/norm/count", "head_norm.num_batches_tracked", INTEGER),
        *linear("head/linear", "head"),
    ],
    "probe": linear("head/linear", "probe"),
}
TRAINING_KEYS = ("mcl_heads.", "cls_student_head.", "cls_head_loss.", "decoder.")


def encoder_config(
    state: Mapping[str, np.ndarray], where: Path, sizes: Mapping[str, Any] | None = None
) -> MatpacConfig:
    """Infer an encoder's config from the shapes of its weights.

    `sizes`, the encoder's entry in a JSON file beside the weights, may give `num_heads`. By
    default, heads are 64 wide, as in all published checkpoints. `where` names the file in messages.

    Raises:
        InputError: a weight is missing or has the wrong number of axes, or `sizes` does not fit.
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
            f"{where}: width {width} is not a multiple of 64: the number of heads is unknown; put "
            'a json of the same name beside it, with {"encoder": {"num_heads": ...}}'
        )
    prefix = "student_encoder.blocks."
    depth = len({key.split(".")[2] for key in state if key.startswith(prefix)})
    values = {
        "width": width,
        "depth": depth,
        "num_heads": width // 64 if num_heads is None else num_heads,
        "mlp_ratio": state[fc1].shape[0] // width,
        "num_frames": columns * side,
        "patch_size": side,
    }
    source = where if num_heads is None else where.with_suffix(".json")
    return MatpacConfig.from_dict(values, str(source))


def from_published(path: str | Path, content: object = None) -> Checkpoint:
    """Read a published MATPAC encoder (such as `matpac_10_2048.pt`), with or without classifier.

    A JSON file of the same name may have further sizes. `content` is the content of the file, if it
    was read before.

    Raises:
        InputError: the file cannot be read, or keys are missing, unexpected or of the wrong shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    inner = content.get("model") if isinstance(content, dict) else None
    state = inner if isinstance(inner, dict) else content
    if isinstance(state, dict) and {"_ema", "_cls_head_ema"} & set(map(str, state)):
        state = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    state = check_state_dict(state, path)
    if any(key.startswith(TRAINING_KEYS) for key in state):
        raise InputError(
            f"{path}: is a pre-training checkpoint with its heads and teachers; name the "
            "encoder-only file (the published names end in _enconly.pt)"
        )
    sidecar = read_sidecar(path)
    config = encoder_config(state, path, sidecar.get("encoder"))
    head = sidecar.get("head", {})
    for kind, key in (("audioset", "head.weight"), ("probe", "probe.weight")):
        if key in state:
            values = {"kind": kind, "num_classes": len(state[key])}
            values |= {name: head[name] for name in ("activation",) if name in head}
            head_config = HeadConfig.from_dict(values, str(path.with_suffix(".json")))
            config = replace(config, head=head_config)
    source = {"labels": head["labels"]} if "labels" in head and config.head else {}
    rules = ENCODER_RULES + (HEAD_RULES[config.head.kind] if config.head else [])
    shapes = expected_shapes(config)
    del shapes["log_mel"]
    params = from_state_dict(state, rules, shapes, path)
    return Checkpoint(config, params | default_front_end(), source=source)


def default_front_end() -> Tree:
    """Return the log-mel window and filterbank as parameters; encoder files do not contain them."""
    return {"log_mel": {"window": hann_window(), "filterbank": mel_filterbank()}}


def with_probe(checkpoint: Checkpoint, path: str | Path) -> Checkpoint:
    """Add a linear classifier (`probe.weight` and `probe.bias` of a .pt file) to an encoder.

    Raises:
        InputError: the encoder has a classifier already, or the file's keys or shapes are wrong.
    """
    if checkpoint.config.head is not None:
        raise InputError(f"{path}: the encoder has a head already; load it without a probe")
    state = check_state_dict(read_torch_file(path), path)
    classes = len(state["probe.weight"]) if "probe.weight" in state else 1
    config = replace(checkpoint.config, head=HeadConfig("probe", classes))
    shapes = {"head": expected_shapes(config)["head"]}
    head = from_state_dict(state, HEAD_RULES["probe"], shapes, path)
    return checkpoint._replace(config=config, params=checkpoint.params | head)


def to_published(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return an encoder's weights, including a classifier, as a PyTorch state dict."""
    params: Tree = {key: value for key, value in checkpoint.params.items() if key != "log_mel"}
    head = checkpoint.config.head
    return to_state_dict(params, ENCODER_RULES + (HEAD_RULES[head.kind] if head else []))


def sidecar_sizes(config: MatpacConfig, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content for a JSON file beside the weights; {} if the weights show everything.

    It has the number of attention heads, if unusual, and a classifier's activation and `labels`.
    """
    sizes: dict[str, Any] = {}
    if config.width != 64 * config.num_heads:
        sizes["encoder"] = {"num_heads": config.num_heads}
    head: dict[str, Any] = {"labels": list(labels)} if labels else {}
    if config.head is not None and config.head.activation != HeadConfig.activation:
        head["activation"] = config.head.activation
    return sizes | ({"head": head} if head else {})
