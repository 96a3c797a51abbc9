"""`tinymu_jax.load()` takes every format, gives the original's numbers, and refuses the rest."""

import gc
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
import torch
from helpers import SMALL_DECODER, SMALL_ENCODER, noise, published_encoder, refusal, run_python
from oracles import torch_modules as oracle
from tokenizer_fixture import tokenizer_text

import tinymu_jax
from tinymu_jax.checkpoints.checkpoint import save_checkpoint
from tinymu_jax.checkpoints.open import NANO_FOLDER, open_checkpoint, read_tokenizer
from tinymu_jax.checkpoints.pytorch import matpac, smollm2, tinymu
from tinymu_jax.checkpoints.pytorch.convert import write_model
from tinymu_jax.checkpoints.safetensors import map_safetensors, release_pages, write_safetensors
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.class_names import read_labels
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.inference.load import make_assistant
from tinymu_jax.utils.compilation_cache import enable_compilation_cache
from tinymu_jax.utils.tree import flatten, unflatten

CLIP = "stereo_48k_11s"

pytestmark = pytest.mark.usefixtures("own_cache", "compiled_programs_stay_here")


@pytest.fixture(scope="module")
def recording(golden_dir):
    return golden_dir / "audio" / f"{CLIP}.wav"


@pytest.fixture(scope="module")
def question(recording, golden):
    """Recording and prompt of the golden case."""
    return recording, golden[f"{CLIP}/prompt"].tolist()


def greedy(model, question):
    return model.generate_tokens(*question, max_new_tokens=40)


def target_logits(model, question, golden):
    return model.target_logits(*question, golden[f"{CLIP}/target"][:-1].tolist())


# --- TinyMU ------------------------------------------------------------------------------------


def test_a_published_file_gives_the_published_answer(loaded, question, golden):
    assert isinstance(loaded, Assistant)
    assert greedy(loaded, question) == golden[f"{CLIP}/greedy"].tolist()
    expected = golden[f"{CLIP}/target_logits"]
    np.testing.assert_allclose(target_logits(loaded, question, golden), expected, rtol=0, atol=1e-4)


def test_a_converted_folder_gives_the_same_answer(checkpoint_file, question, golden, tmp_path):
    save_checkpoint(tmp_path / "out", tinymu.from_published(checkpoint_file))
    model = tinymu_jax.load(tmp_path / "out")
    assert isinstance(model, Assistant)
    assert greedy(model, question) == golden[f"{CLIP}/greedy"].tolist()
    assert model.tokenizer.encode("!!") == [17, 17]


def test_a_folder_that_holds_a_published_file_is_read(checkpoint_file, loaded):
    model = tinymu_jax.load(checkpoint_file.parent)
    assert model.config == loaded.config
    same = jax.tree.map(np.array_equal, model.params, loaded.params)
    assert all(jax.tree.leaves(same))


def test_what_is_exported_again_gives_the_same_answer(checkpoint_file, question, golden, tmp_path):
    write_model(tinymu.from_published(checkpoint_file), tmp_path / "again.pt")
    model = tinymu_jax.load(str(tmp_path / "again.pt"))
    assert greedy(model, question) == golden[f"{CLIP}/greedy"].tolist()


def test_a_question_in_words_gets_an_answer_in_words(loaded, recording):
    answer = loaded.ask(recording, "What is the main instrument?", max_new_tokens=8)
    ids = loaded.tokenizer.encode("What is the main instrument?")
    tokens = loaded.generate_tokens(recording, ids, max_new_tokens=8)
    assert answer == loaded.tokenizer.decode(tokens)
    assert answer


def test_a_tokenizer_can_be_named(golden_dir, checkpoint_file, question):
    beside = checkpoint_file.with_name("tokenizer.json")
    for named in (beside, beside.parent, str(beside)):
        model = tinymu_jax.load(golden_dir / "tinymu_tiny.pt", tokenizer=named)
        assert model.tokenizer.encode("Hello!")[-1] == 17


