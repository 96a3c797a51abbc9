"""Train steps equal torch's Adam on the published loss, whatever the batching."""

import json

import jax
import numpy as np
import optax
import pytest
import torch
from helpers import noise, refusal, write_lists
from oracles import torch_modules as oracle
from tokenizer_fixture import tokenizer_text

from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.loader import PackedBatches, iterate
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.records import as_packed_question
from tinymu_jax.data.sampler import make_groups, make_plan
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import OptimConfig
from tinymu_jax.training.encode_features import encode_features
from tinymu_jax.training.optim import (
    make_optimizer,
    merge_trees,
    partition_frozen,
    published_schedule,
)
from tinymu_jax.training.tasks.finetune import answer_loss
from tinymu_jax.training.train_step import init_state, make_train_step
from tinymu_jax.utils.tree import flatten

hear = jax.jit(encode_features, static_argnums=(3, 4))
PACKING = PackingConfig(row_length=400, rows=2, max_clips=3, max_labels=160, buffer_size=6)
SECONDS = [11.0, 3.2, 0.7, 9.95, 5.0, 10.0]


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Six recordings with one to six questions each, some with a "!"."""
    folder = tmp_path_factory.mktemp("training")
    write_lists(folder, SECONDS)
    return folder


@pytest.fixture(scope="module")
def datasets(lists, tmp_path_factory, golden_checkpoint):
    """The same clips stored in each of the three ways."""
    made = {}
    for store in ("waveform", "log_mel", "embeddings"):
        folder = tmp_path_factory.mktemp(store)
        config = PrepareConfig(FeatureConfig(store), workers=1)
        encoder = golden_checkpoint if store == "embeddings" else None
        text = tokenizer_text()
        prepare([lists / "list.json"], [lists], folder, text, config, encoder)
        made[store] = Dataset(folder)
    return made


def assert_same(result, expected):
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def make_batches(dataset, config, epochs=2, blocks=1, part=None, packing=PACKING):
    groups = make_groups(dataset.lengths(config), packing, config)
    plan = make_plan(groups, packing, 0, epochs)
    return PackedBatches(dataset, plan, packing, config, blocks, part)


# --- the loader --------------------------------------------------------------------------------


def test_each_epoch_has_every_answer_once(datasets, golden_checkpoint):
    config, dataset = golden_checkpoint.config, datasets["log_mel"]
    batches = make_batches(dataset, config, epochs=2)
    seen = []
    for step in range(len(batches)):
        block = batches[step].blocks
        seen += block.labels[block.label_mask].tolist()
    expected = [
        label
        for number in range(len(dataset))
        for question in dataset[number].questions
        for label in as_packed_question(question, config).labels
    ]
    assert sorted(seen) == sorted(expected * 2)


@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[0, 1, 2], [3]]])
def test_processes_together_read_the_batches_of_one(datasets, golden_checkpoint, parts):
    config, dataset = golden_checkpoint.config, datasets["log_mel"]
    whole = make_batches(dataset, config, blocks=4)
    shares = [make_batches(dataset, config, blocks=4, part=part) for part in parts]
    for step in range(len(whole)):
        joined = jax.tree.map(lambda *x: np.concatenate(x), *(share[step] for share in shares))
        assert_same(joined, whole[step])


def test_the_last_step_may_have_empty_blocks(datasets, golden_checkpoint):
    batches = make_batches(datasets["log_mel"], golden_checkpoint.config, blocks=4)
    assert batches.plan.num_blocks % 4
    last = batches[len(batches) - 1]
    assert not last.lengths[-1].any()
    assert not last.blocks.label_mask[-1].any()
    assert (last.records[-1] == -1).all()


def test_resumed_batches_equal_uninterrupted_ones(datasets, golden_checkpoint):
    batches = make_batches(datasets["log_mel"], golden_checkpoint.config)
    later = list(iterate(batches, start=3, threads=2))
    assert len(later) == len(batches) - 3
    for offset, batch in enumerate(later):
        assert_same(batch, batches[3 + offset])


# --- hearing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "tolerance"), [("waveform", 1e-4), ("log_mel", 1e-2), ("embeddings", 2e-2)]
)
def test_training_encodes_clips_as_inference_does(
    datasets, lists, golden_checkpoint, assistant, store, tolerance
):
    config, dataset = golden_checkpoint.config, datasets[store]
    batch = make_batches(dataset, config, epochs=1)[0]
    encoder = golden_checkpoint.params["encoder"]
    vectors, count = hear(encoder, batch.features[0], batch.lengths[0], store, config.encoder)
    assert np.isfinite(vectors).all()
    for clip, record in enumerate(batch.records[0]):
        if record < 0:
            assert count[clip] == 0
            continue
        expected = assistant.embed(lists / f"{record}.wav")
        assert count[clip] == len(expected)
        np.testing.assert_allclose(vectors[clip, : len(expected)], expected, rtol=0, atol=tolerance)


def test_a_clip_of_several_chunks_is_encoded_in_rows(golden_checkpoint):
    from tinymu_jax.inference.chunked_encoding import encode_clips

    config, encoder = golden_checkpoint.config.encoder, golden_checkpoint.params["encoder"]
    clips = [noise(16_000 * 25).astype(np.float32), noise(16_000 * 12).astype(np.float32)]
    clips = [np.round(clip * 32768) / np.float32(32768) for clip in clips]
    features = np.zeros((2, 16_000 * 25), np.int16)
    for row, clip in enumerate(clips):
        features[row, : len(clip)] = clip * 32768
    lengths = np.array([len(clip) for clip in clips])
    vectors, count = hear(encoder, features, lengths, "waveform", config)
    for row, expected in enumerate(encode_clips(encoder, clips, config)):
        assert count[row] == expected.shape[1]
        part = vectors[row, : expected.shape[1]]
        np.testing.assert_allclose(part, expected[0], rtol=0, atol=1e-4)


# --- the step ----------------------------------------------------------------------------------


def torch_losses(golden_dir, dataset, batches, config, steps, optim):
    """Trains the published model with torch's Adam on the same questions, one by one, padded."""
    sizes = json.loads((golden_dir / "tinymu_tiny.json").read_text())
    model = oracle.build_tinymu(sizes)
    state = torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"]
    model.load_state_dict(state, strict=True)
    model.audio_encoder.requires_grad_(False)
    weights = [w for w in model.parameters() if w.requires_grad]
    adam = torch.optim.Adam(weights, lr=1.0)
    total, rising = len(batches), int(optim.warmup_fraction * len(batches))
    plan, groups, index = batches.plan, batches.plan.groups, dataset.index
    losses = []
    for step in range(steps):
        if step < rising:
            rate = optim.learning_rate * (step + 1) / rising
        else:
            done = (step - rising) / (total - rising)
            rate = 0.5 * (1 + np.cos(np.pi * done)) * optim.learning_rate
        adam.param_groups[0]["lr"] = rate
        summed, count = 0.0, 0
        for at in range(plan.start[step], plan.start[step + 1]):
            group = plan.group[at]
            record = int(groups.record[group])
            waveform = torch.from_numpy(dataset[record].features / np.float32(32768))
            start = index.first[record]
            for number in range(groups.first[group] - start, groups.stop[group] - start):
                question = dataset[record].questions[number]
                answer = question.answer_ids.tolist()
                real = sum(label != 17 for label in as_packed_question(question, config).labels)
                prompt = question.prompt_ids.tolist()
                summed = summed + model.loss(waveform, prompt, answer) * real
                count += real
        loss = summed / count
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


