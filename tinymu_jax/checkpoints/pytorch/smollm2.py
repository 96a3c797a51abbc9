"""Reads and writes SmolLM2 folders in the format of the transformers library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    expected_shapes,
)
from tinymu_jax.checkpoints.pytorch.key_map import (
    KeyRule,
    from_state_dict,
    linear,
    norm,
    to_state_dict,
)
from tinymu_jax.checkpoints.safetensors import read_safetensors, write_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import SmolLM2Config
from tinymu_jax.utils.files import (
    exists,
    make_folder,
    read_json_object,
    read_text,
    remove,
    write_json,
    write_text,
)

_LAYER = "layers.{n}"
RULES = [
    KeyRule("embed_tokens/embedding", "embed_tokens.weight"),
    *(
        rule
        for name in ("q_proj", "k_proj", "v_proj")
        for rule in linear(f"body/layers/attn/qkv/{name}", f"{_LAYER}.self_attn.{name}", bias=False)
    ),
    *linear("body/layers/attn/o_proj", f"{_LAYER}.self_attn.o_proj", bias=False),
    *(
        rule
        for name in ("gate_proj", "up_proj")
        for rule in linear(f"body/layers/mlp/gate_up/{name}", f"{_LAYER}.mlp.{name}", bias=False)
    ),
    *linear("body/layers/mlp/down_proj", f"{_LAYER}.mlp.down_proj", bias=False),
    *norm("body/layers/input_norm", f"{_LAYER}.input_layernorm", bias=False),
    *norm("body/layers/post_attention_norm", f"{_LAYER}.post_attention_layernorm", bias=False),
    *norm("body/norm", "norm", bias=False),
]
"""Key map (PyTorch keys and parameter paths) of a Llama decoder; keys lack the prefix `model.`."""
FOLDER_RULES = [rule._replace(key=f"model.{rule.key}") for rule in RULES]
"""Key map of a SmolLM2 folder's weights: `RULES` with the prefix `model.` before keys."""
_SIZE_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_width",
    "intermediate_size": "mlp_width",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "norm_eps",
}
"""Fields of `SmolLM2Config` by their names in transformers."""

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Special tokens in `config.json`; those of a chat model differ from the base model's."""
SETTINGS_FILES = (
    *("generation_config.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "chat_template.jinja"),
)
"""Files with a folder's special tokens and chat template, which are written back as they are."""


def _check_kind(sizes: Mapping[str, Any], where: str | Path) -> None:
    """Raise an `InputError` if a Llama's activation or rotary embedding differs from SmolLM2's."""

    def rope_type(name: str) -> Any:
        rope = sizes.get(name) or "default"
        return (
            rope.get("rope_type", rope.get("type", "default"))
            if isinstance(rope, Mapping)
            else rope
        )

    for name, value, expected in (
        ("hidden_act", sizes.get("hidden_act", "silu"), "silu"),
        ("partial_rotary_factor", sizes.get("partial_rotary_factor") or 1, 1),
        ("rope_parameters", rope_type("rope_parameters"), "default"),
        ("rope_scaling", rope_type("rope_scaling"), "default"),
    ):
        if value != expected:
            raise InputError(
                f"{where}: {name} is {value!r}, SmolLM2 has {expected!r}; name a SmolLM2 decoder"
            )


def config_from_sizes(sizes: Mapping[str, Any], where: str | Path) -> SmolLM2Config:
    """Return the config of a decoder whose sizes are given under transformers' names.

    `head_dim`, `rope_theta` and `rms_norm_eps` have defaults.

    Raises:
        InputError: another size is missing, or the architecture differs from SmolLM2's.
    """
    _check_kind(sizes, where)
    sizes, rope = dict(sizes), sizes.get("rope_parameters")
    default = rope.get("rope_theta", 1e5) if isinstance(rope, Mapping) else 1e5
    sizes.setdefault("rope_theta", default)
    sizes.setdefault("rms_norm_eps", 1e-5)
    width, heads = sizes.get("hidden_size"), sizes.get("num_attention_heads")
    if sizes.get("head_dim") is None and isinstance(width, int) and isinstance(heads, int):
        sizes["head_dim"] = width // max(heads, 1)
    missing = [name for name in _SIZE_NAMES if name not in sizes]
    if missing:
        raise InputError(
            f"{where}: lacks {', '.join(missing)}; name a json with all sizes of the decoder"
        )
    values = {field: sizes[name] for name, field in _SIZE_NAMES.items()}
    names = {field: name for name, field in _SIZE_NAMES.items()}
    return SmolLM2Config.from_dict(values, str(where), names)


def sizes_from_config(config: SmolLM2Config) -> dict[str, Any]:
    """Return a decoder's sizes under transformers' names. Inverse of `config_from_sizes`."""
    return {name: getattr(config, field) for name, field in _SIZE_NAMES.items()}


def from_published(folder: str | Path) -> Checkpoint:
    """Read a SmolLM2 folder: `config.json`, `*.safetensors` and, if it exists, `tokenizer.json`.

    The checkpoint's `source` has the folder's special tokens (`token_ids`) and the texts of its
    `SETTINGS_FILES` (`files`).

    Raises:
        InputError: a file is missing or damaged, the model is not a Llama with tied embeddings, or
            keys or shapes are wrong.
    """
    folder = Path(folder)
    sizes = read_json_object(folder / CONFIG_FILE, "download it again")
    if sizes.get("model_type") != "llama" or not sizes.get("tie_word_embeddings", False):
        raise InputError(
            f"{folder}: is {sizes.get('model_type')!r}, tied embeddings "
            f"{sizes.get('tie_word_embeddings', False)}; name a SmolLM2 folder"
        )
    # config.json may omit values that equal transformers' defaults for Llama.
    rope = sizes.get("rope_parameters")
    sizes.setdefault("rope_theta", rope.get("rope_theta", 1e4) if isinstance(rope, dict) else 1e4)
    sizes.setdefault("rms_norm_eps", 1e-6)
    config = config_from_sizes(sizes, folder / CONFIG_FILE)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: has no .safetensors file; download the decoder again")
    state: dict[str, np.ndarray] = {}
    file_of: dict[str, Path] = {}
    for file in files:
        for key, value in read_safetensors(file).items():
            if key in state:
                raise InputError(
                    f"{file}: holds {key}, as {file_of[key].name} does; remove the file that does "
                    "not belong to this decoder"
                )
            state[key], file_of[key] = value, file
    ties = {"lm_head.weight": "model.embed_tokens.weight"} if "lm_head.weight" in state else {}
    params = from_state_dict(state, FOLDER_RULES, expected_shapes(config), folder, ties)
    source = {
        "token_ids": {name: sizes[name] for name in TOKEN_IDS if sizes.get(name) is not None},
        "files": {
            name: read_text(folder / name) for name in SETTINGS_FILES if exists(folder / name)
        },
    }
    tokenizer = folder / TOKENIZER_FILE
    return Checkpoint(config, params, read_text(tokenizer) if exists(tokenizer) else None, source)


def write_published(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Write a decoder to a folder that transformers' `LlamaForCausalLM.from_pretrained` reads.

    Raises:
        InputError: the folder cannot be created or written to.
    """
    folder = make_folder(folder)
    state = to_state_dict(checkpoint.params, FOLDER_RULES)
    write_safetensors(folder / WEIGHTS_FILE, state, {"format": "pt"})
    sizes = sizes_from_config(checkpoint.config)
    theta = sizes.pop("rope_theta")
    description = sizes | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        # transformers 4 reads `rope_theta`, transformers 5 reads `rope_parameters`.
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "torch_dtype": "float32",
    }
    token_ids, texts = _settings(checkpoint.source, folder)
    write_json(folder / CONFIG_FILE, description | token_ids)
    if checkpoint.tokenizer is not None:
        write_text(folder / TOKENIZER_FILE, checkpoint.tokenizer)
    for name in SETTINGS_FILES:
        if name in texts:
            write_text(folder / name, texts[name])
        else:
            remove(folder / name)


def _settings(
    source: Mapping[str, Any], folder: Path
) -> tuple[dict[str, int | list[int]], dict[str, str]]:
    """Return the special tokens and the texts of `SETTINGS_FILES` in a checkpoint's metadata.

    Without any, the special tokens are those of the base model. Anything else is left out, since
    the metadata may come from anywhere.
    """
    token_ids, texts = source.get("token_ids"), source.get("files")
    if not all(part is None or isinstance(part, dict) for part in (token_ids, texts)):
        raise InputError(f"{folder}: the checkpoint's special tokens are damaged; convert it again")
    ids = {
        name: value
        for name, value in (token_ids or {"bos_token_id": 0, "eos_token_id": 0}).items()
        if name in TOKEN_IDS
        and all(isinstance(one, int) for one in (value if isinstance(value, list) else [value]))
    }
    return ids, {name: text for name, text in (texts or {}).items() if isinstance(text, str)}
