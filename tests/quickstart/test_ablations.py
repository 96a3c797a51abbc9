"""Ablations: which stages each one shares with nano's recipe, and which differ."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import refusal

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import make_text
from tinymu_jax.quickstart import ablations, nano_recipe
from tinymu_jax.quickstart.ablation_recipe import ABLATIONS, FULL, stages
from tinymu_jax.quickstart.ablations import COLUMNS, TABLE, ablate, as_table, plot_ablations
from tinymu_jax.quickstart.config import AblationsConfig


def runs_of(name):
    return stages(
        name, nano_recipe.run_paths(Path("data"), Path("runs")), vocab_size=600, minutes=4
    )


def frozen(run, path):
    return re.fullmatch(run.optim.frozen_params, path) is not None


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_stage_begins_with_a_stage_before_it(name):
    runs = runs_of(name)
    outputs = [run.output for run in runs.values()]
    for stage in (nano_recipe.WORDS, nano_recipe.JOIN, nano_recipe.TUNE):
        start = runs[stage].init
        initial = [path for path in (start.checkpoint, start.encoder, start.decoder) if path]
        assert initial
        assert set(initial) <= set(outputs)


def test_shared_stages_train_on_the_full_data():
    less, full_paths = (
        nano_recipe.run_paths(Path(name), Path("runs")) for name in ("less", "full_data")
    )
    runs = stages("no_choice", less, vocab_size=600, minutes=4, full_paths=full_paths)
    full = stages(FULL, full_paths, vocab_size=600, minutes=4)
    assert runs[nano_recipe.LABELS] == full[nano_recipe.LABELS]
    others = [run.data.train for name, run in runs.items() if name != nano_recipe.LABELS]
    assert all(place.startswith("less/") for place in others)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_one_thing_and_shares_the_rest(name):
    ablation, part, full = ABLATIONS[name], runs_of(name), runs_of(FULL)
    assert part[nano_recipe.LABELS] == full[nano_recipe.LABELS]
    for stage in (nano_recipe.LETTERS, nano_recipe.WORDS):
        assert (part[stage] == full[stage]) == (ablation.without is None)
    alike = ablation.without is None and ablation.projector == "transformer"
    assert (part[nano_recipe.JOIN] == full[nano_recipe.JOIN]) == alike
    assert part[nano_recipe.JOIN].model.projector.kind == ablation.projector
    last = part[nano_recipe.TUNE]
    layer = "decoder/body/layers/attn/qkv/q_proj"
    assert frozen(last, f"{layer}/kernel") == (ablation.decoder != "full")
    assert not frozen(last, "projector/layers/attn/queries/kernel")
    assert (last.lora is not None) == (ablation.decoder == "lora")
    if last.lora is not None:
        assert not frozen(last, f"{layer}/lora/a")
    assert (last.output == full[nano_recipe.TUNE].output) == (name == FULL)
    assert {stage: run.steps for stage, run in part.items()} == nano_recipe.steps_in(4)


def test_a_removed_format_is_removed_from_texts_too():
    config = SynthesisConfig(choice=0)
    tasks = {asked.task for number in range(20) for asked in make_text(config, number)[2]}
    assert tasks == {"QA", "Captioning", "Binary"}


def test_the_table_shows_results_beside_the_paper(tmp_path):
    keys = ("mcq", "binary", "qa", "caption_timbre", "caption_facts")
    result = {
        name: {"scores": {"by_format": {key: {"model": share} for key in keys}}}
        for name, share in (("full", 0.934), ("no_choice", 0.25))
    }
    lines = as_table(result).splitlines()
    assert lines[2].endswith("| 93.4 | 93.4 | 93.4 | 93.4 | 93.4 | 58.6 |")
    assert lines[3].startswith("| no multiple choice | 25.0 |")
    # A model whose captions name no facts has no score for them.
    result["lora"] = {"scores": {"by_format": {"mcq": {"model": 0.3}}}}
    assert as_table(result).splitlines()[-1].endswith("| 30.0 | - | - | - | - | 39.9 |")
    plot_ablations(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_has_all_results_of_the_same_options(tmp_path, monkeypatch):
    shares = {"model": 0.5}
    scores = {"by_format": dict.fromkeys(COLUMNS, shares)}
    monkeypatch.setattr(
        ablations, "_train_and_test", lambda name, *_: {"scores": scores, "model": name}
    )
    config = AblationsConfig(output=tmp_path)
    ablate(config, ("lora",))
    result = ablate(config, ("frozen", FULL))
    assert list(result) == [FULL, "lora", "frozen"]
    assert len((tmp_path / "results" / TABLE).read_text().splitlines()) == 2 + 3
    # Results of another seed are not mixed in.
    assert "other options" in refusal(ablate, replace(config, seed=1), (FULL,))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("half",), {}, "no ablation half: there are full, lora"),
        ((), {"minutes": 0}, "minutes 0: give more than 0"),
        ((), {"test_clips": 0}, "test_clips 0: give 1 or more"),
        ((), {"seed": 1000}, "seed 1000: give 0 to 999"),
    ],
)
def test_bad_options_are_refused(names, options, message, tmp_path):
    assert message in refusal(ablate, AblationsConfig(output=tmp_path, **options), names)
