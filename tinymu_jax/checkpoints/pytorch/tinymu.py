"""Converts TinyMU from and to the published format: `tinymu.pt` and a yaml with the config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE, Checkpoint, expected_shapes
from tinymu_jax.checkpoints.pytorch import matpac, smollm2
from tinymu_jax.checkpoints.pytorch.key_map import (
    KeyRule,
    check_state_dict,
    from_state_dict,
    linear,
    norm,
    to_state_dict,
)
from tinymu_jax.checkpoints.pytorch.published_files import (
    check_values,
    read_published,
    read_sidecar,
)
from tinymu_jax.errors import InputError, translate
from tinymu_jax.models.config import (
    SMOLLM2_PRESETS,
    ProjectorConfig,
    SmolLM2Config,
    TinyMUConfig,
    smollm2_preset,
)
from tinymu_jax.utils.files import exists, read_text

ENCODER, PROJECTOR, DECODER = "audio_encoder.enc", "projector", "text_decoder.lm.model"
TIES = {
    "text_decoder.lm.lm_head.weight": f"{DECODER}.embed_tokens.weight",
    "text_decoder.embed_fn.weight": f"{DECODER}.embed_tokens.weight",
}
_PREFIX_LAYER = "transformer.layers.{n}"
PROJECTOR_RULES = {
    "linear": linear("linear1", "linear1") + linear("linear2", "linear2"),
    "residual": (
        linear("linear1", "linear1", bias=False)
        + linear("linear2", "linear2", bias=False)
        + norm("norm", "layer_norm")
    ),
    "transformer": [
        *linear("linear", "linear"),
        KeyRule("prefix", "prefix_const"),
        *norm("layers/norm1", f"{_PREFIX_LAYER}.norm1"),
        *linear("layers/attn/queries", f"{_PREFIX_LAYER}.attn.to_queries", bias=False),
        *linear("layers/attn/keys_values", f"{_PREFIX_LAYER}.attn.to_keys_values", bias=False),
        *linear("layers/attn/project", f"{_PREFIX_LAYER}.attn.project"),
        *norm("layers/norm2", f"{_PREFIX_LAYER}.norm2"),
        *linear("layers/mlp/fc1", f"{_PREFIX_LAYER}.mlp.fc1"),
        *linear("layers/mlp/fc2", f"{_PREFIX_LAYER}.mlp.fc2"),
    ],
}
PUBLISHED_NAMES = {
    "pooling": "ds_rate",
    "max_text_tokens": "max_text_token_len",
    "max_seconds": "max_length",
    "input_width": "d_in",
    "hidden_width": "d_h",
    "output_width": "d_out",
}
"""Names in the published yaml, by the fields of `TinyMUConfig` and `ProjectorConfig`."""
PROJECTOR_KINDS = {
    "linearprojector": "linear",
    "reslinearprojector": "residual",
    "transformerprojector": "transformer",
}
PUBLISHED_KINDS = {kind: name for name, kind in PROJECTOR_KINDS.items()}


def rules(config: TinyMUConfig) -> list[KeyRule]:
    """Return the key map (pairs of PyTorch key and parameter path) of a TinyMU."""
    encoder = matpac.ENCODER_RULES + matpac.FRONT_END_RULES
    return [
        *(rule.under("encoder", ENCODER) for rule in encoder),
        *(rule.under("projector", PROJECTOR) for rule in PROJECTOR_RULES[config.projector.kind]),
        *(rule.under("decoder", DECODER) for rule in smollm2.RULES),
    ]


def from_published(path: str | Path, content: object = None) -> Checkpoint:
    """Read a published TinyMU: `tinymu.pt` and, from its folder, yaml, json and tokenizer.

    `path` may also be a `.safetensors` file with the same keys and a yaml beside it. `content` is
    the content of the file, if it was read before.

    Raises:
        InputError: a file cannot be read, the sizes cannot be determined, or keys are missing,
            unexpected or of the wrong shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    if not isinstance(content, dict) or "model" not in content:
        raise InputError(f'{path}: has no "model"; name a TinyMU checkpoint')
    state = check_state_dict(content["model"], path)
    published = _read_description(path, content)
    source = {"config": published, "epoch": content.get("epoch", 0)}
    check_values(source, path)
    config = _infer_config(path, published, state)
    params = from_state_dict(state, rules(config), expected_shapes(config), path, TIES)
    tokenizer = path.with_name(TOKENIZER_FILE)
    text = read_text(tokenizer) if exists(tokenizer) else None
    return Checkpoint(config, params, text, source)


def is_tinymu(content: object) -> bool:
    """Return whether a file's content has the keys of a published TinyMU."""
    state = content.get("model") if isinstance(content, dict) else None
    return isinstance(state, dict) and any(str(key).startswith("text_decoder.") for key in state)


