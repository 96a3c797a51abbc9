"""The quickstart: nano's stages, a new timbre, PyTorch and back, cached steps."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import refusal

from tinymu_jax.checkpoints.checkpoint import expected_shapes, read_checkpoint
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.evaluation.synthetic.evaluate import AnsweredItem
from tinymu_jax.quickstart import nano_recipe, new_timbre
from tinymu_jax.quickstart.config import TourConfig
from tinymu_jax.quickstart.summary import format_summary
from tinymu_jax.quickstart.tour import Tour, export_and_compare
from tinymu_jax.quickstart.train_nano import make_data, make_tokenizer, train_nano
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.training.plots import plot_losses, read_losses
from tinymu_jax.utils.tree import flatten


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("quickstart")


FULL_MODEL = nano_recipe.model


def shallow(vocab_size):
    """Returns a nano of one layer."""
    config = FULL_MODEL(vocab_size)
    encoder, decoder = (replace(x, depth=1) for x in (config.encoder, config.decoder))
    return replace(config, encoder=encoder, decoder=decoder)


@pytest.fixture(scope="module")
def trained(work):
    """A shallow nano trained for a few steps: the folder, and the seconds of each stage."""
    config = SynthesisConfig(clips=40, texts=40, seconds=1.0, workers=1)
    make_data(work / "data", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nano_recipe, "model", shallow)
        return work, train_nano(work / "data", work / "runs", minutes=0.07)


def weights(folder):
    return dict(flatten(read_checkpoint(folder / "model").params))


def parts_that_differ(before, after):
    return {path.split("/")[0] for path in before if not np.array_equal(before[path], after[path])}


def test_nano_has_two_to_four_million_weights():
    shapes = dict(flatten(expected_shapes(nano_recipe.model(600))))
    sizes = [x.size for path, x in shapes.items() if not re.match(nano_recipe.CONSTANT, path)]
    assert 2e6 < sum(sizes) < 4e6


def test_the_tokenizer_is_always_the_same_and_has_a_token_for_each_name():
    text = make_tokenizer()
    assert text == make_tokenizer()
    tokenizer = Tokenizer(text)
    from tinymu_jax.data.synthetic.facts import FACTS
    from tinymu_jax.data.synthetic.templates import NAMES

    for fact, values in FACTS.items():
        for value in values:
            assert len(tokenizer.encode(f" {NAMES[fact][value]}")) == 1


def test_more_minutes_are_more_steps_of_each_stage_and_words_are_known_at_some_time():
    short, long = nano_recipe.steps_in(4), nano_recipe.steps_in(100)
    assert all(long[name] > short[name] for name in short)
    for name in (nano_recipe.LETTERS, nano_recipe.WORDS):
        assert long[name] == nano_recipe.steps_in(1000)[name]


def test_each_stage_changes_what_it_is_for_and_nothing_else(trained):
    work, done = trained
    assert list(done) == [
        nano_recipe.LETTERS,
        nano_recipe.WORDS,
        nano_recipe.LABELS,
        nano_recipe.JOIN,
        nano_recipe.TUNE,
    ]
    runs = {name: weights(work / "runs" / name) for name in done}
    start = dict(flatten(read_checkpoint(work / "runs" / nano_recipe.LETTERS / "start").params))
    assert parts_that_differ(start, runs[nano_recipe.LETTERS]) == {"decoder"}
    assert parts_that_differ(runs[nano_recipe.LETTERS], runs[nano_recipe.WORDS]) == {"decoder"}
    assert parts_that_differ(start, runs[nano_recipe.LABELS]) == {"encoder"}
    assert parts_that_differ(runs[nano_recipe.WORDS], runs[nano_recipe.JOIN]) == {
        "encoder",
        "projector",
    }
    assert parts_that_differ(runs[nano_recipe.LABELS], runs[nano_recipe.JOIN]) == {
        "projector",
        "decoder",
    }
    changed = parts_that_differ(runs[nano_recipe.JOIN], runs[nano_recipe.TUNE])
    assert changed == {"projector", "decoder"}
    for table in ("encoder/pos_embed", "encoder/log_mel/filterbank"):
        np.testing.assert_array_equal(start[table], runs[nano_recipe.TUNE][table])


def test_finished_stages_are_not_repeated(trained, monkeypatch):
    work, _ = trained
    monkeypatch.setattr(nano_recipe, "model", shallow)
    assert set(train_nano(work / "data", work / "runs", minutes=0.07).values()) == {None}


def test_finetuning_changes_projector_and_decoder(trained, monkeypatch):
    work, _ = trained
    monkeypatch.setattr(new_timbre, "NEW_CLIPS", 8)
    monkeypatch.setattr(new_timbre, "USUAL_CLIPS", 8)
    monkeypatch.setattr(nano_recipe, "TIMBRE_STEPS", 1)
    monkeypatch.setattr(nano_recipe, "SECONDS", 1.0)
    base = work / "runs" / nano_recipe.TUNE
    new_timbre.make_timbre_data(work / "timbre", str(base), test_clips=3)
    finetuned = new_timbre.finetune(work / "timbre", str(base), work / "finetuned")
    changed = parts_that_differ(weights(base), weights(finetuned.folder))
    assert changed == {"projector", "decoder"}
    tables = [work / "timbre" / name / "facts.csv" for name in ("new", "usual", "test")]
    assert [table.read_text().count(",accordion,") for table in tables][::2] == [8, 3]
    assert ",accordion," not in tables[1].read_text().splitlines()[0]


def test_timbre_accuracy_counts_open_questions_about_the_timbre():
    row = AnsweredItem("a.wav", "QA", ("timbre",), "?", "bell", "bell", True, None, None, None)
    others = [row._replace(facts=("mode",)), row._replace(task="Binary")]
    wrong = row._replace(right=False)
    assert new_timbre.timbre_accuracy([row, wrong, wrong, wrong, *others]) == 1 / 4
    assert new_timbre.timbre_accuracy(others) == 0


def test_to_pytorch_and_back_nothing_changes(trained):
    work, _ = trained
    clips = sorted((work / "data" / "music" / "clips").glob("*.wav"))[:2]
    result = export_and_compare(str(work / "runs" / nano_recipe.TUNE), work / "nano.pt", clips)
    assert result["weights_equal"]
    assert result["equal_tokens"] == result["tokens"]
    assert result["logit_difference"] < 1e-5


def test_a_step_is_cached_and_other_options_are_refused(tmp_path, capsys):
    done = []

    def do():
        done.append(1)
        return {"number": 5}

    tour = Tour(TourConfig(output=tmp_path))
    first, second = (tour.run("train", "a model", do) for _ in range(2))
    assert first == second
    assert len(done) == 1
    assert "a model: done before" in capsys.readouterr().err
    other = Tour(TourConfig(output=tmp_path, minutes=9))
    assert "other options" in refusal(other.run, "train", "a model", do)


def test_the_summary_shows_accuracies_beside_the_best_baseline_baseline(tmp_path):
    def scores(share):
        score = {"model": share, "best_baseline": 0.25}
        return {"by_format": {"qa": score}, "by_fact": {"timbre": score, "tempo": score}}

    result = {
        "test": {"scores": scores(0.93)},
        "train": {"scores": scores(0.61)},
        "finetune": {
            f"{what}_{when}": {
                **scores(share),
                "by_format": {"caption_timbre": {"model": share}},
                "named": share,
            }
            for what in ("new", "usual")
            for when, share in (("before", 0.1), ("after", 0.9))
        },
        "export": {"file": "nano.pt", "weights_equal": True, "equal_tokens": 40, "tokens": 40},
    }
    page = format_summary(result, TourConfig(output=tmp_path))
    assert re.search(r"open questions +93 +61 +25", page)
    assert re.search(r"named when asked for +10 +90", page)
    assert re.search(r"all other facts +10 +90", page)
    assert "all weights are equal" in page
    assert str(tmp_path / "results") in page


def test_losses_of_all_stages_are_read_and_plotted(trained, tmp_path):
    work, done = trained
    runs = {name: work / "runs" / name for name in done}
    steps, losses = read_losses(runs[nano_recipe.TUNE])
    assert steps[-1] == nano_recipe.steps_in(0.07)[nano_recipe.TUNE]
    assert np.isfinite(losses).all()
    plot_losses(runs, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "cannot be read" in refusal(read_losses, tmp_path)
