"""MATPAC and MATPAC++ checkpoints: the encoder alone, with the AudioSet head, with a probe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conversion.rules import INTEGER, PATCH, Rule, linear, norm, to_ours, to_theirs
from conversion.torch_file import read_torch_file
from tinymu_jax import audio
from tinymu_jax.checkpoint import Checkpoint, check_keys, expected_shapes
from tinymu_jax.config import HeadConfig, MatpacConfig
from tinymu_jax.errors import InputError
from tinymu_jax.sharding import Tree

_BLOCK = "student_encoder.blocks.{n}"
ENCODER_RULES = [
    Rule("cls_token", "cls_token"),
    Rule("pos_embed", "pos_embed"),
    Rule("patch_embed/kernel", "patch_embed.proj.weight", PATCH),
    Rule("patch_embed/bias", "patch_embed.proj.bias"),
    *norm("transformer/blocks/norm1", f"{_BLOCK}.norm1"),
    *linear("transformer/blocks/attn/qkv", f"{_BLOCK}.attn.qkv"),
    *linear("transformer/blocks/attn/proj", f"{_BLOCK}.attn.proj"),
    *norm("transformer/blocks/norm2", f"{_BLOCK}.norm2"),
    *linear("transformer/blocks/mlp/fc1", f"{_BLOCK}.mlp.fc1"),
    *linear("transformer/blocks/mlp/fc2", f"{_BLOCK}.mlp.fc2"),
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
    state: Mapping[str, np.ndarray], where: str | Path, num_heads: int | None = None
) -> MatpacConfig:
    """Reads the encoder's sizes off its weights.

    Only the number of heads leaves no trace in them; without `num_heads`, heads are 64 wide as in
    every published checkpoint.
    """
    for key in ("cls_token", "pos_embed", "patch_embed.proj.weight"):
        if key not in state:
            raise InputError(f"{where}: has no {key}; name a MATPAC or TinyMU checkpoint")
    width, side = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[-1]
    fc1 = _BLOCK.format(n=0) + ".mlp.fc1.weight"
    hidden = state[fc1].shape[0] if fc1 in state else 4 * width
    columns = (state["pos_embed"].shape[1] - 1) // (audio.NUM_MELS // side)
    if num_heads is None and width % 64:
        raise InputError(
            f"{where}: width {width} is no multiple of 64, so the number of heads is unknown; put "
            'a json of the same name beside it, with {"encoder": {"num_heads": ...}}'
        )
    prefix = "student_encoder.blocks."
    depth = len({key.split(".")[2] for key in state if key.startswith(prefix)})
    return MatpacConfig(
        width=width,
        depth=depth,
        num_heads=num_heads or width // 64,
        mlp_ratio=hidden // width,
        num_frames=columns * side,
        patch_size=side,
    )


def from_published(
    path: str | Path, sizes: Mapping[str, Any] | None = None, probe: str | Path | None = None
) -> Checkpoint:
    """Reads a published MATPAC checkpoint, and a probe's own file with it if given.

    Args:
        path: `matpac_10_2048.pt` and its like, with or without the AudioSet head.
        sizes: of the json beside it, for the number of heads.
        probe: a file with `probe.weight` and `probe.bias`.

    Raises:
        InputError: as `read_torch_file`; keys missing, left over or of wrong shape.
    """
    state = read_torch_file(path)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds no state dict; name a MATPAC checkpoint")
    if any(key.startswith(TRAINING_KEYS) for key in state):
        raise InputError(
            f"{path}: is a pre-training checkpoint with its heads and teachers; name the "
            "encoder-only file (the published names end in _enconly.pt)"
        )
    if probe is not None:
        state = {**state, **_read_probe(probe)}
    num_heads = (sizes or {}).get("encoder", {}).get("num_heads")
    config = encoder_config(state, path, num_heads)
    if "head.weight" in state:
        head = HeadConfig("audioset", state["head.weight"].shape[0])
    elif "probe.weight" in state:
        head = HeadConfig("probe", state["probe.weight"].shape[0])
    else:
        head = None
    config = MatpacConfig(**{**vars(config), "head": head})
    shapes = expected_shapes(config)
    front_end = shapes.pop("log_mel")
    rules = ENCODER_RULES + (HEAD_RULES[head.kind] if head else [])
    params = to_ours(state, rules, shapes, path)
    # These files carry no front end: it is the default one.
    params["log_mel"] = {"window": audio.hann_window(), "filterbank": audio.mel_filterbank()}
    assert params["log_mel"].keys() == front_end.keys()
    return Checkpoint(config, params)


def _read_probe(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a probe's own file."""
    state = read_torch_file(path)
    if not isinstance(state, dict) or "probe.weight" not in state:
        raise InputError(f"{path}: has no probe.weight; name a probe's file")
    check_keys(path, state, {key: state[key].shape for key in ("probe.weight", "probe.bias")})
    return state


def to_published(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Returns the state dict of a published encoder file, with its head or probe if it has one."""
    params: Tree = {key: value for key, value in checkpoint.params.items() if key != "log_mel"}
    head = checkpoint.config.head
    return to_theirs(params, ENCODER_RULES + (HEAD_RULES[head.kind] if head else []))