def _read_description(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published config from the yaml beside a checkpoint, or else from `content`."""
    sidecar = path.with_suffix(".yaml")
    if not exists(sidecar):
        config = content.get("config")
        if not isinstance(config, dict) or "model" not in config:
            raise InputError(f"{path}: holds no config; put its yaml beside it as {sidecar.name}")
        return config
    import yaml

    # Values such as dates out of range or endless nesting raise errors of many classes.
    with translate(f"{sidecar}: is not yaml ({{reason}}); download it again"):
        config = yaml.safe_load(read_text(sidecar, "download it again"))
    if not isinstance(config, dict) or "model" not in config:
        raise InputError(f'{sidecar}: has no "model"; download it again')
    return config


def _infer_config(
    path: Path, published: Mapping[str, Any], state: Mapping[str, Any]
) -> TinyMUConfig:
    """Infer a config from the yaml `published`, the weights `state` and the JSON beside `path`."""
    model, sizes = published["model"], read_sidecar(path)
    try:
        encoder, projector, decoder = (model[key] for key in ("encoder", "projector", "decoder"))
        projector_name = str(projector["proj_name"]).lower()
        widths = {"input_width": projector["d_in"], "output_width": projector["d_out"]}
        decoder_name, encoder_name = str(decoder["textdec_name"]), str(encoder["audioenc_name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: its config lacks {error}; put the published yaml beside it"
        ) from error
    kind = PROJECTOR_KINDS.get(projector_name)
    if encoder_name.upper() != "MATPAC" or kind is None:
        raise InputError(
            f"{path}: encoder {encoder_name!r} with projector {projector_name!r}; only MATPAC with "
            f"one of {', '.join(PROJECTOR_KINDS)} is supported"
        )
    encoder_state = {
        key.removeprefix(f"{ENCODER}."): value
        for key, value in state.items()
        if key.startswith(f"{ENCODER}.")
    }
    projector_values = widths | {"kind": kind, "hidden_width": projector.get("d_h", 1024)}
    if kind == "transformer":
        projector_values |= _transformer_sizes(state, sizes.get("projector", {}))
    data = published.get("data")
    values = {
        "encoder": matpac.encoder_config(encoder_state, path, sizes.get("encoder")).to_dict(),
        "projector": projector_values,
        "decoder": _decoder_config(path, decoder_name, sizes).to_dict(),
        "pooling": encoder.get("ds_rate", 1),
        "max_text_tokens": decoder.get("max_text_token_len", 129),
        "max_seconds": data.get("max_length", 10) if isinstance(data, dict) else 10,
    }
    return TinyMUConfig.from_dict(values, f"{path}: its config (yaml)", PUBLISHED_NAMES)


def _transformer_sizes(state: Mapping[str, Any], sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Infer a transformer projector's sizes from weights, and its heads from the JSON `sidecar`."""
    layers = f"{PROJECTOR}.transformer.layers."
    prefix, fc1 = (
        state.get(key) for key in (f"{PROJECTOR}.prefix_const", f"{layers}0.mlp.fc1.weight")
    )
    sizes = {name: sidecar[name] for name in ("num_heads",) if name in sidecar}
    # Missing weights are reported later, by `from_state_dict`.
    if prefix is not None and fc1 is not None and prefix.ndim == fc1.ndim == 2:
        sizes |= {
            "num_vectors": len(prefix),
            "depth": len({key.split(".")[3] for key in state if key.startswith(layers)}),
            "mlp_ratio": len(fc1) // prefix.shape[1],
        }
    return sizes


def _decoder_config(path: Path, name: str, sizes: Mapping[str, Any]) -> SmolLM2Config:
    """Return the decoder's config from `sizes` (of a JSON file), or else from the preset `name`."""
    if "lm" in sizes:
        return smollm2.config_from_sizes(sizes["lm"], path.with_suffix(".json"))
    preset = smollm2_preset(name)
    if preset is None:
        raise InputError(
            f"{path}: decoder {name!r} is not a known preset; put its sizes in "
            f'{path.with_suffix(".json").name} beside it, under "lm"'
        )
    return preset


def to_published(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the content of a `.pt` file for the original code: weights, config and epoch."""
    config = checkpoint.config
    return {
        "model": to_state_dict(checkpoint.params, rules(config), TIES),
        "optimizer": {},
        "config": checkpoint.source.get("config") or published_config(config),
        "epoch": checkpoint.source.get("epoch", 0),
    }


def published_config(config: TinyMUConfig) -> dict[str, Any]:
    """Return a TinyMU's config in the form of the published yaml."""
    presets = (name for name, preset in SMOLLM2_PRESETS.items() if preset == config.decoder)
    return {
        "data": {"max_length": config.max_seconds, "max_text_token_len": config.max_text_tokens},
        "model": {
            "encoder": {
                "audioenc_name": "MATPAC",
                "matpac_ckpt_path": None,
                "freeze": True,
                "ds_rate": config.pooling,
            },
            "projector": {
                "proj_name": PUBLISHED_KINDS[config.projector.kind],
                **_projector_widths(config.projector),
            },
            "decoder": {
                "textdec_name": f"HuggingFaceTB/{next(presets, 'SmolLM2-custom')}",
                "max_text_token_len": config.max_text_tokens,
                "freeze": False,
            },
            "model_type": "m2t",
        },
    }


def _projector_widths(projector: ProjectorConfig) -> dict[str, int]:
    return {
        "d_in": projector.input_width,
        "d_h": projector.hidden_width,
        "d_out": projector.output_width,
    }


def sidecar_sizes(published: Mapping[str, Any], config: TinyMUConfig) -> dict[str, Any]:
    """Return all sizes for a model's JSON file; {} if weights and yaml (`published`) show them."""
    preset = smollm2_preset(str(published["model"]["decoder"]["textdec_name"]))
    encoder, projector = config.encoder, config.projector
    transformer = projector.kind == "transformer"
    default_heads = not transformer or projector.num_heads == ProjectorConfig().num_heads
    if preset == config.decoder and not matpac.sidecar_sizes(encoder) and default_heads:
        return {}
    transformer_sizes = {
        "proj_name": PUBLISHED_KINDS[projector.kind],
        "prefix_length": projector.num_vectors,
        "num_layers": projector.depth,
        "num_heads": projector.num_heads,
    }
    return {
        "encoder": {
            "embed_dim": encoder.width,
            "depth": encoder.depth,
            "num_heads": encoder.num_heads,
            "mlp_ratio": encoder.mlp_ratio,
            "n_t": encoder.num_frames,
        },
        "lm": smollm2.sizes_from_config(config.decoder),
        "projector": _projector_widths(projector) | (transformer_sizes if transformer else {}),
    }
