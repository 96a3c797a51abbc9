"""The small model that comes with the package: what it hears, in PyTorch, with int8 weights."""

import json

import numpy as np
import pytest

import tinymu_jax
from tinymu_jax.checkpoints.open import NANO_FOLDER, open_checkpoint
from tinymu_jax.checkpoints.pytorch.convert import write_model
from tinymu_jax.data.synthetic.generate import CLIPS
from tinymu_jax.evaluation.synthetic.evaluate import evaluate
from tinymu_jax.evaluation.synthetic.items import read_items
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.evaluate import MAX_NEW_TOKENS, make_test_clips

CLIP_COUNT = 48
FLOORS = {"mcq": 0.85, "mcq_scored": 0.9, "binary": 0.92, "qa": 0.9, "caption_timbre": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips that no training has heard, with questions."""
    place = tmp_path_factory.mktemp("nano") / "test"
    return make_test_clips(place, CLIP_COUNT)


@pytest.fixture(scope="module")
def results(folder):
    """All of its answers."""
    return evaluate(tinymu_jax.load("nano"), folder, True, False, max_new_tokens=MAX_NEW_TOKENS)


def test_it_takes_little_room():
    assert sum(path.stat().st_size for path in NANO_FOLDER.iterdir()) < 8e6


def test_it_hears_what_it_was_not_trained_on(results):
    result = {name: results.scores.by_format[name].model for name in FLOORS}
    short = {name: share for name, share in result.items() if share < FLOORS[name]}
    assert not short
    for fact, score in results.scores.by_fact.items():
        assert score.model > score.most_frequent + 0.3, fact


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """It as torch modules, from the files that are exported for PyTorch."""
    torch = pytest.importorskip("torch")
    from oracles import torch_modules as oracle

    path = tmp_path_factory.mktemp("torch") / "nano.pt"
    write_model(open_checkpoint("nano"), path)
    made = oracle.build_tinymu(json.loads(path.with_suffix(".json").read_text()))
    state = torch.load(path, weights_only=True)["model"]
    made.load_state_dict(state, strict=True)
    return made


def test_pytorch_gives_the_same_answers_to_a_hundred_questions(
    module, folder, results, monkeypatch
):
    import torch
    from oracles import torch_modules as oracle

    opened = open_checkpoint("nano")
    monkeypatch.setattr(oracle, "TEXT_LENGTH", opened.config.max_text_tokens)
    tokenizer = tinymu_jax.load("nano").tokenizer
    answers = {(row.clip, row.prompt): row.answer for row in results.rows}
    # Every other: of all clips' formats.
    items = read_items(folder, 18)[::2][:100]
    assert len({item.task for item in items}) == 4
    assert len(items) == 100
    for item in items:
        samples = tinymu_jax.load_audio(folder / CLIPS / item.path.name, nano_recipe.SECONDS)
        ids = tokenizer.encode(item.prompt)
        made = module.generate_cached(torch.from_numpy(np.array(samples)), ids, MAX_NEW_TOKENS)
        assert tokenizer.decode(made) == answers[item.path.name, item.prompt]


def test_int8_weights_answer_alike(folder, results):
    rounded = tinymu_jax.load("nano", decoder_dtype="int8")
    result = evaluate(rounded, folder, False, False, max_new_tokens=MAX_NEW_TOKENS)
    pairs = list(zip(results.rows, result.rows, strict=True))
    first = [a.answer.split()[:1] == b.answer.split()[:1] for a, b in pairs]
    assert np.mean(first) >= 0.95
    right = [np.mean([row.right for row in rows]) for rows in zip(*pairs, strict=True)]
    assert right[1] >= right[0] - 0.01