def test_losses_equal_torch_adam_on_the_padded_model(golden_dir, datasets, golden_checkpoint):
    config, dataset = golden_checkpoint.config, datasets["waveform"]
    optim = OptimConfig(learning_rate=1e-3, warmup_fraction=0.25)
    batches = make_batches(dataset, config, epochs=12)
    steps = 10
    assert len(batches) > steps
    trained, frozen = partition_frozen(golden_checkpoint.params, optim)
    assert set(trained) == {"projector", "decoder"}
    optimiser = make_optimizer(optim, len(batches))
    step = jax.jit(make_train_step(answer_loss(config, "waveform"), optimiser))
    state, losses = init_state(trained, optimiser), []
    for number in range(steps):
        state, metrics = step(state, frozen, batches[number])
        losses.append(float(metrics.loss))
    expected = torch_losses(golden_dir, dataset, batches, config, steps, optim)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert int(state.step) == steps


@pytest.mark.parametrize("accumulate", [2, 4])
def test_gradient_accumulation_equals_one_step(datasets, golden_checkpoint, accumulate):
    config, dataset = golden_checkpoint.config, datasets["embeddings"]
    batches = make_batches(dataset, config, epochs=3, blocks=4)
    optim = OptimConfig()
    trained, frozen = partition_frozen(golden_checkpoint.params, optim)
    sgd = optax.sgd(1.0)
    results = []
    for parts in (1, accumulate):
        step = jax.jit(make_train_step(answer_loss(config, "embeddings"), sgd, parts))
        results.append(step(init_state(trained, sgd), frozen, batches[0]))
    (one, whole), (two, summed) = results
    np.testing.assert_allclose(summed.loss, whole.loss, rtol=1e-6)
    assert summed.tokens == whole.tokens
    before = dict(flatten(trained))
    for (path, a), (_, b) in zip(flatten(one.params), flatten(two.params), strict=True):
        largest = np.abs(a - before[path]).max()
        assert np.abs(a - b).max() < 1e-5 * largest, path


