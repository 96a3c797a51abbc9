"""The commands quickstart and ablate end to end, interrupted and resumed."""

import json
import sys
from dataclasses import replace

import pytest

from tinymu_jax.cli import main as command_line
from tinymu_jax.cli.main import main
from tinymu_jax.quickstart import nano_recipe, new_timbre
from tinymu_jax.utils import malloc

MINUTES = "0.04"


@pytest.fixture
def small(monkeypatch):
    """Makes nano shallow, its clips short, and the fine-tuning brief."""
    full_model = nano_recipe.model

    def shallow(vocab_size):
        config = full_model(vocab_size)
        encoder, decoder = (replace(x, depth=1) for x in (config.encoder, config.decoder))
        return replace(config, encoder=encoder, decoder=decoder)

    monkeypatch.setattr(nano_recipe, "model", shallow)
    monkeypatch.setattr(nano_recipe, "SECONDS", 1.0)
    monkeypatch.setattr(nano_recipe, "TIMBRE_STEPS", 2)
    monkeypatch.setattr(new_timbre, "NEW_CLIPS", 8)
    monkeypatch.setattr(new_timbre, "USUAL_CLIPS", 8)
    # This process runs other tests afterwards.
    monkeypatch.setattr(command_line, "keep_heap", lambda: None)


def run(monkeypatch, *arguments):
    """Returns the exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["tinymu", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.slow
def test_the_quickstart_stops_when_asked_and_resumes(small, tmp_path, monkeypatch, capsys):
    command = ("quickstart", "--output", tmp_path / "q", "--minutes", MINUTES, "--test-clips", 2)
    full_stages = nano_recipe.stages

    def stopping(*arguments):
        runs = full_stages(*arguments)
        words = runs[nano_recipe.WORDS]
        return runs | {nano_recipe.WORDS: replace(words, loop=replace(words.loop, stop_after=1))}

    with monkeypatch.context() as patch:
        patch.setattr(nano_recipe, "stages", stopping)
        assert run(patch, *command) == 130
    assert (tmp_path / "q/train" / nano_recipe.WORDS / "run.json").exists()
    assert not (tmp_path / "q/train" / nano_recipe.LABELS).exists()
    capsys.readouterr()

    assert run(monkeypatch, *command) == 0
    shown = capsys.readouterr()
    assert f"{nano_recipe.LETTERS}: done before" in shown.err
    assert "test the shipped model on new clips: done before" in shown.err
    for line in (
        "correct answers, percent",
        "by fact",
        "a new instrument",
        "PyTorch: ",
        "try next:",
    ):
        assert line in shown.out
    results = tmp_path / "q/results"
    assert {path.stem for path in results.glob("*.json")} == {"test", "train", "finetune", "export"}
    result = json.loads((results / "export.json").read_text())
    assert result["weights_equal"]
    assert result["equal_tokens"] == result["tokens"] > 0
    assert (results / "test/scores.txt").read_text().startswith("by format")

    # Printed again from the cache; stages of other minutes are not mixed in.
    assert run(monkeypatch, *command) == 0
    assert capsys.readouterr().out == shown.out
    (results / "train.json").unlink()
    assert run(monkeypatch, *command[:3], "--minutes", 0.05, "--test-clips", 2) == 2
    assert "its run has another config: steps (was" in capsys.readouterr().err


@pytest.mark.slow
def test_an_ablation_is_trained_and_printed(small, tmp_path, monkeypatch, capsys):
    command = ("ablate", "--output", tmp_path, "--minutes", MINUTES, "--clips", 64)
    assert run(monkeypatch, *command, "--test-clips", 3, "--only", "no_choice") == 0
    assert "| no multiple choice | " in capsys.readouterr().out
    assert not (tmp_path / "data_no_choice/music/mcq.json").exists()
    assert (tmp_path / "data/music/mcq.json").exists()
    # The encoder is trained once for all ablations.
    assert (tmp_path / "full" / nano_recipe.LABELS / "model").is_dir()
    assert not (tmp_path / "no_choice" / nano_recipe.LABELS).exists()


@pytest.mark.parametrize("command", ["train", "quickstart", "ablate", "ask"])
def test_commands_that_train_keep_freed_memory(command, monkeypatch):
    remaining = []
    monkeypatch.setattr(command_line, "keep_heap", lambda: remaining.append(True))
    assert run(monkeypatch, command, "--no-such-option") == 2
    assert bool(remaining) == (command != "ask")
    assert malloc.keep_heap is not command_line.keep_heap
