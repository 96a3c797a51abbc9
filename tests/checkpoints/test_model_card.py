"""What conversions verify and print, and the model card beside exported weights."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import soundfile
import torch
import yaml
from helpers import noise, refusal, run_cli

from tinymu_jax.checkpoints.checkpoint import (
    Checkpoint,
    encoder_of,
    init_params,
    read_config,
    save_checkpoint,
    to_float16,
)
from tinymu_jax.checkpoints.model_card import (
    CARD_FILE,
    MARK,
    Origin,
    card_text,
    count_parameters,
    origin_of,
    origin_of_run,
    write_card,
)
from tinymu_jax.checkpoints.open import NANO_FOLDER
from tinymu_jax.checkpoints.pytorch import convert
from tinymu_jax.checkpoints.pytorch.convert import write_model
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file
from tinymu_jax.checkpoints.safetensors import map_safetensors, read_safetensors, write_safetensors
from tinymu_jax.cli.convert import FromTorch, ToTorch
from tinymu_jax.evaluation.report.build import write_report
from tinymu_jax.evaluation.results import EvalResult, Metric
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.utils.tree import flatten


def front_matter(card):
    """Returns what the hub reads of a card."""
    _, front, _ = card.read_text().split("---\n", 2)
    return yaml.safe_load(front)


@pytest.fixture
def source(checkpoint_file, tmp_path):
    """A copy of the golden checkpoint that may be changed."""
    shutil.copytree(checkpoint_file.parent, tmp_path / "theirs")
    return tmp_path / "theirs" / "tinymu.pt"


# --- from PyTorch ------------------------------------------------------------------------------


def test_a_conversion_says_what_it_found_the_same(source, tmp_path, capsys):
    assert FromTorch(source, tmp_path / "out").run() == 0
    out = capsys.readouterr().out.splitlines()
    tensors = len(read_torch_file(source)["model"])
    assert out[0] == f"TinyMU, 0.15 M numbers -> {tmp_path}/out/config.json"
    assert out[1].endswith(f"/out/ to tinymu.pt: {tensors} tensors bit for bit")
    assert out[2] == f"model card: {tmp_path}/out/README.md"


def test_a_bit_that_differs_is_found(source, tmp_path):
    """The check reads the files themselves; one bit of one weight is enough."""
    FromTorch(source, tmp_path / "out").run()
    weights = tmp_path / "out" / "model.safetensors"
    whole = read_safetensors(weights)
    place = "decoder/body/layers/mlp/down_proj/kernel"
    changed = whole[place].copy()
    changed[1, 0, 0] = np.nextafter(changed[1, 0, 0], np.float32(9))
    write_safetensors(weights, {**whole, place: changed})
    message = refusal(convert.check_converted, source, tmp_path / "out")
    assert "text_decoder.lm.model.layers.1.mlp.down_proj.weight differs from" in message
    write_safetensors(weights, whole)
    convert.check_converted(source, tmp_path / "out")


def test_bits_are_compared_and_not_numbers(tmp_path, golden_checkpoint):
    """No number equals itself where it is none, and zero equals minus zero."""
    bias = np.zeros_like(golden_checkpoint.params["projector"]["linear1"]["bias"])
    bias[0] = np.nan

    def with_bias(values):
        params = {**golden_checkpoint.params}
        params["projector"] = {**params["projector"]}
        params["projector"]["linear1"] = {**params["projector"]["linear1"], "bias": values}
        return golden_checkpoint._replace(params=params)

    write_model(with_bias(bias), tmp_path / "tinymu.pt")
    convert.check_written(with_bias(bias), tmp_path / "tinymu.pt")
    message = refusal(convert.check_written, with_bias(-bias), tmp_path / "tinymu.pt")
    assert "projector.linear1.bias differs from" in message


def test_weights_in_bfloat16_are_counted_as_widened(source, tmp_path):
    content = read_torch_file(source)
    for key, value in content["model"].items():
        if key.startswith("projector."):
            content["model"][key] = value.astype(ml_dtypes.bfloat16)
    write_torch_file(tmp_path / "half.pt", content)
    shutil.copy(source.with_suffix(".json"), tmp_path / "half.json")
    FromTorch(tmp_path / "half.pt", tmp_path / "out").run()
    result = convert.check_converted(tmp_path / "half.pt", tmp_path / "out")
    assert result.widened == 4
    assert "(4 of them in a wider type, the same numbers)" in str(result)


def test_the_card_names_the_file_that_was_converted(source, tmp_path):
    FromTorch(source, tmp_path / "out").run()
    card = tmp_path / "out" / CARD_FILE
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert f"* `tinymu.pt`, sha256 `{digest}`" in card.read_text()
    assert str(tmp_path) not in card.read_text()
    front = front_matter(card)
    assert front["pipeline_tag"] == "audio-text-to-text"
    assert front["library_name"] == "tinymu_jax"
    # Nothing says under which licence these weights are, or what their training began with.
    assert front["license"] == "unknown"
    assert "base_model" not in front
    assert "This checkpoint has not been evaluated." in card.read_text()


def test_a_conversion_goes_over_its_own_card_and_no_other(source, tmp_path):
    out = tmp_path / "out"
    FromTorch(source, out).run()
    torch.save(torch.load(source, weights_only=True) | {"epoch": 7}, source)
    FromTorch(source, out).run()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest in (out / CARD_FILE).read_text()
    (out / CARD_FILE).write_text("my own words")
    torch.save(torch.load(source, weights_only=True) | {"epoch": 8}, source)
    assert FromTorch(source, out).run() == 0
    assert read_config(out)[1]["epoch"] == 8
    assert (out / CARD_FILE).read_text() == "my own words"


def test_a_conversion_that_fails_leaves_the_card(source, tmp_path):
    out = tmp_path / "out"
    FromTorch(source, out).run()
    before = (out / CARD_FILE).read_text()
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in refusal(FromTorch(source, out).run)
    assert (out / CARD_FILE).read_text() == before


# --- to PyTorch --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tinymu.pt", "tinymu.safetensors"])
def test_what_is_written_for_pytorch_is_read_again(tmp_path, capsys, name):
    ToTorch("nano", tmp_path / name).run()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"verified: 2.45 M parameters; {name} read again: ")
    assert last.endswith(" tensors bit for bit")


def test_a_file_for_pytorch_that_differs_is_found(tmp_path, golden_checkpoint):
    write_model(golden_checkpoint, tmp_path / "tinymu.pt")
    result = convert.check_written(golden_checkpoint, tmp_path / "tinymu.pt")
    content = read_torch_file(tmp_path / "tinymu.pt")
    assert result == (len(content["model"]), 0)
    key = "projector.linear1.bias"
    content["model"][key] = content["model"][key] + np.float32(1e-3)
    write_torch_file(tmp_path / "other.pt", content)
    message = refusal(convert.check_written, golden_checkpoint, tmp_path / "other.pt")
    assert f"{key} differs from" in message
    del content["model"][key]
    write_torch_file(tmp_path / "less.pt", content)
    message = refusal(convert.check_written, golden_checkpoint, tmp_path / "less.pt")
    assert f"less.pt has no {key}" in message


# --- the card ----------------------------------------------------------------------------------


def test_parameters_are_counted_as_the_paper_counts_them():
    import jax

    shapes = jax.eval_shape(lambda: init_params(TinyMUConfig(), 0))
    assert count_parameters(shapes) == 229_054_592


def test_the_types_of_numbers_and_what_is_lacking_are_told(tmp_path, golden_checkpoint):
    half = to_float16(golden_checkpoint._replace(tokenizer=None))
    text = card_text(save_checkpoint(tmp_path / "half", half), Origin("Of a test."))
    assert "parameters (float16)" in text
    assert "rounded to float16" in text
    assert "The folder has no tokenizer" in text
    whole = save_checkpoint(tmp_path / "whole", golden_checkpoint)
    text = card_text(whole, Origin("Of a test."))
    assert "float16" not in text
    assert "no tokenizer" not in text
    hears = replace(golden_checkpoint.config, max_seconds=2.5)
    other = save_checkpoint(tmp_path / "other", golden_checkpoint._replace(config=hears))
    assert "the first 2.5 s" in card_text(other, Origin("Of a test."))


def test_the_three_lines_of_a_card_run(tmp_path, monkeypatch, golden_checkpoint):
    """Names and arguments in them are those of the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYMU_CACHE", str(tmp_path / "cache"))
    soundfile.write("song.mp3", noise(16_000), 16_000)
    encoder = encoder_of(golden_checkpoint)
    shutil.copytree(NANO_FOLDER, "whole")
    for name in ("whole", save_checkpoint("encoder", encoder).name):
        text = card_text(tmp_path / name, Origin("Of a test."))
        exec(text.split("```python\n")[1].split("```")[0], {})


