"""The decoder at full width matches transformers' Llama, part by part."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.inference.param_layout import by_rows, quantize, unstack
from tinymu_jax.models import layers, matmul, smollm2
from tinymu_jax.models.config import SMOLLM2_PRESETS, SmolLM2Config, smollm2_preset
from tinymu_jax.models.smollm2 import SmolLM2, extend_cache
from tinymu_jax.utils.tree import flatten, unflatten

BATCH, STEPS = 2, 21


@pytest.fixture(scope="module")
def llama(port):
    """A Llama of SmolLM2-135M's width, two layers, random weights."""
    lm = oracle.build_llama(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=2,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=1000,
        head_dim=64,
    )
    return port.randomise(lm)


@pytest.fixture(scope="module")
def decoder(port, llama):
    """The same decoder: config and stacked parameters."""
    return port.decoder(llama)


@pytest.fixture(scope="module")
def layouts(port, decoder):
    """The same parameters in every equivalent layout."""
    config, params = decoder
    unrolled = port.unrolled(params, smollm2.param_axes(config))
    rows = port.by_rows(params, smollm2.param_axes(config))
    assert "layers_1" in rows["body"]
    assert "rows" in rows["body"]["layers_1"]["attn"]["qkv"]["joined"]
    return {"stacked": params, "unrolled": unrolled, "rows": rows}


@pytest.fixture(scope="module")
def embedded():
    """Random inputs of a layer."""
    x = np.random.default_rng(0).standard_normal((BATCH, STEPS, 576))
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def positions():
    """Positions with gaps, different in each of two rows."""
    first = [*range(8), 20, 21, *range(139, 150)]
    second = [*range(3), *range(12, 24), 141, *range(200, 205)]
    return np.array([first, second])


@pytest.fixture(scope="module")
def mask():
    """A causal mask with two masked keys in the second row."""
    mask = np.tril(np.ones((BATCH, STEPS, STEPS), bool))
    mask[1, :, 5:7] = False
    return mask


def additive(mask):
    """Returns the mask in transformers' format."""
    return torch.from_numpy(np.where(mask, 0, -1e30).astype(np.float32))[:, None]


@partial(jax.jit, static_argnames="config")
def run(params, x, positions, mask, cache, slot, config):
    """Returns hidden states, cache and logits."""

    def whole(model):
        hidden, new = model(x, positions, mask, cache, slot)
        return hidden, new, model.logits(hidden)

    return SmolLM2(config).apply({"params": params}, method=whole)


def assert_close(made, target, tolerance):
    target = target.detach().numpy() if isinstance(target, torch.Tensor) else target
    np.testing.assert_allclose(made, target, rtol=0, atol=tolerance)


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
def test_rms_norm(llama, decoder, embedded, scale):
    # At the small scale the epsilon decides.
    params = jax.tree.map(lambda x: x[0], decoder[1]["body"]["layers"]["input_norm"])
    x = (scale * embedded).astype(np.float32)
    made = layers.RMSNorm(1e-5).apply({"params": params}, jnp.asarray(x))
    assert_close(made, llama.model.layers[0].input_layernorm(torch.from_numpy(x)), 1e-5)


def test_rotary_positions(llama, decoder, positions):
    config, _ = decoder
    query, key = (torch.randn(BATCH, STEPS, n, 64) for n in (9, 3))
    angles = smollm2.rope_angles(jnp.asarray(positions), config)
    turned = llama.model.rotary_emb(query, torch.from_numpy(positions))
    target = apply_rotary_pos_emb(query, key, *turned, unsqueeze_dim=2)
    for x, want in zip((query, key), target, strict=True):
        assert_close(smollm2.rotate(jnp.asarray(x.numpy()), *angles), want, 1e-4)


@torch.no_grad()
def test_attention(llama, decoder, embedded, positions, mask):
    config, params = decoder
    first = jax.tree.map(lambda x: x[0], params["body"]["layers"]["attn"])
    angles = smollm2.rope_angles(jnp.asarray(positions), config)
    made, _ = smollm2.Attention(config).apply(
        {"params": first}, jnp.asarray(embedded), None, angles, jnp.asarray(mask), jnp.int32(0)
    )
    x = torch.from_numpy(embedded)
    turned = llama.model.rotary_emb(x, torch.from_numpy(positions))
    attention = llama.model.layers[0].self_attn
    target, _ = attention(x, position_embeddings=turned, attention_mask=additive(mask))
    assert_close(made, target, 1e-5)


