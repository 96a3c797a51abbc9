"""Weights go from PyTorch into our layout and back without a bit lost, or a sentence says why."""

import copy
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import (
    SMALL_DECODER,
    SMALL_ENCODER,
    published_config,
    published_encoder,
    refusal,
    run_python,
)
from oracles import torch_modules as oracle

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    expected_shapes,
    read_checkpoint,
    save_checkpoint,
    to_float16,
)
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.checkpoints.pytorch import matpac, smollm2, tinymu
from tinymu_jax.checkpoints.pytorch.convert import write_model
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file
from tinymu_jax.cli.convert import ToTorch
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import SMOLLM2_PRESETS, HeadConfig, MatpacConfig
from tinymu_jax.utils.tree import flatten, unflatten

KINDS = ["linearprojector", "reslinearprojector", "transformerprojector"]
WEIGHTS = "projector.linear1.weight"
ENCODER_NORM = "audio_encoder.enc.student_encoder.norm.bias"
SHARED = {
    "text_decoder.lm.model.embed_tokens.weight",
    "text_decoder.lm.lm_head.weight",
    "text_decoder.embed_fn.weight",
}


def sizes(kind="linearprojector"):
    projector = {"proj_name": kind, "d_in": 320, "d_out": 32}
    if kind == "linearprojector":
        projector["d_h"] = 24
    return {"encoder": dict(SMALL_ENCODER), "lm": dict(SMALL_DECODER), "projector": projector}