def test_a_run_is_told_with_its_config_and_its_scores(tmp_path, golden_checkpoint):
    run = tmp_path / "run"
    model = save_checkpoint(run / "model", golden_checkpoint)
    start = {"checkpoint": None, "encoder": "/data/mine/enc", "decoder": "someone/words"}
    page = {"format": 1, "config": {"init": start, "epochs": 3}, "data": {"train": "f00d"}}
    (run / "run.json").write_text(json.dumps(page))
    headline = {"right": Metric(0.625, 0.5, 0.75, 64), "words": Metric(12.5, is_fraction=False)}
    write_report([EvalResult("list", "Made", str(model), headline, [])], run)
    text = card_text(model, origin_of_run(run, 40))
    assert "Saved after step 40 of a training run" in text
    assert "encoder `enc`, decoder `someone/words`" in text
    assert "fingerprint `f00d`" in text
    assert "| Made | model | right | 62.5 % | 50.0 % to 75.0 % | 64 |" in text
    assert "| Made | model | words | 12.5 |  |  |" in text
    assert "base_model:\n- someone/words\n---" in text
    assert "/data/mine" not in text
    # What is found around the folder later is the same, less the step, which nothing tells.
    assert origin_of(model) == origin_of_run(run)


def test_folders_are_no_base_models(tmp_path, golden_checkpoint, monkeypatch):
    """A folder two deep looks like a name of the hub."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint("mine/decoder", golden_checkpoint)
    start = {"checkpoint": "someone/else", "encoder": "runs/matpac", "decoder": "mine/decoder"}
    (tmp_path / "run.json").write_text(json.dumps({"config": {"init": start}}))
    assert origin_of_run(tmp_path).base_models == ("someone/else",)


def test_places_are_cut_to_their_last_names(tmp_path):
    places = ["gs://mine/a/one", "s3://b/two/", "file:///data/three", "../../me/four"]
    config = {"data": [*places, "configs/five"], "output": "~/six"}
    (tmp_path / "run.json").write_text(json.dumps({"config": config}))
    reported = origin_of_run(tmp_path).text.split("```json\n")[1].split("```")[0]
    cut = ["one", "two", "three", "four", "configs/five"]
    assert json.loads(reported) == {"data": cut, "output": "six"}


def test_only_the_model_of_a_run_is_what_the_run_made(tmp_path, golden_checkpoint, monkeypatch):
    (tmp_path / "run.json").write_text("{}")
    for name in ("model", "start"):
        save_checkpoint(tmp_path / name, Checkpoint(*golden_checkpoint[:3]))
    assert "The folder does not say" in origin_of(tmp_path / "start").text
    monkeypatch.chdir(tmp_path / "model")
    assert "Saved of a training run" in origin_of(Path(".")).text


def test_what_is_not_known_is_said_to_be_unknown(tmp_path, golden_checkpoint):
    folder = save_checkpoint(tmp_path / "model", Checkpoint(*golden_checkpoint[:3]))
    text = card_text(folder, origin_of(folder))
    assert "The folder does not say where the weights come from." in text
    assert "license: unknown" in text


def test_somebodys_own_card_stays(tmp_path, golden_checkpoint):
    folder = save_checkpoint(tmp_path / "model", golden_checkpoint)
    write_card(folder, Origin("first"))
    write_card(folder, Origin("second"))
    card = folder / CARD_FILE
    assert "second" in card.read_text()
    part = card.read_text().replace(MARK, "")
    card.write_text(part)
    write_card(folder, Origin("third"))
    assert card.read_text() == part
    # Weights that are saved anew, as at the end of a run that goes on, leave it and a licence.
    (folder / "LICENSE").write_text("as you like")
    save_checkpoint(folder, golden_checkpoint._replace(source={"epoch": 9}))
    assert read_config(folder)[1] == {"epoch": 9}
    assert card.read_text() == part
    assert (folder / "LICENSE").read_text() == "as you like"
    assert MARK not in (NANO_FOLDER / CARD_FILE).read_text()


# --- weights as views of their file ------------------------------------------------------------


def test_views_are_what_the_library_reads(tmp_path, golden_checkpoint):
    arrays = dict(flatten(golden_checkpoint.params))
    arrays |= {"odd": np.arange(3, dtype=np.int8), "none": np.zeros((0, 2), np.float16)}
    arrays["one"] = np.array(7, np.int64)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, arrays, {"format": "pt"})
    views, read = map_safetensors(path), read_safetensors(path)
    assert views.keys() == read.keys()
    for name, value in read.items():
        assert views[name].dtype == value.dtype
        np.testing.assert_array_equal(views[name], value)


@pytest.mark.parametrize("remaining", [0, 4, 100, -1])
def test_a_file_that_is_cut_short_is_no_view(tmp_path, remaining):
    whole = (NANO_FOLDER / "model.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:remaining])
    problem = "is not a whole safetensors file" if remaining else "the file is empty"
    assert f"cut: {problem}" in refusal(map_safetensors, tmp_path / "cut")


# --- tinymu export -----------------------------------------------------------------------------


def test_export_writes_the_card_of_its_step(tmp_path, golden_checkpoint, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    page = {"format": 1, "config": {"init": {"decoder": "someone/words"}}, "data": {}}
    (run / "run.json").write_text(json.dumps(page))

    def export(folder, output, which, half):
        save_checkpoint(output, golden_checkpoint)
        return int(which)

    monkeypatch.setattr("tinymu_jax.training.run.export", export)
    for step in (20, 40):
        code, out, _ = run_cli(capsys, monkeypatch, "export", run, tmp_path / "out", "--step", step)
        assert code == 0
        assert f"after step {step} is {tmp_path}/out, described in {tmp_path}/out/README.md" in out
        assert (
            f"Saved after step {step} of a training run"
            in (tmp_path / "out" / CARD_FILE).read_text()
        )
    (tmp_path / "out" / CARD_FILE).write_text("my own words")
    assert run_cli(capsys, monkeypatch, "export", run, tmp_path / "out", "--step", 20)[0] == 0
    assert (tmp_path / "out" / CARD_FILE).read_text() == "my own words"