@torch.no_grad()
def test_mlp(llama, decoder, embedded):
    config, params = decoder
    first = jax.tree.map(lambda x: x[0], params["body"]["layers"]["mlp"])
    made = smollm2.GatedMlp(config).apply({"params": first}, jnp.asarray(embedded))
    assert_close(made, llama.model.layers[0].mlp(torch.from_numpy(embedded)), 1e-5)


# --- the decoder ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("layout", ["stacked", "rows"])
def test_logits_of_tokens(llama, decoder, layouts, layout):
    config, _ = decoder
    tokens = np.random.default_rng(1).integers(0, 1000, (BATCH, STEPS))
    target = llama(input_ids=torch.from_numpy(tokens), use_cache=False).logits

    def whole(model):
        places = jnp.broadcast_to(jnp.arange(STEPS), tokens.shape)
        causal = jnp.broadcast_to(jnp.tri(STEPS, dtype=bool), (BATCH, STEPS, STEPS))
        return model.logits(model(model.embed(jnp.asarray(tokens)), places, causal)[0])

    made = SmolLM2(config).apply({"params": layouts[layout]}, method=whole)
    assert_close(made, target, 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["stacked", "unrolled", "rows"])
def test_explicit_positions_and_masks(llama, decoder, layouts, embedded, positions, mask, layout):
    config, _ = decoder
    hidden, _, logits = run(layouts[layout], embedded, positions, mask, None, 0, config)
    out = llama(
        inputs_embeds=torch.from_numpy(embedded),
        position_ids=torch.from_numpy(positions),
        attention_mask=additive(mask),
        use_cache=False,
        output_hidden_states=True,
    )
    assert_close(hidden, out.hidden_states[-1], 1e-4)
    assert_close(logits, out.logits, 1e-4)


def test_positions_matter(decoder, embedded, positions, mask):
    config, params = decoder
    contiguous = np.broadcast_to(np.arange(STEPS), positions.shape)
    made, target = (
        run(params, embedded, p, mask, None, 0, config)[0] for p in (positions, contiguous)
    )
    assert np.abs(made - target).max() > 0.1


@pytest.mark.parametrize(
    ("layout", "step"), [("stacked", 1), ("unrolled", 1), ("rows", 1), ("rows", 4)]
)
def test_cached_decoding_equals_the_full_pass(
    decoder, layouts, embedded, positions, mask, layout, step
):
    config, _ = decoder
    params, prefix = layouts[layout], 9
    whole, _, _ = run(params, embedded, positions, mask, None, 0, config)
    hidden, cache, _ = run(
        params,
        embedded[:, :prefix],
        positions[:, :prefix],
        mask[:, :prefix, :prefix],
        None,
        0,
        config,
    )
    cache = extend_cache(cache, STEPS - prefix)
    pieces = [hidden]
    for start in range(prefix, STEPS, step):
        span = slice(start, start + step)
        hidden, cache, _ = run(
            params, embedded[:, span], positions[:, span], mask[:, span], cache, start, config
        )
        pieces.append(hidden)
    made = np.concatenate(pieces, axis=1)
    assert made.shape == whole.shape
    np.testing.assert_allclose(made, whole, rtol=0, atol=1e-4)


def test_extending_the_cache_keeps_its_content(decoder, layouts, embedded, positions, mask):
    config, _ = decoder
    for params in layouts.values():
        _, cache, _ = run(params, embedded, positions, mask, None, 0, config)
        for old, new in zip(*map(jax.tree.leaves, (cache, extend_cache(cache, 5))), strict=True):
            assert new.shape[-2] == STEPS + 5
            np.testing.assert_array_equal(new[..., :STEPS, :], old)
            assert (new[..., STEPS:, :] == 0).all()


