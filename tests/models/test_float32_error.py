"""Errors of float32 against float64, beside PyTorch's own on the same inputs."""

import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.data.label_batches import HEAD
from tinymu_jax.evaluation.probe.probe import _loss as probe_loss
from tinymu_jax.inference.chunked_encoding import encode_clips, project
from tinymu_jax.models import smollm2
from tinymu_jax.models.config import SmolLM2Config
from tinymu_jax.models.matpac_ssl.losses import prediction_losses
from tinymu_jax.models.smollm2 import SmolLM2
from tinymu_jax.training.tasks.tagger import LabelTask, TagTask

PROMPTS, TOKENS = 50, 100
CLIPS, SAMPLES = ["stereo_48k_11s", "mono_44k_3p2s"], 51_200


@pytest.fixture(scope="module")
def models(golden_dir):
    """The golden checkpoint in PyTorch, in float32 and in float64."""
    sizes = json.loads((golden_dir / "tinymu_tiny.json").read_text())
    model = oracle.build_tinymu(sizes)
    model.load_state_dict(torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"])
    return model, oracle.to_float64(model)


def error(made, exact):
    return np.abs(np.asarray(made, np.float64) - exact).max()


# --- RoPE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("head_width", "theta"), [(12, 1e5), (64, 1e5), (64, 1.3e5), (64, 1e4)])
def test_rotations_are_those_of_transformers_at_every_position(head_width, theta):
    # transformers multiplies position and frequency in float32, up to 2e-3 from the exact angle;
    # the published answers come from these angles.
    config = SmolLM2Config(head_width=head_width, rope_theta=theta)
    positions = np.arange(8192)
    reference = LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=head_width,
            num_attention_heads=1,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
    )(torch.zeros(1), torch.from_numpy(positions[None]))
    made = jax.jit(smollm2.rope_angles, static_argnums=1)(jnp.asarray(positions[None]), config)
    for actual, expected in zip(made, reference, strict=True):
        # A frequency may be rounded otherwise: 2**-24 of an angle of up to 8192.
        assert error(actual[0, :, 0], expected[0, :, : head_width // 2].numpy()) < 5e-4
        assert error(actual[0, :512, 0], expected[0, :512, : head_width // 2].numpy()) < 4e-5


# --- decoder -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 512, (PROMPTS, TOKENS))


@torch.no_grad()
def torch_logits(model, tokens, positions):
    ids, positions = torch.from_numpy(tokens), torch.from_numpy(positions)
    lm = model.text_decoder.lm
    return lm(input_ids=ids, position_ids=positions, use_cache=False).logits.numpy()


@partial(jax.jit, static_argnames="config")
def whole(params, tokens, positions, config):
    """Returns the logits of whole sequences, computed in one pass."""
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((TOKENS, TOKENS), bool)), (PROMPTS, TOKENS, TOKENS))

    def run(decoder):
        return decoder.logits(decoder(decoder.embed(tokens), positions, mask)[0])

    return SmolLM2(config).apply({"params": params}, method=run)


@partial(jax.jit, static_argnames="config")
def token_by_token(params, tokens, positions, config):
    """Returns the same logits, computed with a key/value cache as in generation."""

    def step(cache, inputs):
        index, token, position = inputs
        mask = jnp.broadcast_to(jnp.arange(TOKENS) <= index, (PROMPTS, 1, TOKENS))

        def run(decoder):
            x = decoder.embed(token[:, None])
            hidden, new = decoder(x, position[:, None], mask, cache, index)
            return new, decoder.logits(hidden[:, 0])

        return SmolLM2(config).apply({"params": params}, method=run)

    empty = jnp.zeros((PROMPTS * config.num_kv_heads, TOKENS, config.head_width))
    inputs = jnp.arange(TOKENS), tokens.T, positions.T
    logits = jax.lax.scan(step, [(empty, empty)] * config.depth, inputs)[1]
    return logits.swapaxes(0, 1)


@pytest.mark.parametrize("first", [0, 390], ids=["prompt", "end of a long answer"])
@pytest.mark.parametrize("forward", [whole, token_by_token])
def test_logits_err_at_most_twice_as_much_as_in_pytorch(models, assistant, tokens, forward, first):
    # After 10 s of audio and the prompt, the last of 300 answer tokens has position 492.
    positions = np.tile(first + np.arange(TOKENS), (PROMPTS, 1))
    single, exact = (torch_logits(model, tokens, positions) for model in models)
    arrays = (jnp.asarray(x, jnp.int32) for x in (tokens, positions))
    made = forward(assistant.params["decoder"], *arrays, assistant.config.decoder)
    assert error(made, exact) <= 2 * error(single, exact)


# --- audio ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_audio_vectors_err_at_most_twice_as_much_as_in_pytorch(models, golden, assistant):
    params, config, errors = assistant.params, assistant.config, []
    for clip in CLIPS:
        samples = golden[f"{clip}/waveform"][:SAMPLES]
        waveform = torch.from_numpy(samples)[None]
        single, exact = (
            [model.audio_encoder.enc.log_mel(waveform)[0].T.numpy()]
            + [part(waveform)[0].numpy() for part in (model.audio_encoder, model.audio)]
            for model in models
        )
        (vectors,) = encode_clips(params["encoder"], [samples], config.encoder)[0]
        projected, count = project({"projector": params["projector"]}, vectors, config)
        made = [jax.jit(log_mel)(samples), vectors, projected[:count]]
        errors.append([list(map(error, x, exact)) for x in (made, single)])
    made, single = np.max(errors, axis=0)
    assert (made <= 2 * single).all(), (made, single)


# --- products on other devices -------------------------------------------------------------------

SHAPE = partial(jax.ShapeDtypeStruct, dtype=np.float32)
LINEAR = {"kernel": SHAPE((8, 5)), "bias": SHAPE((5,))}


def tag_head(params):
    means, labels = jnp.ones((4, 8)), jnp.ones((4, 5))
    return TagTask.head_loss(None, {"head": {"linear": params}}, means, labels, None).loss_sum


def label_head(params):
    task, labels = SimpleNamespace(num_values=[3, 2]), jnp.ones((4, 2), jnp.int32)
    return LabelTask.head_loss(task, {HEAD: params}, jnp.ones((4, 8)), labels, None).loss_sum


def probe(params):
    known = jnp.ones((4, 5), bool)
    return probe_loss((params["kernel"], params["bias"]), jnp.ones((4, 8)), known, known, True)


def pretraining(predictions):
    return prediction_losses(predictions, jnp.ones((1, 2, 4))).sum()


LOSSES = [
    *((loss, LINEAR) for loss in (tag_head, label_head, probe)),
    (pretraining, SHAPE((1, 2, 5, 4))),
]


@pytest.mark.parametrize(("loss", "params"), LOSSES, ids=[loss.__name__ for loss, _ in LOSSES])
def test_products_of_losses_are_in_float32_on_every_device(loss, params):
    # By default a TPU computes float32 products in bfloat16, and a GPU in TensorFloat-32.
    text = jax.jit(jax.grad(loss)).lower(params).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert [line for line in products if "HIGHEST" not in line] == []