def test_a_checkpoint_without_a_tokenizer_answers_tokens_and_asks_for_one(golden_dir, question):
    model = tinymu_jax.load(golden_dir / "tinymu_tiny.pt")
    assert len(model.generate_tokens(*question, max_new_tokens=3)) == 3
    message = refusal(model.ask, question[0], "What is it?")
    assert message.startswith(f"{golden_dir / 'tinymu_tiny.pt'}: has no tokenizer; ")
    assert "tokenizer.json" in message


def test_a_tokenizer_that_does_not_exist_is_named(golden_dir, tmp_path):
    missing = tmp_path / "nowhere" / "tokenizer.json"
    model = tinymu_jax.load(golden_dir / "tinymu_tiny.pt", tokenizer=missing)
    assert refusal(lambda: model.tokenizer).startswith(f"{missing}: no such file; ")


@pytest.mark.parametrize("content", [b"\x0a\x0e\xff\xfe\x00", b"version https://git-lfs"])
def test_a_file_that_is_no_tokenizer_is_named(checkpoint_file, tmp_path, content):
    for suffix in (".pt", ".json"):
        shutil.copy(checkpoint_file.with_suffix(suffix), tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    for options in ({}, {"tokenizer": path}, {"tokenizer": tmp_path}):
        message = refusal(
            lambda options=options: tinymu_jax.load(tmp_path / "tinymu.pt", **options).tokenizer
        )
        assert message.startswith(f"{tmp_path}")
        assert "tokenizer.json" in message


def test_a_model_does_not_change_with_its_folder(checkpoint_file, tmp_path, recording):
    folder = save_checkpoint(tmp_path / "model", open_checkpoint(checkpoint_file))
    model = tinymu_jax.load(folder)
    before = model.embed(recording)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(model.embed(recording), before)


def test_a_model_does_not_change_with_its_file(checkpoint_file, tmp_path, recording):
    """An answer must not depend on what is written over the file after it was loaded."""
    for suffix in (".pt", ".json"):
        shutil.copy(checkpoint_file.with_suffix(suffix), tmp_path)
    path = tmp_path / "tinymu.pt"
    model = tinymu_jax.load(path)
    before = model.embed(recording)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(model.embed(recording), before)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
def test_a_model_does_not_hold_its_file(checkpoint_file, tmp_path, recording):
    folder = save_checkpoint(tmp_path / "model", open_checkpoint(checkpoint_file))
    model = tinymu_jax.load(folder)
    gc.collect()
    # The weights would be twice in memory.
    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert np.isfinite(model.embed(recording)).all()


def test_released_pages_are_read_again(tmp_path):
    numbers = np.arange(100_000, dtype=np.float32)
    write_safetensors(tmp_path / "a.safetensors", {"numbers": numbers})
    mapped = map_safetensors(tmp_path / "a.safetensors")["numbers"]
    assert mapped.sum() == numbers.sum()
    release_pages(mapped[10:].reshape(2, -1))
    np.testing.assert_array_equal(mapped, numbers)
    release_pages(numbers)  # is not mapped


def test_a_tokenizer_with_more_words_than_the_model_is_refused(golden_dir, tmp_path, recording):
    content = json.loads(tokenizer_text())
    extra = {"id": 600, "content": "<extra>", "special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    for number in range(512, 600):
        content["added_tokens"].append(extra | flags | {"id": number, "content": f"<{number}>"})
    content["added_tokens"].append(extra | flags)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    model = tinymu_jax.load(golden_dir / "tinymu_tiny.pt", tokenizer=tmp_path)
    message = refusal(model.ask, recording, "Is this <extra>?")
    assert "has 601 tokens, the decoder 512; use the decoder's tokenizer.json" in message


def test_max_seconds_says_how_much_is_heard(checkpoint_file, loaded, recording):
    assert loaded.max_seconds == 10.0
    short = tinymu_jax.load(checkpoint_file, max_seconds=2.5)
    # 2.5 s are 248 frames, one vector for each 16 begun.
    assert short.embed(recording).shape == (16, 160)
    answer = short.answers(recording, "What is it?", max_new_tokens=1)[0]
    assert (answer.encoded_seconds, answer.total_seconds) == (2.5, 11.0)
    np.testing.assert_array_equal(short.embed(recording), short.embed(_cut(recording, 2.5)))


def _cut(recording, seconds):
    return tinymu_jax.load_audio(recording, max_seconds=seconds)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_max_seconds_must_leave_something_to_hear(checkpoint_file, recording, seconds):
    def listen():
        return tinymu_jax.load(checkpoint_file, max_seconds=seconds).embed(recording)

    assert "max_seconds" in refusal(listen)


# --- not exact ---------------------------------------------------------------------------------


def rounded_to_int8(kernel, axis):
    """Returns what 8 bits keep of a weight, one scale for all inputs of an output."""
    scale = np.abs(kernel).max(axis=axis, keepdims=True) / np.float32(127)
    return np.round(kernel / scale) * scale


@pytest.fixture(scope="module")
def rounded(checkpoint_file):
    """A float32 model with the weights that int8 stands for."""
    checkpoint = tinymu.from_published(checkpoint_file)
    leaves = dict(flatten(checkpoint.params["decoder"]))
    for path, leaf in leaves.items():
        if path.endswith("/kernel"):
            leaves[path] = rounded_to_int8(leaf, axis=-2)
        elif path.endswith("/embedding"):
            leaves[path] = rounded_to_int8(leaf, axis=-1)
    params = checkpoint.params | {"decoder": unflatten(leaves)}
    return make_assistant(checkpoint._replace(params=params))


def test_int8_is_the_model_with_rounded_weights(checkpoint_file, loaded, rounded, question, golden):
    small = tinymu_jax.load(checkpoint_file, decoder_dtype="int8")
    result, expected, exact = (
        target_logits(model, question, golden) for model in (small, rounded, loaded)
    )
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
    assert greedy(small, question) == greedy(rounded, question)
    difference = np.abs(result - exact)
    first = result.argmax(axis=1) == exact.argmax(axis=1)
    print(
        f"int8 to float32: logits {difference.max():.4f} at most, {difference.mean():.4f} on "
        f"average; best token equal at {first.sum()} of {len(first)} places"
    )
    assert difference.max() > 1e-3
    assert difference.mean() < 0.05 * exact.std()
    assert first.mean() > 0.9


def test_int8_holds_every_decoder_weight_in_a_quarter_of_the_bytes(checkpoint_file, loaded):
    small = tinymu_jax.load(checkpoint_file, decoder_dtype="int8")
    matrices = [leaf for _, leaf in flatten(small.params["decoder"]) if leaf.ndim > 1]
    assert {leaf.dtype.name for leaf in matrices} == {"int8"}
    exact = [leaf for _, leaf in flatten(loaded.params["decoder"]) if leaf.ndim > 1]
    assert sum(leaf.nbytes for leaf in matrices) * 4 == sum(leaf.nbytes for leaf in exact)


def test_a_bfloat16_decoder_is_close(checkpoint_file, loaded, question, golden):
    rough = tinymu_jax.load(checkpoint_file, decoder_dtype="bfloat16")
    result, exact = (target_logits(model, question, golden) for model in (rough, loaded))
    difference = np.abs(result - exact)
    assert difference.max() > 1e-3
    assert difference.mean() < 0.02 * exact.std()
    np.testing.assert_array_equal(rough.embed(question[0]), loaded.embed(question[0]))


def test_a_bfloat16_encoder_is_close(checkpoint_file, loaded, recording):
    rough = tinymu_jax.load(checkpoint_file, encoder_dtype="bfloat16")
    result, exact = rough.embed(recording), loaded.embed(recording)
    assert result.dtype == np.float32
    assert 1e-4 < np.abs(result - exact).max() < 0.1


@pytest.mark.parametrize(
    ("option", "value"), [("encoder_dtype", "int8"), ("decoder_dtype", "float16")]
)
def test_an_unknown_precision_is_refused(checkpoint_file, option, value):
    message = refusal(tinymu_jax.load, checkpoint_file, **{option: value})
    assert message.startswith(f"{option}='{value}': use one of float32, bfloat16")


# --- MATPAC ------------------------------------------------------------------------------------


@pytest.fixture
def waveform():
    return noise(40_000)


def write_encoder(path, port, **options):
    """Writes a small encoder as published; returns the oracle."""
    module = port.randomise(oracle.Matpac(**SMALL_ENCODER | {"n_t": 208}, **options))
    torch.save(published_encoder(module), path)
    return module


def test_an_encoder_embeds_like_the_original(tmp_path, port, waveform):
    module = write_encoder(tmp_path / "matpac.pt", port)
    model = tinymu_jax.load(tmp_path / "matpac.pt")
    assert isinstance(model, Embedder)
    batch = torch.from_numpy(waveform)[None]
    with torch.no_grad():
        last, layers = module(batch)[0].numpy(), module.layers(batch)[0].numpy()
    # 248 frames are cut into chunks of 208 and 40.
    assert last.shape == (16, 320)
    np.testing.assert_allclose(model.embed(waveform), last, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model.embed(waveform, all_layers=True), layers, rtol=0, atol=1e-4)


def test_an_encoder_hears_everything_unless_told(tmp_path, port):
    write_encoder(tmp_path / "matpac.pt", port)
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 12, np.float32), 16_000)
    assert len(tinymu_jax.load(tmp_path / "matpac.pt").embed(tmp_path / "long.wav")) == 75
    short = tinymu_jax.load(tmp_path / "matpac.pt", max_seconds=2.0)
    assert len(short.embed(tmp_path / "long.wav")) == 13


