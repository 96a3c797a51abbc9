"""The tokenizer matches transformers' with "!" as the pad token."""

import json

import pytest
from helpers import refusal
from tokenizer_fixture import tokenizer_text
from tokenizers import Tokenizer as Fast

from tinymu_jax.checkpoints.checkpoint import Checkpoint
from tinymu_jax.checkpoints.open import NANO_FOLDER, tokenizer_loader
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.tokenizer import MAX_UNUSED, Tokenizer

TEXTS = [
    "!!",
    " !=",
    "Hello!",
    "Wow!!! Is it loud?",
    "a!b ! c",
    "What is the main instrument of this song?",
    "Déjà vu à l'opéra, 音楽は楽しい 🎸🎺!",
    "decomposed e\u0301 and \u212b",
    "first<|endoftext|>second",
    "<|im_start|>user\nHi!<|im_end|>\n",
    "  42 at 120 bpm  ",
    "trailing space ",
    "tab\tand\r\nlines\n\n",
    "\ud55c\uad6d\uc5b4 \u0600 \x00 \x7f",
]
"""Texts that both tokenizers encode."""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(tokenizer_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The same tokenizer as the published code makes it: transformers, with "!" as pad token."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(tokenizer_text())
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    reference = AutoTokenizer.from_pretrained(folder)
    reference.add_special_tokens({"pad_token": "!"})
    return reference


def test_the_fixture_is_laid_out_like_smollm2s_tokenizer():
    fast = Fast.from_str(tokenizer_text())
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>", "!")
    assert [fast.token_to_id(name) for name in names] == [0, 1, 2, 16, 17]
    assert fast.get_vocab_size() == 512
    assert fast.encode("!!").tokens == ["!!"]
    assert fast.encode(" !=").tokens == ["Ġ!="]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_encode_matches_transformers(tokenizer, reference, text):
    assert tokenizer.encode(text) == reference(text)["input_ids"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_decode_matches_transformers_up_to_the_end_token(tokenizer, reference, text):
    ids = reference(text)["input_ids"]
    expected = reference.decode(ids, skip_special_tokens=False).split("<|endoftext|>")[0]
    assert tokenizer.decode(ids) == expected


def test_an_exclamation_mark_is_never_merged(tokenizer):
    assert tokenizer.encode("!!") == [17, 17]
    assert len(tokenizer.encode(" !=")) == 3
    assert tokenizer.encode(" !=")[1] == 17


def test_digits_are_single_tokens(tokenizer):
    assert len(tokenizer.encode("1024")) == 4


def test_no_special_tokens_are_added(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode(tokenizer.encode("a guitar")) == "a guitar"


@pytest.mark.parametrize("text", [" a guitar! ", "!", "!!", "Hello! Yes!!", " leading", "音楽 🎸!"])
def test_decoding_keeps_exclamation_marks_and_spaces(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decoding_ends_at_the_end_token(tokenizer):
    ids = [*tokenizer.encode("a guitar!"), 0, *tokenizer.encode(" and a drum"), 0]
    assert tokenizer.decode(ids) == "a guitar!"


def test_decoding_keeps_other_special_tokens(tokenizer):
    assert tokenizer.decode([1, 17, 2]) == "<|im_start|>!<|im_end|>"


def test_an_exclamation_mark_at_another_id_is_refused():
    with pytest.raises(InputError) as caught:
        Tokenizer(tokenizer_text(), pad_token=18, source="other/tokenizer.json")
    message = str(caught.value)
    assert message.startswith("other/tokenizer.json: ")
    assert "17" in message
    assert "18" in message
    assert "decoder's tokenizer.json" in message


def test_a_tokenizer_without_an_exclamation_mark_is_refused():
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    content = json.loads(tokenizer_text()) | {"model": words, "added_tokens": []}
    with pytest.raises(InputError, match="pads with 17"):
        Tokenizer(json.dumps(content))


@pytest.mark.parametrize("text", ["", "no json", "{}", '{"model": {"type": "BPE"}}', "[1, 2]"])
def test_an_invalid_file_is_refused(text):
    with pytest.raises(InputError) as caught:
        Tokenizer(text, source="my/tokenizer.json")
    message = str(caught.value)
    assert message.startswith("my/tokenizer.json: is not a tokenizer")
    assert "use the decoder's tokenizer.json" in message
    assert "\n" not in message


@pytest.mark.parametrize("vocab_size", [511, 640, 49_152])
def test_a_tokenizer_of_another_decoder_is_refused(vocab_size):
    message = refusal(Tokenizer, tokenizer_text(), 17, "x/tokenizer.json", vocab_size, MAX_UNUSED)
    assert message == (
        f"x/tokenizer.json: has 512 tokens, the decoder {vocab_size:,}; use the decoder's "
        "tokenizer.json"
    )
    # Sizes may be rounded up; a decoder that comes with its tokenizer may have any size above.
    assert Tokenizer(tokenizer_text(), vocab_size=576, max_unused=MAX_UNUSED).encode("!") == [17]
    assert Tokenizer(tokenizer_text(), vocab_size=49_152).encode("!") == [17]
    assert "512 tokens" in refusal(Tokenizer, tokenizer_text(), 17, "x", 511)


@pytest.mark.network
def test_the_published_tokenizer_gives_the_known_tokens(shared_dir):
    """Compares the real SmolLM2 tokenizer, which only the hub has, with known ids."""
    from tinymu_jax.checkpoints.hub import fetch_tokenizer

    published = Tokenizer(fetch_tokenizer("HuggingFaceTB/SmolLM2-135M"))
    cases = json.loads((shared_dir / "data" / "smollm2_token_cases.json").read_text())["cases"]
    assert len(cases) == 6
    for case in cases:
        assert published.encode(case["text"]) == case["ids"], case["text"]


def test_a_decoder_may_have_more_embeddings_than_the_tokenizer_it_comes_with():
    checkpoint = Checkpoint(TinyMUConfig(), {}, tokenizer_text())
    assert tokenizer_loader(checkpoint, None, "run")().encode("!") == [17]
    named = tokenizer_loader(checkpoint, NANO_FOLDER / "tokenizer.json", "run")
    assert "has 577 tokens, the decoder 49,152" in refusal(named)
