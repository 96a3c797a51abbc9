"""Errors of float32 against float64, beside PyTorch's own on the same inputs."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle

from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.inference.chunked_encoding import encode_clips, project
from tinymu_jax.models import smollm2
from tinymu_jax.models.config import SmolLM2Config
from tinymu_jax.models.smollm2 import SmolLM2

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
def test_rotation_angles_are_exact_at_every_position(head_width, theta):
    # A product of position and frequency in float32 is up to 2e-3 away.
    config = SmolLM2Config(head_width=head_width, rope_theta=theta)
    positions = np.arange(65_536)
    frequencies = theta ** (-np.arange(0, head_width, 2) / head_width)
    angles = positions[:, None] * frequencies
    made = jax.jit(smollm2.rope_angles, static_argnums=1)(jnp.asarray(positions[None]), config)
    for actual, exact in zip(made, (np.cos(angles), np.sin(angles)), strict=True):
        assert error(actual[0, :, 0], exact) < 2e-7


# --- decoder -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 512, (PROMPTS, TOKENS))


@pytest.fixture(scope="module")
def exact_logits(models, tokens):
    """Logits in float64, and the largest error of PyTorch's float32."""
    with torch.no_grad():
        single, exact = (
            model.text_decoder.lm(
                input_ids=torch.from_numpy(tokens), use_cache=False
            ).logits.numpy()
            for model in models
        )
    return exact, error(single, exact)


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
def test_logits_err_at_most_twice_as_much_as_in_pytorch(
    assistant, tokens, exact_logits, forward, first
):
    # Exact logits depend on differences of positions alone: so should the error. After 10 s of
    # audio and the prompt, the last of 300 answer tokens has position 492.
    exact, limit = exact_logits[0], 2 * exact_logits[1]
    positions = np.broadcast_to(first + np.arange(TOKENS), tokens.shape)
    arrays = (jnp.asarray(x, jnp.int32) for x in (tokens, positions))
    made = forward(assistant.params["decoder"], *arrays, assistant.config.decoder)
    assert error(made, exact) <= limit


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