def test_a_converted_encoder_folder_embeds_the_same(tmp_path, port, waveform):
    write_encoder(tmp_path / "matpac.pt", port, probe_classes=5)
    save_checkpoint(tmp_path / "out", matpac.from_published(tmp_path / "matpac.pt"))
    first, second = (tinymu_jax.load(tmp_path / name) for name in ("matpac.pt", "out"))
    np.testing.assert_array_equal(first.embed(waveform), second.embed(waveform))
    assert first.tag(waveform) == second.tag(waveform)


def write_audioset_labels(path, count=527):
    """Writes AudioSet's csv so that no class has the same place by index and by mid."""
    rows = [(index, f"/m/{(index * 7 + 1) % count:04d}") for index in range(count)]
    lines = [f'{index},{mid},"Class {mid}, by mid"' for index, mid in rows]
    path.write_text("\n".join(["index,mid,display_name", *lines]) + "\n")


def test_audioset_tags_are_named_by_sorted_mid(tmp_path, port, waveform):
    module = write_encoder(tmp_path / "matpac.pt", port, audioset_head=True)
    write_audioset_labels(tmp_path / "labels.csv")
    model = tinymu_jax.load(tmp_path / "matpac.pt", labels=tmp_path / "labels.csv")
    with torch.no_grad():
        shares = module.class_probabilities(torch.from_numpy(waveform)[None])[0].numpy()
    order = np.argsort(-shares)
    result = model.tag(waveform, top=3)
    assert [name for name, _ in result] == [f"Class /m/{i:04d}, by mid" for i in order[:3]]
    np.testing.assert_allclose([share for _, share in result], shares[order[:3]], rtol=1e-4)
    everything = model.tag(waveform, top=None)
    assert len(everything) == 527
    assert abs(sum(share for _, share in everything) - 1) < 1e-5


