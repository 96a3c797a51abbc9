"""Loss and gradient of packed questions equal those of the padded torch model."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.checkpoints.pytorch import tinymu
from tinymu_jax.checkpoints.pytorch.key_map import from_state_dict
from tinymu_jax.inference.chunked_encoding import encode_clips
from tinymu_jax.models.packing import PackedGroup, PackedQuestion, PackingConfig, build_block
from tinymu_jax.training import losses
from tinymu_jax.training.losses import sum_loss
from tinymu_jax.utils.tree import flatten

CLIPS = ["mono_44k_3p2s", "stereo_48k_11s"]


@pytest.fixture(scope="module")
def published(golden_dir):
    """The golden model in PyTorch, its encoder frozen."""
    module = oracle.build_tinymu(json.loads((golden_dir / "tinymu_tiny.json").read_text()))
    state = torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"]
    module.load_state_dict(state, strict=True)
    module.audio_encoder.requires_grad_(False)
    return module


def asked(questions):
    """Questions for each clip; among them a "!", an answer that is cut, and a full prompt."""
    rng = np.random.default_rng(questions)

    def one(number):
        prompt = rng.integers(20, 500, 129 if number == 2 else rng.integers(1, 30)).tolist()
        answer = rng.integers(20, 500, 140 if number == 1 else rng.integers(1, 25)).tolist()
        if number == 0:
            answer.insert(1, 17)
        return prompt, answer

    return [[one(number) for number in range(questions)] for _ in CLIPS]


def published_step(model, waveforms, questions, ignore_bang):
    """Returns loss and gradient, the mean over all answer tokens, of questions one by one."""
    model.zero_grad()
    total, count = 0.0, 0
    for waveform, local in zip(waveforms, questions, strict=True):
        for prompt, answer in local:
            labels = [*answer, 0] if len(answer) < 129 else answer[:129]
            number = sum(label != 17 or not ignore_bang for label in labels)
            loss = model.loss(torch.from_numpy(waveform), prompt, answer, ignore_bang) * number
            loss.backward()
            total, count = total + loss.item(), count + number
    gradients = {
        key: np.zeros(weight.shape, np.float32) if weight.grad is None else weight.grad.numpy()
        for key, weight in model.state_dict(keep_vars=True).items()
    }
    return total / count, {key: value / count for key, value in gradients.items()}


def packed(questions, rows, config):
    """Packs two clips' questions as a plan might: a row each, or both in one; two blocks."""
    packing = PackingConfig(row_length=2400, rows=rows, max_clips=2, max_labels=1200)
    cut = [
        [
            PackedQuestion(prompt, [*answer, 0] if len(answer) < 129 else answer[:129])
            for prompt, answer in local
        ]
        for local in questions
    ]
    half = (len(cut[1]) + 1) // 2
    first = [PackedGroup(0, 0, 20, cut[0]), PackedGroup(rows - 1, 1, 63, cut[1][:half])]
    # The other clip's remaining questions hear it once more, in a block of their own.
    second = [PackedGroup(0, 1, 63, cut[1][half:])] if cut[1][half:] else []
    blocks = [build_block(placed, packing, config) for placed in (first, second)]
    return jax.tree.map(lambda *x: np.stack(x), *blocks)


@pytest.mark.parametrize(
    ("questions", "rows", "ignore", "attention"),
    [
        (1, 1, True, "reference"),
        (3, 2, False, "reference"),
        (7, 1, True, "reference"),
        # The kernel for TPUs, interpreted.
        (1, 2, False, "flash"),
        (7, 2, False, "flash"),
    ],
)
def test_gradients_equal_those_of_the_padded_step(
    published, golden, golden_checkpoint, monkeypatch, questions, rows, ignore, attention
):
    monkeypatch.setattr(losses, "CHUNK", 100)
    config = golden_checkpoint.config
    decoder = replace(config.decoder, attention=attention)
    config = replace(config, ignore_pad_labels=ignore, decoder=decoder)
    waveforms = [golden[f"{clip}/waveform"] for clip in CLIPS]
    texts = asked(questions)
    loss, gradients = published_step(published, waveforms, texts, ignore)
    expected = from_state_dict(
        gradients, tinymu.rules(config), expected_shapes(config), "gradients", tinymu.TIES
    )

    encoder = golden_checkpoint.params["encoder"]
    result = [x[0] for x in encode_clips(encoder, waveforms, config.encoder)]
    vectors = np.zeros((2, 2, 63, result[0].shape[-1]), np.float32)
    for clip, local in enumerate(result):
        vectors[:, clip, : len(local)] = local
    num_vectors = np.array([[len(local) for local in result]] * 2)
    assert num_vectors[0].tolist() == [20, 63]
    blocks = packed(texts, rows, config)
    trained = {part: golden_checkpoint.params[part] for part in ("projector", "decoder")}

    @jax.jit
    def step(params, *batch):
        def mean(params):
            summed = sum_loss(params, *batch, config)
            return summed.loss_sum / summed.num_targets

        return jax.value_and_grad(mean)(params)

    value, gradient = step(trained, vectors, num_vectors, blocks)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    for path, leaf in flatten(gradient):
        target = dict(flatten(expected))[path]
        largest = np.abs(target).max()
        assert largest > 0
        assert np.abs(leaf - target).max() / largest < 1e-5, path