def test_bfloat16_is_close_but_not_equal(decoder, embedded, positions, mask):
    from dataclasses import replace

    config, params = decoder
    exact, _, _ = run(params, embedded, positions, mask, None, 0, config)
    rounded = replace(config, compute_dtype="bfloat16")
    made, _, _ = run(params, embedded, positions, mask, None, 0, rounded)
    assert made.dtype == jnp.float32
    error = np.linalg.norm(made - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 3e-2


# --- layouts -------------------------------------------------------------------------------------


def test_unstacking_splits_the_layers(decoder):
    config, params = decoder
    axes, count = smollm2.param_axes(config), 0
    unstacked = dict(flatten(unstack(params, axes)))
    for path, leaf in flatten(params):
        layers = enumerate(leaf) if axes[path][0] == "layers" else [(None, leaf)]
        for number, expected in layers:
            name = path if number is None else path.replace("layers/", f"layers_{number}/")
            np.testing.assert_array_equal(unstacked[name], expected, err_msg=name)
            count += 1
    assert len(unstacked) == count


def test_quantised_rows_are_within_half_a_step():
    rows = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    rows[7] = 0
    quantised, scale = quantize(rows)
    assert quantised.dtype == np.int8
    np.testing.assert_array_equal(np.abs(quantised[:7]).max(axis=1), 127)
    steps = np.abs(quantised * scale[:, None] - rows) / scale[:, None]
    assert steps.max() <= 0.5001
    assert np.isfinite(scale).all()


@pytest.fixture(scope="module")
def int8(decoder):
    """The int8 layout, and the same rounded weights in float32."""
    config, params = decoder
    made = by_rows(unstack(params, smollm2.param_axes(config)), "int8")
    leaves = dict(flatten(made))
    assert leaves["embed_tokens/rows"].dtype == np.int8
    exact = {}
    for path, leaf in leaves.items():
        scale = leaves.get(path.replace("/rows", "/scale"))
        if path.endswith("/rows"):
            name = "embedding" if path.startswith("embed_tokens") else "rows"
            exact[path.replace("rows", name)] = leaf.astype(np.float32) * scale[:, None]
        elif not path.endswith("/scale") or path.endswith("norm/scale"):
            exact[path] = leaf
    return tuple(jax.tree.map(jnp.asarray, tree) for tree in (made, unflatten(exact)))


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (2, 1), (2, 20)])
def test_int8_matches_its_rounded_weights(decoder, int8, embedded, positions, mask, batch, steps):
    config, _ = decoder
    x, places = embedded[:batch, :steps], positions[:batch, :steps]
    seen = mask[:batch, :steps, :steps]
    (hidden, _, logits), (exact_hidden, _, exact_logits) = (
        run(params, x, places, seen, None, 0, config) for params in int8
    )
    np.testing.assert_allclose(hidden, exact_hidden, rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits, exact_logits, rtol=0, atol=1e-4)


def test_int8_embeddings_are_the_rounded_rows(decoder, int8):
    config, _ = decoder
    tokens = jnp.arange(1000)[None]
    made, target = (
        SmolLM2(config).apply({"params": params}, tokens, method="embed") for params in int8
    )
    np.testing.assert_allclose(made, target, rtol=1e-6)


def test_int8_differs_from_float32(decoder, layouts, int8, embedded, positions, mask):
    config, _ = decoder
    exact, rounded = (
        run(params, embedded, positions, mask, None, 0, config)[0]
        for params in (layouts["rows"], int8[0])
    )
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 3e-2


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(3, 5, 64), (1, 1, 64), (64,)])
def test_int8_products_keep_six_digits(shape, scale):
    rng = np.random.default_rng(0)
    x = (scale * rng.standard_normal(shape)).astype(np.float32)
    rows = rng.integers(-127, 128, (32, 64)).astype(np.int8)
    unit = rng.uniform(0.5, 2, 32).astype(np.float32)
    made = matmul.int8_matmul(jnp.asarray(x), jnp.asarray(rows), jnp.asarray(unit))
    target = x.astype(np.float64) @ (rows * unit[:, None]).T.astype(np.float64)
    largest = np.abs(target).max()
    np.testing.assert_allclose(made / largest, target / largest, rtol=0, atol=1e-6)


def test_int8_product_of_zeros_is_zero():
    made = matmul.int8_matmul(jnp.zeros((2, 8)), jnp.ones((4, 8), jnp.int8), jnp.ones(4))
    np.testing.assert_array_equal(made, 0)


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [("SmolLM2-135M", 134_515_008), ("SmolLM2-360M", 361_821_120), ("SmolLM2-1.7B", 1_711_376_384)],
)
def test_presets_have_the_published_number_of_parameters(name, count):
    shapes = expected_shapes(SMOLLM2_PRESETS[name])
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_presets_by_hub_name():
    preset = SMOLLM2_PRESETS["SmolLM2-360M"]
    assert smollm2_preset("HuggingFaceTB/SmolLM2-360M") is preset
    assert smollm2_preset("HuggingFaceTB/SmolLM2-360M-Instruct") is preset
    assert smollm2_preset("elsewhere/OtherLM") is None


def test_initialized_parameters_match_the_axes():
    config = SmolLM2Config(vocab_size=32, width=16, depth=2, num_heads=2, num_kv_heads=1)
    assert {path for path, _ in flatten(expected_shapes(config))} == set(smollm2.param_axes(config))