def scrambled(module, seed=0):
    """Gives every weight and buffer of a module a random value, tied ones one value."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict(keep_vars=True).values():
        if tensor.dtype.is_floating_point:
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
        else:
            tensor.data.fill_(123_456)
    return module


def write_tinymu(folder, kind="linearprojector", change=None, config=None, name="tinymu.pt"):
    """Writes a small TinyMU as published, with the json of its sizes; returns the path."""
    state = dict(scrambled(oracle.build_tinymu(sizes(kind))).state_dict())
    if change:
        change(state)
    content = {
        "model": state,
        "optimizer": {},
        "config": config or published_config(kind),
        "epoch": 3,
    }
    path = folder / name
    torch.save(content, path)
    path.with_suffix(".json").write_text(json.dumps(sizes(kind)))
    return path


def write_matpac(folder, change=None, **options):
    """Writes a small encoder as published; returns path and state."""
    state = published_encoder(scrambled(oracle.Matpac(**SMALL_ENCODER, **options)))
    if change:
        change(state)
    path = folder / "matpac.pt"
    torch.save(state, path)
    return path, state


def raw(value):
    if isinstance(value, torch.Tensor):
        return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return np.array(value, order="C").tobytes()


def assert_same_state(result, expected):
    """Holds every key, data type, shape and byte of two state dicts against each other."""
    assert list(result) == list(expected) or set(result) == set(expected)
    for key, value in expected.items():
        assert str(result[key].dtype).removeprefix("torch.") == str(value.dtype).removeprefix(
            "torch."
        ), key
        assert tuple(result[key].shape) == tuple(value.shape), key
        assert raw(result[key]) == raw(value), key


def assert_same_tree(result, expected):
    result, expected = dict(flatten(result)), dict(flatten(expected))
    assert result.keys() == expected.keys()
    for path, leaf in expected.items():
        assert np.asarray(result[path]).dtype == leaf.dtype, path
        assert np.asarray(result[path]).shape == leaf.shape, path
        assert raw(result[path]) == raw(leaf), path


# --- TinyMU ------------------------------------------------------------------------------------


def test_the_golden_checkpoint_comes_back_bit_for_bit(golden_dir):
    path = golden_dir / "tinymu_tiny.pt"
    original, back = read_torch_file(path), tinymu.to_published(tinymu.from_published(path))
    assert back.keys() == original.keys()
    assert_same_state(back["model"], original["model"])
    assert back["config"] == original["config"]
    assert back["epoch"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_projector_comes_back_bit_for_bit(tmp_path, kind):
    path = write_tinymu(tmp_path, kind)
    checkpoint = tinymu.from_published(path)
    back = tinymu.to_published(checkpoint)["model"]
    assert_same_state(back, torch.load(path)["model"])
    assert len(back) == len(oracle.build_tinymu(sizes(kind)).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_loads_what_we_write_strictly(tmp_path, kind):
    checkpoint = tinymu.from_published(write_tinymu(tmp_path, kind))
    write_model(checkpoint, tmp_path / "back.pt")
    written = torch.load(tmp_path / "back.pt", weights_only=True)
    module = oracle.build_tinymu(sizes(kind))
    module.load_state_dict(written["model"], strict=True)
    assert_same_state(module.state_dict(), scrambled(oracle.build_tinymu(sizes(kind))).state_dict())


def test_the_sizes_of_a_checkpoint_are_read_off_it(tmp_path):
    config = tinymu.from_published(write_tinymu(tmp_path)).config
    assert config.encoder == MatpacConfig(width=64, depth=2, num_heads=1, num_frames=64)
    assert (config.projector.kind, config.projector.hidden_width) == ("linear", 24)
    assert (config.decoder.width, config.decoder.num_kv_heads, config.decoder.vocab_size) == (
        32,
        2,
        40,
    )
    assert (config.max_text_tokens, config.max_seconds, config.pooling) == (129, 10.0, 1)


def test_the_description_inside_is_read(tmp_path):
    config = published_config(max_text_token_len=77)
    config["data"]["max_length"] = 7.5
    config["model"]["encoder"]["ds_rate"] = 2
    read = tinymu.from_published(write_tinymu(tmp_path, config=config)).config
    assert (read.max_text_tokens, read.max_seconds, read.pooling) == (77, 7.5, 2)


def test_tied_copies_share_their_storage_in_the_written_file(tmp_path):
    write_model(tinymu.from_published(write_tinymu(tmp_path)), tmp_path / "back.pt")
    state = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    assert len({state[key].untyped_storage().data_ptr() for key in SHARED}) == 1
    others = [value for key, value in state.items() if key not in SHARED]
    assert len({value.untyped_storage().data_ptr() for value in others}) == len(others)


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
    checkpoint = tinymu.from_published(write_tinymu(tmp_path))
    for name in ("first.pt", "second.pt"):
        write_torch_file(tmp_path / name, tinymu.to_published(checkpoint))
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "second.pt").read_bytes()


def test_what_is_written_is_read_as_the_same_checkpoint(tmp_path):
    checkpoint = tinymu.from_published(write_tinymu(tmp_path))
    written = write_model(checkpoint, tmp_path / "back.pt")
    assert [path.name for path in written] == ["back.pt", "back.yaml", "back.json"]
    again = tinymu.from_published(tmp_path / "back.pt")
    assert again.config == checkpoint.config
    assert again.source == checkpoint.source
    assert_same_tree(again.params, checkpoint.params)


def test_a_model_that_never_was_published_is_described_for_the_original(tmp_path):
    checkpoint = tinymu.from_published(write_tinymu(tmp_path, "reslinearprojector"))
    write_model(checkpoint._replace(source={}), tmp_path / "back.pt")
    again = tinymu.from_published(tmp_path / "back.pt")
    assert again.config == checkpoint.config
    assert_same_tree(again.params, checkpoint.params)


def test_sizes_of_the_model_that_was_there_before_are_not_read(tmp_path, monkeypatch):
    first = tinymu.from_published(write_tinymu(tmp_path))
    assert write_model(first, tmp_path / "out.pt")[-1].name == "out.json"
    # The second model has another vocabulary, and a decoder that is known by its name.
    second = tinymu.from_published(write_preset(tmp_path, monkeypatch, vocab_size=50))
    written = write_model(second, tmp_path / "out.pt")
    assert [path.name for path in written] == ["out.pt", "out.yaml"]
    assert tinymu.from_published(tmp_path / "out.pt").config == second.config


def test_safetensors_hold_the_same_keys_and_bytes(tmp_path):
    from safetensors.torch import load_file

    path = write_tinymu(tmp_path)
    write_model(tinymu.from_published(path), tmp_path / "back.safetensors")
    state = load_file(tmp_path / "back.safetensors")
    assert_same_state(state, torch.load(path)["model"])
    oracle.build_tinymu(sizes()).load_state_dict(state, strict=True)


def test_weights_saved_in_bfloat16_are_read_exactly(tmp_path):
    def change(state):
        state[WEIGHTS] = state[WEIGHTS].to(torch.bfloat16)

    path = write_tinymu(tmp_path, change=change)
    kernel = tinymu.from_published(path).params["projector"]["linear1"]["kernel"]
    assert kernel.dtype == np.float32
    expected = torch.load(path)["model"][WEIGHTS].float().numpy().T
    assert raw(kernel) == raw(expected)


def test_weights_in_double_precision_are_not_rounded_silently(tmp_path):
    def change(state):
        state[WEIGHTS] = state[WEIGHTS].double()

    path = write_tinymu(tmp_path, change=change)
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: {WEIGHTS} is float64")
    assert "model.float()" in message


def test_a_safetensors_file_of_a_tinymu_is_opened_again(tmp_path):
    checkpoint = tinymu.from_published(write_tinymu(tmp_path))
    write_model(checkpoint, tmp_path / "again.safetensors")
    assert_same_tree(open_checkpoint(tmp_path / "again.safetensors").params, checkpoint.params)


def test_a_safetensors_file_without_its_yaml_names_it(tmp_path):
    write_model(tinymu.from_published(write_tinymu(tmp_path)), tmp_path / "again.safetensors")
    (tmp_path / "again.yaml").unlink()
    message = refusal(open_checkpoint, tmp_path / "again.safetensors")
    assert "put its yaml beside it as again.yaml" in message


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_written_files_have_the_permissions_of_any_new_file(tmp_path, checkpoint, mask):
    before = os.umask(mask)
    try:
        save_checkpoint(tmp_path / "out", checkpoint)
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "out").iterdir()}
    assert modes == {0o666 & ~mask}


@pytest.mark.parametrize("part", ["encoder", "projector"])
def test_an_unknown_size_in_the_json_is_named(tmp_path, part):
    path = write_tinymu(tmp_path)
    content = json.loads(path.with_suffix(".json").read_text())
    content.setdefault(part, {})["num_head"] = 2
    path.with_suffix(".json").write_text(json.dumps(content))
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path.with_suffix('.json')}: unknown {part} size 'num_head'")


def test_another_models_tokenizer_is_not_taken_for_its_own(tmp_path):
    checkpoint = tinymu.from_published(write_tinymu(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text("of an earlier model")
    message = refusal(write_model, checkpoint, tmp_path / "out" / "tinymu.pt")
    assert message.startswith(f"{tmp_path / 'out' / 'tokenizer.json'}: lies beside")


def test_a_tokenizer_beside_the_checkpoint_is_taken_along(tmp_path):
    path = write_tinymu(tmp_path)
    assert tinymu.from_published(path).tokenizer is None
    (tmp_path / "tokenizer.json").write_text("the text of a tokenizer ü")
    assert tinymu.from_published(path).tokenizer == "the text of a tokenizer ü"


def test_the_yaml_beside_wins_over_the_config_inside(tmp_path):
    path = write_tinymu(tmp_path)
    beside = published_config(max_text_token_len=99)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(beside))
    checkpoint = tinymu.from_published(path)
    assert checkpoint.config.max_text_tokens == 99
    assert checkpoint.source["config"] == beside


def test_the_yaml_beside_stands_in_for_a_config_that_is_not_inside(tmp_path):
    path = write_tinymu(tmp_path)
    content = torch.load(path)
    del content["config"], content["epoch"]
    torch.save(content, path)
    message = refusal(tinymu.from_published, path)
    assert "tinymu.yaml" in message
    path.with_suffix(".yaml").write_text(yaml.safe_dump(published_config()))
    assert tinymu.from_published(path).config.decoder.width == 32


def write_preset(folder, monkeypatch, **changes):
    """Writes a TinyMU whose decoder is known by its name, without a json; returns the path."""
    made = sizes()
    made["lm"] |= changes
    path = folder / "preset.pt"
    config = published_config(textdec_name="owner/SmolLM2-small-Instruct")
    state = scrambled(oracle.build_tinymu(made)).state_dict()
    torch.save({"model": state, "optimizer": {}, "config": config, "epoch": 1}, path)
    preset = smollm2.config_from_sizes(made["lm"], "test")
    monkeypatch.setitem(SMOLLM2_PRESETS, "SmolLM2-small", preset)
    return path


def test_a_decoder_that_is_known_by_its_name_needs_no_json(tmp_path, monkeypatch):
    checkpoint = tinymu.from_published(write_preset(tmp_path, monkeypatch))
    assert checkpoint.config.decoder == SMOLLM2_PRESETS["SmolLM2-small"]
    written = write_model(checkpoint, tmp_path / "back.pt")
    assert [path.name for path in written] == ["back.pt", "back.yaml"]


# --- what is refused ---------------------------------------------------------------------------


def test_missing_keys_are_named(tmp_path):
    path = write_tinymu(tmp_path, change=lambda state: state.pop(WEIGHTS))
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: missing {WEIGHTS}; ")
    assert "download it again" in message


def test_left_over_keys_are_named(tmp_path):
    path = write_tinymu(tmp_path, change=lambda s: s.update({"projector.extra": torch.zeros(2)}))
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: left over projector.extra; ")


def test_many_keys_are_counted(tmp_path):
    def change(state):
        for key in [key for key in state if key.startswith("text_decoder.lm.model.layers.1.")]:
            del state[key]

    message = refusal(tinymu.from_published, write_tinymu(tmp_path, change=change))
    assert "missing text_decoder.lm.model.layers.1." in message
    assert "and 6 more" in message


@pytest.mark.parametrize("key", sorted(SHARED))
def test_every_copy_of_the_embedding_is_asked_for(tmp_path, key):
    message = refusal(
        tinymu.from_published, write_tinymu(tmp_path, change=lambda state: state.pop(key))
    )
    assert f"missing {key}" in message


@pytest.mark.parametrize("key", [WEIGHTS, ENCODER_NORM, "text_decoder.lm.model.norm.weight"])
def test_wrong_shapes_are_named_with_both_shapes(tmp_path, key):
    def change(state):
        state[key] = state[key][:-1].clone()

    path = write_tinymu(tmp_path, change=change)
    shape = tuple(torch.load(path)["model"][key].shape)
    expected = (shape[0] + 1, *shape[1:])
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: wrong shapes: {key} {shape} instead of {expected}; ")
    assert "give the config" in message


@pytest.mark.parametrize("key", ["text_decoder.lm.lm_head.weight", "text_decoder.embed_fn.weight"])
def test_a_tied_copy_that_differs_is_refused(tmp_path, key):
    def change(state):
        state[key] = state[key].clone()
        state[key][-1, -1] += 1

    path = write_tinymu(tmp_path, change=change)
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: {key} differs from text_decoder.lm.model.embed_tokens")
    assert "tied embeddings" in message


def test_an_untied_copy_with_the_same_numbers_is_read(tmp_path):
    def change(state):
        for key in SHARED:
            state[key] = state[key].clone()

    path = write_tinymu(tmp_path, change=change)
    assert_same_state(
        tinymu.to_published(tinymu.from_published(path))["model"], torch.load(path)["model"]
    )


@pytest.mark.parametrize(
    ("part", "key", "value", "named"),
    [
        ("projector", "proj_name", "perceiver", "'perceiver'"),
        ("encoder", "audioenc_name", "HTSAT", "'HTSAT'"),
    ],
)
def test_unknown_parts_are_named(tmp_path, part, key, value, named):
    config = published_config()
    config["model"][part][key] = value
    message = refusal(tinymu.from_published, path := write_tinymu(tmp_path, config=config))
    assert message.startswith(f"{path}: ")
    assert named in message
    assert "only MATPAC with one of linearprojector" in message


def test_a_projector_that_is_not_the_described_one_is_told_by_its_keys(tmp_path):
    path = write_tinymu(tmp_path, config=published_config("reslinearprojector"))
    message = refusal(tinymu.from_published, path)
    assert "missing projector.layer_norm.weight" in message
    assert "left over projector.linear1.bias" in message


def test_an_unknown_decoder_without_its_sizes_is_named(tmp_path):
    path = write_tinymu(tmp_path)
    path.with_suffix(".json").unlink()
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: decoder 'small-decoder' is not a known preset; ")
    assert "tinymu.json" in message


@pytest.mark.parametrize("size", ["hidden_size", "num_key_value_heads", "vocab_size"])
def test_a_missing_size_of_the_decoder_is_named(tmp_path, size):
    path = write_tinymu(tmp_path)
    content = sizes()
    del content["lm"][size]
    path.with_suffix(".json").write_text(json.dumps(content))
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path.with_suffix('.json')}: lacks {size}; ")


BROKEN = {
    ".yaml": ["a: [1, 2", "{", "\tx: 1", "just words", "- 1", "", b"\xff\xfe\x00"],
    ".json": ["{", "nothing", "[1, 2]", "3", "", b"\xff\xfe\x00", '{"encoder": 3}', '{"lm": 3}'],
}
REMEDIES = {".yaml": "download it again", ".json": "repair or remove it"}


@pytest.mark.parametrize(
    ("suffix", "text"), [(suffix, text) for suffix, texts in BROKEN.items() for text in texts]
)
def test_a_broken_description_beside_is_named(tmp_path, suffix, text):
    path = write_tinymu(tmp_path)
    beside = path.with_suffix(suffix)
    beside.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{beside}: ")
    assert REMEDIES[suffix] in message


LAUGHS = ", ".join(f"&b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 30))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2026-99-99", "is not yaml (month must be in 1..12)"),
        ("!!int x", "is not yaml"),
        ("!!timestamp x", "is not yaml"),
        ("[" * 5000 + "]" * 5000, "is not yaml"),
        ("9" * 5000, "is not yaml"),
        ("!!python/object/apply:os.system ['touch canary']", "is not yaml"),
        (f"[&b0 [x, x], {LAUGHS}]", "has over 100000 values"),
        ("&r [*r]", "contains itself"),
        (f"0x{'f' * 20_000}", "a number of over 64 bits"),
    ],
    ids=range(9),
)
def test_a_hostile_value_in_the_yaml_is_refused(tmp_path, monkeypatch, value, problem):
    monkeypatch.chdir(tmp_path)
    path = write_tinymu(tmp_path)
    text = yaml.safe_dump(published_config(textdec_name="here"))
    path.with_suffix(".yaml").write_text(text.replace("here", value))
    assert problem in refusal(tinymu.from_published, path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model": {}},
        {"model": {"encoder": None, "projector": None, "decoder": None}},
        {"model": "tinymu"},
        {"model": None},
        {"data": {"max_length": "ten"}},
    ],
)
def test_a_config_that_lacks_parts_is_refused(tmp_path, change):
    path = write_tinymu(tmp_path, config=published_config() | change)
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: ")
    assert "yaml" in message


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("encoder", "audioenc_name", None),
        ("projector", "proj_name", None),
        ("decoder", "textdec_name", None),
    ],
)
def test_a_config_with_an_empty_name_is_refused(tmp_path, part, key, value):
    config = published_config()
    config["model"][part][key] = value
    path = write_tinymu(tmp_path, config=config)
    path.with_suffix(".json").unlink()
    assert refusal(tinymu.from_published, path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("encoder", "ds_rate", 0),
        ("encoder", "ds_rate", "two"),
        ("projector", "d_h", "wide"),
        ("decoder", "max_text_token_len", "129 tokens"),
    ],
)
def test_a_config_with_a_number_that_is_none_is_refused(tmp_path, part, key, value):
    config = published_config()
    config["model"][part][key] = value
    path = write_tinymu(tmp_path, config=config)
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: ")
    assert key in message


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("encoder", "num_heads", 3),
        ("encoder", "num_heads", 0),
        ("encoder", "num_heads", "1"),
        ("lm", "hidden_size", "32"),
        ("lm", "rope_theta", "large"),
    ],
)
def test_a_json_with_sizes_that_cannot_be_is_named(tmp_path, part, key, value):
    path = write_tinymu(tmp_path)
    content = sizes()
    content[part][key] = value
    path.with_suffix(".json").write_text(json.dumps(content))
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path.with_suffix('.json')}: ")
    assert key in message


def test_a_value_that_is_no_tensor_is_named(tmp_path):
    path = write_tinymu(tmp_path, change=lambda state: state.update({WEIGHTS: "a text"}))
    message = refusal(tinymu.from_published, path)
    assert message.startswith(f"{path}: ")
    assert WEIGHTS in message


@pytest.mark.parametrize(
    "content",
    [{}, {"model": 3}, [1, 2], {"state": {}}, torch.zeros(3), {1: torch.zeros(2)}, {"model": {}}],
)
def test_a_torch_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    message = refusal(open_checkpoint, path)
    assert message.startswith(f"{path}: ")
    assert "name a" in message


# --- MATPAC ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "head"),
    [
        ({}, None),
        ({"audioset_head": True}, HeadConfig("audioset", 527)),
        ({"probe_classes": 20}, HeadConfig("probe", 20)),
    ],
    ids=["encoder", "audioset head", "probe"],
)
def test_an_encoder_comes_back_bit_for_bit(tmp_path, options, head):
    path, state = write_matpac(tmp_path, **options)
    checkpoint = matpac.from_published(path)
    assert checkpoint.config == MatpacConfig(64, 2, 1, num_frames=64, head=head)
    assert_same_state(matpac.to_published(checkpoint), state)


def test_the_counter_of_the_batch_norm_comes_back_as_it_was(tmp_path):
    path, state = write_matpac(tmp_path, audioset_head=True)
    key = "head_norm.num_batches_tracked"
    back = matpac.to_published(matpac.from_published(path))[key]
    assert (back.dtype, back.shape, int(np.ravel(back)[0])) == (np.int64, (), 123_456)
    assert int(state[key]) == 123_456


@pytest.mark.parametrize("options", [{}, {"audioset_head": True}, {"probe_classes": 20}])
def test_torch_loads_the_encoder_that_we_write(tmp_path, options):
    path, state = write_matpac(tmp_path, **options)
    write_model(matpac.from_published(path), tmp_path / "back.pt")
    assert_same_state(torch.load(tmp_path / "back.pt", weights_only=True), state)


def test_an_encoder_below_model_is_read(tmp_path):
    path, state = write_matpac(tmp_path)
    torch.save({"model": state}, path)
    assert_same_state(matpac.to_published(matpac.from_published(path)), state)


def test_a_probe_comes_from_its_own_file(tmp_path):
    path, state = write_matpac(tmp_path)
    probe = {"probe.weight": torch.randn(7, 320), "probe.bias": torch.randn(7)}
    torch.save(probe, tmp_path / "probe.pt")
    checkpoint = matpac.with_probe(matpac.from_published(path), tmp_path / "probe.pt")
    assert checkpoint.config.head == HeadConfig("probe", 7)
    assert_same_state(matpac.to_published(checkpoint), state | probe)


@pytest.mark.parametrize("count", [torch.tensor(2**31 + 5), torch.tensor(3.7)])
def test_a_count_that_cannot_be_held_is_refused(tmp_path, count):
    key = "head_norm.num_batches_tracked"
    path, _ = write_matpac(tmp_path, change=lambda s: s.update({key: count}), audioset_head=True)
    assert f"{key} is {str(count.dtype).removeprefix('torch.')}" in refusal(
        matpac.from_published, path
    )


@pytest.mark.parametrize("keys", [[], ["probe.weight"], ["probe.bias"], ["head.weight"]])
def test_a_probe_file_that_lacks_a_key_is_refused(tmp_path, keys):
    path, _ = write_matpac(tmp_path)
    torch.save({key: torch.randn(7, 320) for key in keys}, tmp_path / "probe.pt")
    message = refusal(matpac.with_probe, matpac.from_published(path), tmp_path / "probe.pt")
    assert message.startswith(f"{tmp_path / 'probe.pt'}: ")
    assert "probe." in message


def test_a_probe_of_another_width_is_refused(tmp_path):
    path, _ = write_matpac(tmp_path)
    torch.save(
        {"probe.weight": torch.zeros(7, 100), "probe.bias": torch.zeros(7)},
        path.with_name("probe.pt"),
    )
    message = refusal(matpac.with_probe, matpac.from_published(path), path.with_name("probe.pt"))
    assert "probe.weight (7, 100) instead of (7, 320)" in message


@pytest.mark.parametrize(
    "key", ["mcl_heads.mcl_heads.0.weight", "cls_student_head.mlp.0.weight", "decoder.norm.weight"]
)
def test_a_pre_training_checkpoint_is_told_from_an_encoder(tmp_path, key):
    path, _ = write_matpac(tmp_path, change=lambda state: state.update({key: torch.zeros(2)}))
    message = refusal(matpac.from_published, path)
    assert message.startswith(f"{path}: is a pre-training checkpoint")
    assert "_enconly.pt" in message


def test_a_missing_key_of_the_encoder_is_named(tmp_path):
    key = "student_encoder.blocks.1.attn.qkv.bias"
    path, _ = write_matpac(tmp_path, change=lambda state: state.pop(key))
    assert refusal(matpac.from_published, path).startswith(f"{path}: missing {key}; ")


@pytest.mark.parametrize("key", ["cls_token", "pos_embed", "patch_embed.proj.weight"])
def test_what_is_no_encoder_is_told_by_its_keys(tmp_path, key):
    path, _ = write_matpac(tmp_path, change=lambda state: state.pop(key))
    message = refusal(matpac.from_published, path)
    assert message == f"{path}: has no {key}; name a MATPAC or TinyMU checkpoint"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cls_token", torch.tensor(1.0)),
        ("pos_embed", torch.zeros(3)),
        ("patch_embed.proj.weight", torch.zeros(64, 1, 100, 100)),
        ("student_encoder.blocks.0.mlp.fc1.weight", torch.tensor(1.0)),
        ("cls_token", "a text"),
    ],
)
def test_sizes_that_cannot_be_read_off_the_weights_are_refused(tmp_path, key, value):
    path, _ = write_matpac(tmp_path, change=lambda state: state.update({key: value}))
    message = refusal(open_checkpoint, path)
    assert message.startswith(f"{path}: ")
    assert key in message


def test_heads_that_cannot_be_known_are_asked_for(tmp_path):
    path = tmp_path / "narrow.pt"
    module = oracle.Matpac(embed_dim=32, depth=1, num_heads=2, n_t=64)
    torch.save(published_encoder(module), path)
    message = refusal(open_checkpoint, path)
    assert "number of heads is unknown" in message
    assert '{"encoder": {"num_heads": ...}}' in message
    path.with_suffix(".json").write_text('{"encoder": {"num_heads": 2}}')
    assert open_checkpoint(path).config.num_heads == 2


def test_heads_that_the_weights_do_not_show_are_written_beside(tmp_path):
    path, _ = write_matpac(tmp_path)
    path.with_suffix(".json").write_text('{"encoder": {"num_heads": 4}}')
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.num_heads == 4
    write_model(checkpoint, tmp_path / "back.pt")
    assert open_checkpoint(tmp_path / "back.pt").config == checkpoint.config


# --- SmolLM2 -----------------------------------------------------------------------------------


@pytest.fixture
def llama():
    return scrambled_llama()


def scrambled_llama():
    """Returns a small Llama with weights of a size that keeps its logits apart."""
    lm = oracle.build_llama(**SMALL_DECODER).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in lm.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(0.3 * noise if parameter.ndim > 1 else 1 + 0.1 * noise)
    return lm


@pytest.mark.parametrize("shards", ["5GB", "8KB"], ids=["one file", "shards"])
def test_a_decoder_folder_comes_back_with_the_same_logits(tmp_path, llama, shards):
    from transformers import LlamaForCausalLM

    llama.save_pretrained(tmp_path / "theirs", max_shard_size=shards)
    assert (len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1) == (shards != "5GB")
    checkpoint = smollm2.from_published(tmp_path / "theirs")
    smollm2.write_published(tmp_path / "back", checkpoint)
    back = LlamaForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert_same_state(back.state_dict(), llama.state_dict())
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.equal(back(tokens).logits, llama(tokens).logits)
    assert back.config.rope_parameters["rope_theta"] == 100_000.0
    assert back.lm_head.weight.data_ptr() == back.model.embed_tokens.weight.data_ptr()


def test_a_decoder_folder_is_described_by_its_config(tmp_path, llama):
    llama.save_pretrained(tmp_path)
    config = smollm2.from_published(tmp_path).config
    assert (config.width, config.depth, config.num_heads, config.num_kv_heads) == (32, 2, 4, 2)
    assert (config.head_width, config.mlp_width, config.vocab_size) == (8, 48, 40)
    assert (config.rope_theta, config.norm_eps) == (100_000.0, 1e-5)


def test_other_constants_of_a_decoder_are_kept(tmp_path):
    lm = oracle.build_llama(rms_norm_eps=1e-6, rope_theta=130_000.0, **SMALL_DECODER)
    lm.save_pretrained(tmp_path / "theirs")
    checkpoint = smollm2.from_published(tmp_path / "theirs")
    smollm2.write_published(tmp_path / "back", checkpoint)
    again = smollm2.from_published(tmp_path / "back").config
    assert (again.rope_theta, again.norm_eps) == (130_000.0, 1e-6)
    assert again == checkpoint.config


def test_decoder_weights_in_bfloat16_are_read_exactly(tmp_path, llama):
    rounded = copy.deepcopy(llama).to(torch.bfloat16)
    rounded.save_pretrained(tmp_path)
    params = smollm2.from_published(tmp_path).params
    assert {leaf.dtype for _, leaf in flatten(params)} == {np.dtype(np.float32)}
    back = smollm2.to_state_dict(params, smollm2.RULES)
    expected = {key: value.float() for key, value in rounded.model.state_dict().items()}
    assert_same_state(back, expected)


def test_the_tokenizer_of_a_decoder_is_taken_along(tmp_path, llama):
    llama.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text("its text")
    smollm2.write_published(tmp_path / "back", smollm2.from_published(tmp_path / "theirs"))
    assert (tmp_path / "back" / "tokenizer.json").read_text() == "its text"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"tie_word_embeddings": False}, "tied embeddings False"),
        ({"hidden_size": 64}, "wrong shapes"),
        ({"num_hidden_layers": 3}, "missing model.layers.2."),
        ({"num_hidden_layers": 1}, "left over model.layers.1."),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters is 'yarn'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', SmolLM2 has 'silu'"),
    ],
)
def test_a_decoder_of_another_kind_is_refused(tmp_path, llama, change, named):
    llama.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = refusal(open_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path}")
    assert named in message


def test_a_weight_in_two_files_of_a_decoder_is_refused(tmp_path, llama):
    llama.save_pretrained(tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "older.safetensors")
    message = refusal(open_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / 'older.safetensors'}: holds model.")
    assert "as model.safetensors does" in message


@pytest.mark.parametrize(
    ("other", "named"), [(None, "is the checkpoint itself"), ("a.txt", "a.txt")]
)
def test_a_decoder_is_not_written_over_something_else(tmp_path, llama, other, named):
    llama.save_pretrained(tmp_path / "theirs")
    save_checkpoint(tmp_path / "ours", smollm2.from_published(tmp_path / "theirs"))
    output = tmp_path / "ours"
    if other:
        output = tmp_path / "output"
        output.mkdir()
        (output / other).write_text("a note")
    message = refusal(ToTorch(str(tmp_path / "ours"), output).run)
    assert message.startswith(f"{output}: ")
    assert named in message
    assert read_checkpoint(tmp_path / "ours").config.width == llama.config.hidden_size


def test_a_decoder_folder_without_weights_is_refused(tmp_path, llama):
    llama.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert refusal(open_checkpoint, tmp_path).startswith(f"{tmp_path}: has no .safetensors file; ")


# --- the checkpoint folder ---------------------------------------------------------------------


@pytest.fixture
def checkpoint(golden_dir):
    return tinymu.from_published(golden_dir / "tinymu_tiny.pt")


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int32])
def test_a_folder_with_weights_of_another_type_is_refused(tmp_path, checkpoint, dtype):
    params = dict(checkpoint.params)
    params["decoder"] = dict(params["decoder"])
    table = params["decoder"]["embed_tokens"]["embedding"]
    params["decoder"]["embed_tokens"] = {"embedding": table.astype(dtype)}
    save_checkpoint(tmp_path, checkpoint._replace(params=params))
    message = refusal(read_checkpoint, tmp_path)
    kind = np.dtype(dtype).name
    assert f"decoder/embed_tokens/embedding is {kind} instead of float32" in message


def test_a_folder_with_float16_weights_is_read_as_float32(tmp_path, checkpoint):
    halves = {path: leaf.astype(np.float16) for path, leaf in flatten(checkpoint.params)}
    save_checkpoint(tmp_path, checkpoint._replace(params=unflatten(halves)))
    count = sum(leaf.size for leaf in halves.values())
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < 2.1 * count
    for path, leaf in flatten(read_checkpoint(tmp_path).params):
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf.astype(np.float64), halves[path].astype(np.float64))


def test_half_precision_rounds_weights_and_leaves_tables(tmp_path, checkpoint):
    save_checkpoint(tmp_path, to_float16(checkpoint))
    again = dict(flatten(read_checkpoint(tmp_path).params))
    for path, leaf in flatten(checkpoint.params):
        table = path == "encoder/pos_embed" or "log_mel" in path
        expected = leaf if table else torch.tensor(np.array(leaf)).half().float().numpy()
        np.testing.assert_array_equal(again[path], expected)


def test_a_count_in_float16_is_refused(tmp_path):
    config = MatpacConfig(width=32, depth=1, num_heads=2, head=HeadConfig("audioset", 3))
    shapes = dict(flatten(expected_shapes(config)))
    leaves = {path: np.zeros(shape.shape, shape.dtype) for path, shape in shapes.items()}
    leaves["head/norm/count"] = np.float16(7)
    save_checkpoint(tmp_path, Checkpoint(config, unflatten(leaves)))
    message = refusal(read_checkpoint, tmp_path)
    assert "head/norm/count is float16 instead of int32" in message


def describe(folder, **changes):
    """Rewrites the config.json of a checkpoint folder."""
    content = json.loads((folder / CONFIG_FILE).read_text()) | changes
    (folder / CONFIG_FILE).write_text(json.dumps(content))


def test_a_folder_gives_back_what_was_saved(tmp_path, checkpoint):
    saved = checkpoint._replace(tokenizer="text of a tokenizer ü")
    assert save_checkpoint(tmp_path / "a" / "b", saved) == tmp_path / "a" / "b"
    again = read_checkpoint(tmp_path / "a" / "b")
    assert again.config == saved.config
    assert again.tokenizer == saved.tokenizer
    assert again.source == saved.source
    assert_same_tree(again.params, saved.params)


def test_a_folder_holds_three_files_that_all_may_read(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "out", checkpoint._replace(tokenizer="text"))
    files = sorted((tmp_path / "out").iterdir())
    assert [f.name for f in files] == [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE]
    assert {f.stat().st_mode & 0o777 for f in files} == {0o644}


@pytest.mark.parametrize("options", [{}, {"audioset_head": True}, {"probe_classes": 20}])
def test_a_folder_of_an_encoder_gives_back_what_was_saved(tmp_path, options):
    path, state = write_matpac(tmp_path, **options)
    saved = matpac.from_published(path)
    save_checkpoint(tmp_path / "out", saved)
    again = open_checkpoint(tmp_path / "out")
    assert again.config == saved.config
    assert_same_state(matpac.to_published(again), state)


def test_a_folder_of_a_decoder_gives_back_what_was_saved(tmp_path, llama):
    llama.save_pretrained(tmp_path / "theirs")
    saved = smollm2.from_published(tmp_path / "theirs")
    save_checkpoint(tmp_path / "out", saved)
    again = open_checkpoint(tmp_path / "out")
    assert again.config == saved.config
    assert_same_tree(again.params, saved.params)


def test_a_folder_is_written_again_over_itself(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint)
    changed = checkpoint._replace(source={"epoch": 9})
    save_checkpoint(tmp_path, changed)
    assert read_checkpoint(tmp_path).source == {"epoch": 9}


def test_a_tokenizer_does_not_outlive_its_checkpoint(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint._replace(tokenizer="of the first"))
    save_checkpoint(tmp_path, checkpoint)
    assert read_checkpoint(tmp_path).tokenizer is None


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, checkpoint):
    (tmp_path / "thesis.txt").write_text("years of work")
    message = refusal(save_checkpoint, tmp_path, checkpoint)
    assert message.startswith(f"{tmp_path}: holds other files (thesis.txt); ")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_folders_place_is_refused(tmp_path, checkpoint):
    (tmp_path / "out").write_text("a file")
    assert "is a file; name a folder" in refusal(save_checkpoint, tmp_path / "out", checkpoint)
    assert (tmp_path / "out").read_text() == "a file"


def test_a_half_written_folder_is_refused(tmp_path, checkpoint, monkeypatch):
    save_checkpoint(tmp_path, checkpoint)
    monkeypatch.setattr("safetensors.numpy.save_file", fail_halfway)
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint)
    message = refusal(open_checkpoint, tmp_path)
    assert message == f"{tmp_path}: has no {CONFIG_FILE}; name a checkpoint folder"


def fail_halfway(weights, path, metadata=None):
    Path(path).write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_no_half_written_file_is_left(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr("safetensors.numpy.save_file", fail_halfway)
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_was_killed_does_not_block_the_next(tmp_path, checkpoint):
    (tmp_path / f"{WEIGHTS_FILE}.partial").write_bytes(b"half")
    save_checkpoint(tmp_path, checkpoint)
    assert_same_tree(read_checkpoint(tmp_path).params, checkpoint.params)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("remaining", [0, 7, 8, 1000, -1])
def test_truncated_weights_are_refused(tmp_path, checkpoint, remaining):
    save_checkpoint(tmp_path, checkpoint)
    weights = tmp_path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:remaining])
    message = refusal(read_checkpoint, tmp_path)
    problem = "is not a whole safetensors file" if remaining else "the file is empty"
    assert message.startswith(f"{weights}: {problem}")
    assert ("download or convert it again" if remaining else "download it again") in message


def test_missing_weights_are_named(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint)
    (tmp_path / WEIGHTS_FILE).unlink()
    message = refusal(read_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / WEIGHTS_FILE}: no such file; ")


def test_an_empty_folder_is_refused(tmp_path):
    assert "has no config.json" in refusal(open_checkpoint, tmp_path)


def test_another_format_is_refused(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint)
    describe(tmp_path, format=1)
    message = refusal(read_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / CONFIG_FILE}: format 1, this version reads 2; ")
    assert "convert the published file again" in message


@pytest.mark.parametrize("model", ["whisper", None, 3, ["tinymu"]])
def test_another_model_is_refused(tmp_path, checkpoint, model):
    save_checkpoint(tmp_path, checkpoint)
    describe(tmp_path, model=model)
    message = refusal(read_checkpoint, tmp_path)
    assert "names none of the models tinymu, matpac, smollm2" in message


@pytest.mark.parametrize("text", ["{", "", "[]", "3", b"\xff\xfe\x00"])
def test_a_broken_config_is_refused(tmp_path, checkpoint, text):
    save_checkpoint(tmp_path, checkpoint)
    path = tmp_path / CONFIG_FILE
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refusal(open_checkpoint, tmp_path)
    assert message.startswith(f"{path}: ")
    assert ("convert" if text else "the file is empty; copy or download it again") in message


def test_an_unknown_key_of_the_config_is_named_with_its_place(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())["config"]
    config["decoder"]["rope_thetta"] = 1.0
    describe(tmp_path, config=config)
    message = refusal(read_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / CONFIG_FILE}.decoder: unknown key 'rope_thetta'; ")
    assert "rope_theta" in message


@pytest.mark.parametrize("value", [3, "text", [1]])
def test_a_part_of_the_config_that_is_no_object_is_named(tmp_path, checkpoint, value):
    save_checkpoint(tmp_path, checkpoint)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())["config"]
    describe(tmp_path, config=config | {"encoder": value})
    message = refusal(read_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / CONFIG_FILE}.encoder: expected an object")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"max_seconds": "ten"}, "max_seconds"),
        ({"projector": {"kind": "mlp"}}, "kind"),
        ({"decoder": {"width": "48"}}, "width"),
        ({"encoder": None}, "encoder"),
    ],
)
def test_a_value_of_the_config_that_cannot_be_is_named(tmp_path, checkpoint, change, key):
    save_checkpoint(tmp_path, checkpoint)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())["config"]
    for part, value in change.items():
        config[part] = config[part] | value if isinstance(value, dict) else value
    describe(tmp_path, config=config)
    message = refusal(read_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / CONFIG_FILE}")
    assert key in message


def test_weights_of_another_config_are_refused(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())["config"]
    config["decoder"]["mlp_width"] = 100
    describe(tmp_path, config=config)
    message = refusal(read_checkpoint, tmp_path)
    assert message.startswith(f"{tmp_path / WEIGHTS_FILE}: wrong shapes: ")
    assert "(2, 48, 96) instead of (2, 48, 100)" in message


# --- full size ---------------------------------------------------------------------------------

CONVERT = """
import sys
from pathlib import Path
from conversion import from_torch, to_torch
source, folder, back = sys.argv[1:]
from_torch.FromTorch(Path(source), Path(folder)).run()
to_torch.ToTorch(folder, Path(back)).run()
assert "torch" not in sys.modules
status = Path("/proc/self/status")
if status.exists():
    # getrusage would count the memory of the process that started this one.
    peak = status.read_text().split("VmHWM:")[1].split()[0]
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("peak", peak)
"""


@pytest.mark.slow
def test_the_full_size_comes_back_bit_for_bit_in_little_memory(tmp_path):
    generator = torch.Generator().manual_seed(0)
    module = oracle.build_tinymu(oracle.FULL_SIZES)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    assert sum(parameter.numel() for parameter in module.parameters()) == 229_054_592
    config = published_config()
    config["model"]["projector"] |= oracle.FULL_SIZES["projector"]
    config["model"]["decoder"]["textdec_name"] = "HuggingFaceTB/SmolLM2-135M"
    source, folder, back = (tmp_path / name for name in ("tinymu.pt", "folder", "back.pt"))
    content = {"model": module.state_dict(), "optimizer": {}, "config": config, "epoch": 2}
    torch.save(content, source)
    del module, content
    printed = run_python(CONVERT, source, folder, back)
    assert "TinyMU, 229.0" in printed
    peak = int(re.search(r"peak (\d+)", printed)[1]) * 1024
    assert peak < 3e9, f"{peak / 1e9:.2f} GB"
    original, written = read_torch_file(source), torch.load(back, weights_only=True, mmap=True)
    assert written["config"] == original["config"]
    assert not back.with_suffix(".json").exists()
    assert_same_state(written["model"], original["model"])
    assert len({written["model"][key].untyped_storage().data_ptr() for key in SHARED}) == 1
    oracle.build_tinymu(oracle.FULL_SIZES).load_state_dict(written["model"], strict=True)