def test_a_probe_of_its_own_file_tags_like_the_original(tmp_path, port, waveform):
    module = write_encoder(tmp_path / "matpac.pt", port, probe_classes=5)
    state = torch.load(tmp_path / "matpac.pt")
    probe = {key: state.pop(key) for key in ("probe.weight", "probe.bias")}
    torch.save(state, tmp_path / "matpac.pt")
    torch.save(probe, tmp_path / "probe.pt")
    (tmp_path / "labels.txt").write_text("drums\nbass\n\nvoice\npiano\nflute\n")
    model = tinymu_jax.load(
        tmp_path / "matpac.pt", probe=tmp_path / "probe.pt", labels=tmp_path / "labels.txt"
    )
    with torch.no_grad():
        shares = module.class_probabilities(torch.from_numpy(waveform)[None])[0].numpy()
    names = ["drums", "bass", "voice", "piano", "flute"]
    result = dict(model.tag(waveform))
    for name, share in zip(names, shares, strict=True):
        assert result[name] == pytest.approx(share, rel=1e-4)


def test_a_probe_of_its_own_file_goes_with_a_converted_encoder_too(tmp_path, port, waveform):
    write_encoder(tmp_path / "matpac.pt", port)
    save_checkpoint(tmp_path / "out", matpac.from_published(tmp_path / "matpac.pt"))
    probe = {"probe.weight": torch.randn(5, 320), "probe.bias": torch.randn(5)}
    torch.save(probe, tmp_path / "probe.pt")
    first, second = (
        tinymu_jax.load(tmp_path / name, probe=tmp_path / "probe.pt")
        for name in ("matpac.pt", "out")
    )
    assert second.tag(waveform) == first.tag(waveform)