@pytest.mark.parametrize("remat", ["attention", "full"])
def test_remat_changes_memory_but_no_number(datasets, golden_checkpoint, remat):
    import dataclasses

    base, dataset = golden_checkpoint.config, datasets["embeddings"]
    batch = make_batches(dataset, base)[0]
    trained, frozen = partition_frozen(golden_checkpoint.params, OptimConfig())
    sgd, results = optax.sgd(1.0), []
    for kind in ("none", remat):
        config = dataclasses.replace(base, decoder=dataclasses.replace(base.decoder, remat=kind))
        step = jax.jit(make_train_step(answer_loss(config, "embeddings"), sgd))
        lowered = step.lower(init_state(trained, sgd), frozen, batch).compile()
        results.append(step(init_state(trained, sgd), frozen, batch))
        results.append(lowered.memory_analysis().temp_size_in_bytes)
    (remaining, _), memory, (again, _), less = results
    assert less < 0.9 * memory
    before, expected = dict(flatten(trained)), dict(flatten(remaining.params))
    for path, leaf in flatten(again.params):
        largest = np.abs(expected[path] - before[path]).max()
        assert np.abs(leaf - expected[path]).max() < 1e-5 * largest, path


def test_a_step_without_questions_changes_nothing(datasets, golden_checkpoint):
    config = golden_checkpoint.config
    batches = make_batches(datasets["log_mel"], config, blocks=1)
    empty = batches._block(batches.plan.num_blocks)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], empty)
    sgd = optax.sgd(1.0)
    trained, frozen = partition_frozen(golden_checkpoint.params, OptimConfig())
    step = jax.jit(make_train_step(answer_loss(config, "log_mel"), sgd))
    state, metrics = step(init_state(trained, sgd), frozen, batch)
    assert (float(metrics.loss), float(metrics.tokens)) == (0.0, 0.0)
    before = dict(flatten(trained))
    for path, leaf in flatten(state.params):
        np.testing.assert_array_equal(leaf, before[path])


# --- the optimiser -----------------------------------------------------------------------------


def test_the_schedule_is_the_published_one():
    rate = published_schedule(1e-4, 200, 0.05)
    assert float(rate(0)) == pytest.approx(1e-4 / 10)
    assert float(rate(9)) == pytest.approx(1e-4)
    assert float(rate(10)) == pytest.approx(1e-4)
    assert float(rate(105)) == pytest.approx(0.5e-4, rel=1e-5)
    assert float(rate(199)) == pytest.approx(0.5e-4 * (1 + np.cos(np.pi * 189 / 190)), abs=1e-10)


def test_a_schedule_may_hold_before_it_falls():
    rate = published_schedule(1e-4, 200, 0.05, hold=0.5)
    assert [float(rate(s)) for s in (10, 60, 110)] == pytest.approx([1e-4] * 3)
    assert float(rate(155)) == pytest.approx(0.5e-4, rel=1e-5)
    assert float(rate(199)) == pytest.approx(0.5e-4 * (1 + np.cos(np.pi * 89 / 90)), abs=1e-10)


def update(config, params, gradient, steps=1):
    """Returns what the first steps add to the weights, in units of the learning rate."""
    optimiser = make_optimizer(config, 10**6)
    state, params = optimiser.init(params), dict(params)
    for _ in range(steps):
        updates, state = optimiser.update(gradient, state, params)
    first = published_schedule(config.learning_rate, 10**6, config.warmup_fraction)(0)
    return {path: np.round(leaf / first, 4) for path, leaf in flatten(updates)}


def test_decay_lr_multipliers_and_freezing_by_path():
    ones = np.ones(3, np.float32)
    params = {"a": {"kernel": 2 * ones, "bias": 2 * ones}, "b": {"kernel": 2 * ones}}
    gradient = {"a": {"kernel": ones, "bias": ones}, "b": {"kernel": ones}}
    plain = update(OptimConfig(), params, gradient)
    assert {path: float(x[0]) for path, x in plain.items()} == pytest.approx(
        {"a/kernel": -1, "a/bias": -1, "b/kernel": -1}
    )
    decayed = update(OptimConfig(weight_decay=0.1), params, gradient)
    assert {path: float(x[0]) for path, x in decayed.items()} == pytest.approx(
        {"a/kernel": -1.2, "a/bias": -1, "b/kernel": -1.2}
    )
    slowed = update(OptimConfig(lr_multipliers={"b/.*": 0.5}), params, gradient)
    assert {path: float(x[0]) for path, x in slowed.items()} == pytest.approx(
        {"a/kernel": -1, "a/bias": -1, "b/kernel": -0.5}
    )
    trained, frozen = partition_frozen(params, OptimConfig(frozen_params="a/bias|b/.*"))
    assert [path for path, _ in flatten(trained)] == ["a/kernel"]
    assert dict(flatten(merge_trees(trained, frozen))).keys() == dict(flatten(params)).keys()


def test_gradients_are_clipped():
    params = {"a": np.zeros(4, np.float32)}
    config = OptimConfig(max_grad_norm=1.0, eps=1.0)
    # With so large an eps Adam's first step is the gradient over (its size + 1).
    result = update(config, params, {"a": np.full(4, 50.0, np.float32)})
    assert float(result["a"][0]) == pytest.approx(-0.5 / 1.5, abs=1e-4)


@pytest.mark.parametrize(
    ("pattern", "named"), [(".*", "freezes everything"), ("(", "is no regular expression")]
)
def test_bad_patterns_are_errors(pattern, named):
    config = OptimConfig(frozen_params=pattern)
    assert named in refusal(partition_frozen, {"a": np.zeros(1)}, config)
