"""The published TinyMU checkpoint: `tinymu.pt` and the yaml that describes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE, Checkpoint, expected_shapes
from tinymu_jax.checkpoints.pytorch import matpac, smollm2
from tinymu_jax.checkpoints.pytorch.key_map import (
    Rule,
    as_state_dict,
    linear,
    norm,
    to_ours,
    to_theirs,
)
from tinymu_jax.checkpoints.pytorch.published_files import read_json_beside, read_published
from tinymu_jax.errors import InputError
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

PUBLISHED_NAMES = {
    "pooling": "ds_rate",
    "max_text_tokens": "max_text_token_len",
    "max_seconds": "max_length",
    "input_width": "d_in",
    "hidden_width": "d_h",
    "output_width": "d_out",
}
"""Our name of a field -> the yaml's."""

PROJECTOR_KINDS = {
    "linearprojector": "linear",
    "reslinearprojector": "residual",
    "transformerprojector": "transformer",
}

PUBLISHED_KINDS = {ours: theirs for theirs, ours in PROJECTOR_KINDS.items()}


def rules(config: TinyMUConfig) -> list[Rule]:
    """Returns the whole table of a TinyMU."""
    encoder = matpac.ENCODER_RULES + matpac.FRONT_END_RULES
    return [
        *(rule.under("encoder", ENCODER) for rule in encoder),
        *(rule.under("projector", PROJECTOR) for rule in PROJECTOR_RULES[config.projector.kind]),
        *(rule.under("decoder", DECODER) for rule in smollm2.RULES),
    ]


def from_published(path: str | Path, content: object = None) -> Checkpoint:
    """Reads `tinymu.pt` with what lies beside it: a yaml and a json of the same stem, a tokenizer.

    Args:
        path: of the `.pt`, or of a `.safetensors` with the same keys and its yaml.
        content: of the file, where it has been read already.

    Raises:
        InputError: as `read_published`; sizes unknown; keys missing, left over or of wrong shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    if not isinstance(content, dict) or "model" not in content:
        raise InputError(f'{path}: has no "model"; name a TinyMU checkpoint')
    state = as_state_dict(content["model"], path)
    published = _published_config(path, content)
    config = _read_config(path, published, state)
    params = to_ours(state, rules(config), expected_shapes(config), path, TIES)
    tokenizer = path.with_name(TOKENIZER_FILE)
    source = {"config": published, "epoch": content.get("epoch", 0)}
    text = read_text(tokenizer) if exists(tokenizer) else None
    return Checkpoint(config, params, text, source)


def is_tinymu(content: object) -> bool:
    """Tells the content of a TinyMU checkpoint from that of a MATPAC one by its keys."""
    state = content.get("model") if isinstance(content, dict) else None
    return isinstance(state, dict) and any(str(key).startswith("text_decoder.") for key in state)


def _published_config(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the yaml beside the checkpoint, or the config inside it."""
    beside = path.with_suffix(".yaml")
    if not exists(beside):
        config = content.get("config")
        if not isinstance(config, dict) or "model" not in config:
            raise InputError(f"{path}: holds no config; put its yaml beside it as {beside.name}")
        return config
    import yaml

    try:
        config = yaml.safe_load(read_text(beside, "download it again"))
    except yaml.YAMLError as error:
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
        named = str(projector["proj_name"]).lower()
        widths = {"input_width": projector["d_in"], "output_width": projector["d_out"]}
        name, encoder_name = str(decoder["textdec_name"]), str(encoder["audioenc_name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: its config lacks {error}; put the published yaml beside it"
        ) from error
    if encoder_name.upper() != "MATPAC" or named not in PROJECTOR_KINDS:
        raise InputError(
            f"{path}: encoder {hearing!r} with projector {named!r}; only MATPAC with one of "
            f"{', '.join(PROJECTOR_KINDS)} is supported"
        )
    parts = {
        key.removeprefix(f"{ENCODER}."): value
        for key, value in state.items()
        if key.startswith(f"{ENCODER}.")
    }
    heard = matpac.encoder_config(parts, path, sizes.get("encoder"))
    bridge = widths | {"kind": PROJECTOR_KINDS[named], "hidden_width": projector.get("d_h", 1024)}
    if bridge["kind"] == "transformer":
        bridge |= _transformer_sizes(state, sizes.get("projector", {}))
    data = published.get("data")
    values = {
        "encoder": heard.to_dict(),
        "projector": bridge,
        "decoder": _decoder_config(path, name, sizes).to_dict(),
        "pooling": encoder.get("ds_rate", 1),
        "max_text_tokens": decoder.get("max_text_token_len", 129),
        "max_seconds": data.get("max_length", 10) if isinstance(data, dict) else 10,
    }
    return TinyMUConfig.from_dict(values, f"{path}: its config (yaml)", PUBLISHED_NAMES)


def _transformer_sizes(state: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sizes of a transformer projector: off its weights, but for the heads."""
    found, layers = {}, f"{PROJECTOR}.transformer.layers."
    prefix, fc1 = (
        state.get(f"{PROJECTOR}.{name}")
        for name in ("prefix_const", "transformer.layers.0.mlp.fc1.weight")
    )
    # What is missing is told where all keys are held against each other.
    if prefix is not None and fc1 is not None and prefix.ndim == fc1.ndim == 2:
        found = {
            "num_vectors": len(prefix),
            "depth": len({key.split(".")[3] for key in state if key.startswith(layers)}),
            "mlp_ratio": len(fc1) // prefix.shape[1],
        }
    return found | ({"num_heads": told["num_heads"]} if "num_heads" in told else {})


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
    same = (name for name, preset in SMOLLM2_PRESETS.items() if preset == config.decoder)
    name = next(same, "SmolLM2-custom")
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


def sizes(published: Mapping[str, Any], config: TinyMUConfig) -> dict[str, Any]:
    """Returns what the published description does not tell, for the json beside; often nothing."""
    preset = smollm2_preset(str(published["model"]["decoder"]["textdec_name"]))
    encoder, bridge = config.encoder, config.projector
    transformer = bridge.kind == "transformer"
    plain = not transformer or bridge.num_heads == ProjectorConfig().num_heads
    if preset == config.decoder and not matpac.sizes(encoder) and plain:
        return {}
    own = {
        "proj_name": PUBLISHED_KINDS[bridge.kind],
        "prefix_length": bridge.num_vectors,
        "num_layers": bridge.depth,
        "num_heads": bridge.num_heads,
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
        "projector": {
            "d_in": bridge.input_width,
            "d_h": bridge.hidden_width,
            "d_out": bridge.output_width,
        }
        | (own if transformer else {}),
    }