def test_tags_without_labels_are_numbered(tmp_path, port, waveform):
    write_encoder(tmp_path / "matpac.pt", port, probe_classes=3)
    names = {name for name, _ in tinymu_jax.load(tmp_path / "matpac.pt").tag(waveform)}
    assert names == {"class 0", "class 1", "class 2"}


def test_an_encoder_without_a_head_does_not_tag(tmp_path, port, waveform):
    write_encoder(tmp_path / "matpac.pt", port)
    assert "no head to tag with" in refusal(tinymu_jax.load(tmp_path / "matpac.pt").tag, waveform)
    (tmp_path / "labels.txt").write_text("drums\n")
    message = refusal(tinymu_jax.load, tmp_path / "matpac.pt", labels=tmp_path / "labels.txt")
    assert "labels given" in message


def test_a_bfloat16_encoder_alone_is_close(tmp_path, port, waveform):
    write_encoder(tmp_path / "matpac.pt", port)
    exact, rough = (
        tinymu_jax.load(tmp_path / "matpac.pt", encoder_dtype=compute_dtype).embed(waveform)
        for compute_dtype in ("float32", "bfloat16")
    )
    assert 1e-4 < np.abs(exact - rough).max() < 0.2


def test_an_unknown_precision_of_an_encoder_alone_is_refused(tmp_path, port):
    write_encoder(tmp_path / "matpac.pt", port)
    message = refusal(tinymu_jax.load, tmp_path / "matpac.pt", encoder_dtype="float16")
    assert message.startswith("encoder_dtype='float16': use one of float32, bfloat16")


@pytest.mark.parametrize("option", ["probe", "labels"])
def test_what_belongs_to_an_encoder_is_refused_for_tinymu(checkpoint_file, tmp_path, option):
    """An option that nothing reads would be believed to work."""
    (tmp_path / "given").write_text("drums\n")
    message = refusal(tinymu_jax.load, checkpoint_file, **{option: tmp_path / "given"})
    assert option in message


# --- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "drums\nbass\n  voice  \n\n"),
        ("labels.csv", "2,voice\n0,drums\n1,bass\n"),
        ("labels.csv", 'index,mid,display_name\n0,/m/c,voice\n1,/m/a,drums\n2,/m/b,"bass"\n'),
        ("labels.json", '{"voice": 2, "drums": 0, "bass": 1}'),
        ("labels.json", '{"2": "voice", "0": "drums", "1": "bass"}'),
    ],
    ids=["lines", "csv by index", "csv by mid", "json to index", "json from index"],
)
def test_labels_come_in_the_order_of_the_outputs(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name, 3) == ["drums", "bass", "voice"]


def test_more_than_ten_numbered_labels_are_in_the_order_of_their_numbers(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({str(i): f"class {i}" for i in reversed(range(12))}))
    assert read_labels(path, 12) == [f"class {i}" for i in range(12)]


def test_the_real_audioset_labels_are_sorted_by_mid(shared_dir):
    names = read_labels(shared_dir / "data" / "audioset_class_labels_indices.csv", 527)
    assert names[:2] == ["Firecracker", "Timpani"]
    assert names[-1] == "Whimper (dog)"
    assert len(set(names)) == 527


