"""Reads a SmolLM2 decoder and its tokenizer from a GGUF file, the format of llama.cpp."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.checkpoint import Checkpoint, expected_shapes
from tinymu_jax.checkpoints.pytorch.key_map import from_state_dict
from tinymu_jax.checkpoints.pytorch.smollm2 import RULES, config_from_sizes
from tinymu_jax.errors import InputError, translate
from tinymu_jax.models.config import SmolLM2Config

MAGIC = b"GGUF"
"""First bytes of a GGUF file."""
SIZES = {
    "vocab_size": "llama.vocab_size",
    "hidden_size": "llama.embedding_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.rope.dimension_count",
    "intermediate_size": "llama.feed_forward_length",
    "rope_theta": "llama.rope.freq_base",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
}
"""Name of a size in transformers -> key of the file's metadata (gguf, constants.py)."""
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Name of a weight in a layer of the file -> its name in transformers (gguf, tensor_mapping.py)."""
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_WHOLE = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens (gguf, constants.py: TokenType): special ones, and ones that are never split."""


def is_gguf(path: Path) -> bool:
    """Return whether a file is GGUF, by its first bytes; no if it cannot be read."""
    try:
        # To open a pipe waits for who writes it.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # who reads the whole file reports it
        return False


def from_gguf(path: str | Path) -> Checkpoint:
    """Read a decoder with tied embeddings, widened to float32, and its tokenizer.

    All types of weights that the package `gguf` can widen are read, such as F32, F16, BF16, Q8_0,
    Q4_0, Q4_1 and Q4_K.

    Raises:
        InputError: `gguf` is not installed; the file is damaged, holds another architecture, or
            its tokenizer is of another kind than SmolLM2's.
    """
    reader, fields = _open(path)
    if fields.get("general.architecture") != "llama":
        raise InputError(
            f"{path}: its architecture is {fields.get('general.architecture')!r}; name a SmolLM2"
        )
    scaling = {name: value for name, value in fields.items() if "rope.scal" in name}
    if any(value not in ("none", 1.0) for value in scaling.values()):
        raise InputError(f"{path}: has scaled rotary embeddings; name a SmolLM2")
    with translate(f"{path}: its metadata are damaged ({{reason}}); download it again"):
        tokens = fields.get("tokenizer.ggml.tokens") or []
        sizes = {name: _shortest(fields[key]) for name, key in SIZES.items() if key in fields}
        # llama.cpp's default (llama-model.cpp), not SmolLM2's; it has none for epsilon.
        sizes.setdefault("rope_theta", 1e4)
        if "rms_norm_eps" not in sizes:
            raise ValueError(f"{SIZES['rms_norm_eps']} is missing")
        config = config_from_sizes({"vocab_size": len(tokens)} | sizes, path)
        state = _state_dict(reader, config, path)
        ties = {"output.weight": "embed_tokens.weight"} if "output.weight" in state else {}
        params = from_state_dict(state, RULES, expected_shapes(config), path, ties)
        return Checkpoint(config, params, _tokenizer(fields, path), _source(fields))


def tokenizer_from_gguf(path: str | Path) -> str:
    """Return the text of the `tokenizer.json` from which a file's tokenizer was made.

    Raises:
        InputError: `gguf` is not installed; the file is damaged, or its tokenizer is of another
            kind than SmolLM2's.
    """
    fields = _open(path)[1]
    with translate(f"{path}: its metadata are damaged ({{reason}}); download it again"):
        return _tokenizer(fields, path)


def _open(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Return a reader of a file, and the file's metadata."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise InputError(f"{path}: needs gguf; pip install 'tinymu_jax[gguf]'") from error

    class Reader(GGUFReader):
        """A reader that does not take what is missing at the end of a file for empty arrays."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **options: Any) -> Any:
            array = super()._get(offset, dtype, count, *args, **options)
            if len(array) < int(count):
                raise ValueError(f"it ends before byte {int(offset) + int(count)}")
            return array

    with translate(f"{path}: cannot be read as GGUF ({{reason}}); download it again"):
        reader = Reader(path)
        return reader, {name: field.contents() for name, field in reader.fields.items()}


def _source(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the special tokens and the chat template as `smollm2.write_published` takes them."""
    tokens = fields["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    keys = {short: f"tokenizer.ggml.{name}_token_id" for short, name in names.items()}
    ids = {short: int(fields[key]) for short, key in keys.items() if key in fields}
    settings = {f"{short}_token": tokens[number] for short, number in ids.items()}
    if template := fields.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["clean_up_tokenization_spaces"] = False
    if length := fields.get("llama.context_length"):
        settings["model_max_length"] = int(length)
    return {
        "token_ids": {
            f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad") if name in ids
        },
        "files": {"tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False)},
    }


def _state_dict(reader: Any, config: SmolLM2Config, path: str | Path) -> dict[str, np.ndarray]:
    """Return the weights under their names in transformers."""
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    state = {}
    for tensor in reader.tensors:
        name, weight = tensor.name, _widen(tensor, path)
        layer = _LAYER.fullmatch(name)
        if layer and layer[2] in heads:
            weight = _rotary_halves(weight, heads[layer[2]], f"{path}: {name}")
        key = f"layers.{layer[1]}.{NAMES.get(layer[2], layer[2])}.weight" if layer else name
        state[_WHOLE.get(name, key)] = weight
    return state


def _shortest(value: Any) -> Any:
    """Return the shortest decimal number of a float, which the file stores as float32."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _widen(tensor: Any, path: str | Path) -> np.ndarray:
    """Return a weight of the file as float32, in PyTorch's layout."""
    from gguf.quants import dequantize

    kind = tensor.tensor_type.name
    with translate(f"{path}: {tensor.name} is {kind}, which cannot be read ({{reason}})"):
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)


def _rotary_halves(weight: np.ndarray, num_heads: int, where: str) -> np.ndarray:
    """Return the rows of a query or key projection in Llama's order in transformers.

    llama.cpp rotates neighbours, transformers the two halves of a head: its converter interleaves
    the halves (llama.cpp, convert_hf_to_gguf.py, `permute`), which is taken back here.
    """
    if weight.ndim != 2 or weight.shape[0] % (2 * num_heads):
        raise InputError(f"{where}: its shape {weight.shape} does not fit {num_heads} heads")
    pairs = weight.reshape(num_heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _tokenizer(fields: Mapping[str, Any], path: str | Path) -> str:
    """Return the text of `tokenizer.json`."""
    family = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
    if family != ("gpt2", "smollm"):
        raise InputError(
            f"{path}: its tokenizer is {' '.join(map(str, family))}, SmolLM2's is gpt2 smollm; "
            "name a SmolLM2"
        )
    tokens, types = fields["tokenizer.ggml.tokens"], fields.get("tokenizer.ggml.token_type", [])
    added = [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for number, kind in enumerate(types)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = True
    # The file has no pre-tokenizer but its name: this is that of `smollm`.
    splits = [{"type": "Digits", "individual_digits": True}, byte_level]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in fields.get("tokenizer.ggml.merges", [])],
        },
    }
    return json.dumps(content, ensure_ascii=False)
