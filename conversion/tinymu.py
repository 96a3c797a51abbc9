"""The published TinyMU checkpoint: `tinymu.pt` and the yaml that describes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversion import matpac, smollm2
from conversion.rules import Rule, linear, norm, to_ours, to_theirs
from conversion.torch_file import read_torch_file
from tinymu_jax.checkpoint import Checkpoint, expected_shapes
from tinymu_jax.config import ProjectorConfig, SmolLM2Config, TinyMUConfig, smollm2_preset
from tinymu_jax.errors import InputError

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
        Rule("prefix", "prefix_const"),
        *norm("layers/norm1", f"{_PREFIX_LAYER}.norm1"),
        *linear("layers/attn/queries", f"{_PREFIX_LAYER}.attn.to_queries", bias=False),
        *linear("layers/attn/keys_values", f"{_PREFIX_LAYER}.attn.to_keys_values", bias=False),
        *linear("layers/attn/project", f"{_PREFIX_LAYER}.attn.project"),
        *norm("layers/norm2", f"{_PREFIX_LAYER}.norm2"),
        *linear("layers/mlp/fc1", f"{_PREFIX_LAYER}.mlp.fc1"),
        *linear("layers/mlp/fc2", f"{_PREFIX_LAYER}.mlp.fc2"),
    ],
}
PROJECTOR_KINDS = {
    "linearprojector": "linear",
    "reslinearprojector": "residual",
    "transformerprojector": "transformer",
}


def rules(config: TinyMUConfig) -> list[Rule]:
    """Returns the whole table of a TinyMU."""
    encoder = matpac.ENCODER_RULES + matpac.FRONT_END_RULES
    return [
        *(rule.under("encoder", ENCODER) for rule in encoder),
        *(rule.under("projector", PROJECTOR) for rule in PROJECTOR_RULES[config.projector.kind]),
        *(rule.under("decoder", DECODER) for rule in smollm2.RULES),
    ]


def from_published(path: str | Path) -> Checkpoint:
    """Reads `tinymu.pt` with what lies beside it: a yaml and a json of the same stem, a tokenizer.

    Raises:
        InputError: as `read_torch_file`; sizes unknown; keys missing, left over or of wrong shape.
    """
    path = Path(path)
    content = read_torch_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise InputError(f'{path}: has no "model"; name a TinyMU checkpoint')
    state = content["model"]
    published = _published_config(path, content)
    config = _read_config(path, published, state)
    params = to_ours(state, rules(config), expected_shapes(config), path, TIES)
    tokenizer = path.with_name("tokenizer.json")
    source = {"config": published, "epoch": content.get("epoch", 0)}
    text = tokenizer.read_text() if tokenizer.exists() else None
    return Checkpoint(config, params, text, source)


def is_tinymu(path: str | Path) -> bool:
    """Tells a TinyMU checkpoint from a MATPAC one by its keys."""
    content = read_torch_file(path)
    state = content.get("model") if isinstance(content, dict) else None
    return isinstance(state, dict) and any(key.startswith("text_decoder.") for key in state)


def read_json_beside(path: Path) -> dict[str, Any]:
    """Returns the json of the same stem beside a checkpoint, or nothing if there is none."""
    beside = path.with_suffix(".json")
    if not beside.exists():
        return {}
    try:
        sizes = json.loads(beside.read_text())
    except ValueError as error:
        raise InputError(f"{beside}: is not json ({error}); repair or remove it") from error
    if not isinstance(sizes, dict):
        raise InputError(f"{beside}: holds no object with sizes; repair or remove it")
    return sizes


def _published_config(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the yaml beside the checkpoint, or the config inside it."""
    beside = path.with_suffix(".yaml")
    if not beside.exists():
        config = content.get("config")
        if not isinstance(config, dict) or "model" not in config:
            raise InputError(f"{path}: holds no config; put its yaml beside it as {beside.name}")
        return config
    import yaml

    try:
        config = yaml.safe_load(beside.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{beside}: is not yaml ({reason}); download it again") from error
    if not isinstance(config, dict) or "model" not in config:
        raise InputError(f'{beside}: has no "model"; download it again')
    return config


def _read_config(
    path: Path, published: Mapping[str, Any], state: Mapping[str, Any]
) -> TinyMUConfig:
    """Turns the published description, the json beside and the weights into our config."""
    model, sizes = published["model"], read_json_beside(path)
    try:
        encoder, projector, decoder = (model[key] for key in ("encoder", "projector", "decoder"))
        kind, width = PROJECTOR_KINDS.get(projector["proj_name"].lower()), projector["d_in"]
        name, hearing = decoder["textdec_name"], encoder["audioenc_name"]
        output_width = projector["d_out"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: its config lacks {error}; put the published yaml beside it"
        ) from error
    if hearing.upper() != "MATPAC" or kind is None:
        raise InputError(
            f"{path}: encoder {hearing!r} with projector {projector['proj_name']!r}; only MATPAC "
            f"with one of {', '.join(PROJECTOR_KINDS)} is supported"
        )
    parts = {
        key.removeprefix(f"{ENCODER}."): value
        for key, value in state.items()
        if key.startswith(f"{ENCODER}.")
    }
    num_heads = sizes.get("encoder", {}).get("num_heads")
    return TinyMUConfig(
        encoder=matpac.encoder_config(parts, path, num_heads),
        projector=ProjectorConfig(kind, width, projector.get("d_h", 1024), output_width),
        decoder=_decoder_config(path, name, sizes),
        pooling=encoder.get("ds_rate", 1),
        max_text_tokens=decoder.get("max_text_token_len", 129),
        max_seconds=float(published.get("data", {}).get("max_length", 10)),
    )


def _decoder_config(path: Path, name: str, sizes: Mapping[str, Any]) -> SmolLM2Config:
    """Returns the decoder's sizes: from the json beside, or from the preset of its name."""
    if "lm" in sizes:
        return smollm2.config_from_sizes(sizes["lm"], path.with_suffix(".json"))
    preset = smollm2_preset(name)
    if preset is None:
        raise InputError(
            f"{path}: decoder {name!r} is no known preset; put its sizes in "
            f'{path.with_suffix(".json").name} beside it, under "lm"'
        )
    return preset


def to_published(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns what the original reads: model, optimizer (empty), config and epoch."""
    config = checkpoint.config
    published = checkpoint.source.get("config") or describe(config)
    return {
        "model": to_theirs(checkpoint.params, rules(config), TIES),
        "optimizer": {},
        "config": published,
        "epoch": checkpoint.source.get("epoch", 0),
    }


def describe(config: TinyMUConfig) -> dict[str, Any]:
    """Writes our config in the published yaml's terms."""
    presets = ("SmolLM2-135M", "SmolLM2-360M", "SmolLM2-1.7B")
    name = next((p for p in presets if smollm2_preset(p) == config.decoder), "SmolLM2-custom")
    kinds = {ours: theirs for theirs, ours in PROJECTOR_KINDS.items()}
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
                "proj_name": kinds[config.projector.kind],
                "d_in": config.projector.input_width,
                "d_h": config.projector.hidden_width,
                "d_out": config.projector.output_width,
            },
            "decoder": {
                "textdec_name": f"HuggingFaceTB/{name}",
                "max_text_token_len": config.max_text_tokens,
                "freeze": False,
            },
            "model_type": "m2t",
        },
    }


def needs_sizes(published: Mapping[str, Any], config: TinyMUConfig) -> bool:
    """Tells whether the published description alone would be read as another config."""
    preset = smollm2_preset(published["model"]["decoder"]["textdec_name"])
    encoder = config.encoder
    return preset != config.decoder or encoder.width != 64 * encoder.num_heads


def sizes(config: TinyMUConfig) -> dict[str, Any]:
    """Returns the sizes that the published yaml does not tell, for the json beside the `.pt`."""
    encoder = config.encoder
    return {
        "encoder": {
            "embed_dim": encoder.width,
            "depth": encoder.depth,
            "num_heads": encoder.num_heads,
            "mlp_ratio": encoder.mlp_ratio,
            "n_t": encoder.num_frames,
        },
        "lm": smollm2.sizes_from_config(config.decoder),
        "projector": {
            "d_in": config.projector.input_width,
            "d_h": config.projector.hidden_width,
            "d_out": config.projector.output_width,
        },
    }