def test_another_number_of_labels_is_refused(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("drums\nbass\n")
    message = refusal(read_labels, path, 3)
    assert message.startswith(f"{path}: names 2 classes, the checkpoint has 3; ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.json", b"{"),
        ("labels.json", b"[1, 2]"),
        ("labels.json", b'{"a": "b"}'),
        ("labels.json", b"3"),
        ("labels.json", b'{"a": 0, "b": 5, "c": 6}'),
        ("labels.csv", b"0,drums\n0,bass\n2,voice\n"),
        ("labels.csv", b""),
        ("labels.csv", b"drums\nbass\n"),
        ("labels.csv", b"index,mid\n0,/m/a\n"),
        ("labels.txt", b"\xff\xfe\x00\xd8"),
    ],
)
def test_a_file_that_is_no_list_of_labels_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(read_labels, path, 2)
    assert message.startswith(f"{path}: is no")
    assert "; give csv, json or one name a line" in message


def test_labels_that_are_not_there_are_named(tmp_path):
    assert refusal(read_labels, tmp_path / "no.csv", 2).startswith(
        f"{tmp_path / 'no.csv'}: no such file; "
    )


# --- what is refused ---------------------------------------------------------------------------


def test_a_decoder_alone_is_refused(tmp_path):
    oracle.build_llama(**SMALL_DECODER).save_pretrained(tmp_path / "theirs")
    save_checkpoint(tmp_path / "ours", smollm2.from_published(tmp_path / "theirs"))
    for name in ("theirs", "ours"):
        message = refusal(tinymu_jax.load, tmp_path / name)
        assert message.startswith(f"{tmp_path / name}: is a language model alone")
        assert "name a TinyMU checkpoint" in message


@pytest.mark.parametrize("name", ["nothing", "no/such/folder", "missing.pt", "folder/missing.pt"])
def test_a_path_that_does_not_exist_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for inputs in (name, str(tmp_path / name), tmp_path / name):
        message = refusal(tinymu_jax.load, inputs)
        assert message.startswith(f"{inputs}: no such file or folder; ")
        assert "AndreasXi/TinyMU" in message


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVEfmt ", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "song.wav"
    path.write_bytes(content)
    assert refusal(tinymu_jax.load, path).startswith(f"{path}: ")


# --- what is imported, and what is kept --------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    code = """
import sys
import tinymu_jax
dir(tinymu_jax)
print(sorted({name.split(".")[0] for name in sys.modules} & {"jax", "flax", "torch", "numpy"}))
"""
    assert run_python(code) == "[]\n"


def test_an_answer_needs_no_torch(own_cache, checkpoint_file, recording):
    code = """
import sys
import tinymu_jax
model = tinymu_jax.load(sys.argv[1])
answer = model.ask(sys.argv[2], "What is the main instrument?", max_new_tokens=4)
assert isinstance(answer, str)
heavy = {"torch", "transformers", "librosa", "matplotlib", "pandas"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code, checkpoint_file, recording) == "[]\n"
    compiled = list((own_cache / "compiled").iterdir())
    assert compiled, "compiled programs are kept for the next process"


@pytest.mark.parametrize("name", sorted(set(tinymu_jax.__all__)))
def test_every_public_name_is_there(name):
    assert name in dir(tinymu_jax)
    assert getattr(tinymu_jax, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'transcribe'"):
        tinymu_jax.transcribe  # noqa: B018


@pytest.fixture
def compilation_cache():
    """Sets jax's folder for compiled programs; what a test changes is undone."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_programs_are_kept_in_our_cache(tmp_path, compilation_cache):
    compilation_cache(None)
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "compiled")


def test_a_folder_for_compiled_programs_that_is_set_stays(tmp_path, compilation_cache):
    compilation_cache(str(tmp_path / "mine"))
    enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")


def test_a_tokenizer_is_found_in_nano_in_a_folder_and_in_a_run(tmp_path):
    nano = (NANO_FOLDER / "tokenizer.json").read_text()
    assert read_tokenizer("nano") == nano
    assert read_tokenizer(NANO_FOLDER) == nano
    (tmp_path / "model").mkdir()
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "model" / "tokenizer.json").write_text("of the run")
    assert read_tokenizer(tmp_path) == "of the run"
