"""The encoder at full width matches MATPAC++ in PyTorch, part by part."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle

from tinymu_jax.audio import log_mel as log_mel_module
from tinymu_jax.checkpoints.checkpoint import expected_shapes, init_params
from tinymu_jax.inference.chunked_encoding import encode_clips
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.models import attention, layers, matpac
from tinymu_jax.models.config import HeadConfig, MatpacConfig
from tinymu_jax.models.matpac import Matpac
from tinymu_jax.utils.tree import flatten

LENGTHS = {
    "one column": 800,  # 3 frames
    "3.2 s": 51_200,
    "one full chunk": 159_119,  # the most samples that give 992 frames
    "one frame more": 159_120,
    "10 s": 160_000,
    "two columns more": 161_680,
    "three columns more": 164_240,
    "two chunks and a column": 317_840,
    "21.3 s": 340_800,
}


def sound(length, seed=0):
    """Returns an amplitude-modulated tone over noise, so that every column differs."""
    time = np.arange(length) / 16_000
    swell = np.sin(2 * np.pi * 0.7 * time + seed) ** 2
    noise = np.random.default_rng(seed).standard_normal(length)
    return (0.3 * swell * np.sin(2 * np.pi * (300 + 200 * time) * time) + 0.02 * noise).astype("f4")


@pytest.fixture(scope="module")
def torch_encoder(port):
    """A full-width encoder of two blocks with random weights."""
    return port.randomise(oracle.Matpac(depth=2))


@pytest.fixture(scope="module")
def encoder(port, torch_encoder):
    """The same encoder: config and stacked parameters."""
    return port.matpac(torch_encoder)


@pytest.fixture(scope="module")
def block(encoder):
    """Returns the parameters of the first block."""
    config, params = encoder
    return config, jax.tree.map(lambda x: x[0], params["transformer"]["blocks"])


@pytest.fixture(scope="module")
def hidden():
    """Random inputs of a block, (2, 21, 768)."""
    return torch.randn(2, 21, 768, generator=torch.Generator().manual_seed(1))


def assert_close(made, expected, tolerance):
    np.testing.assert_allclose(made, expected.detach().numpy(), rtol=0, atol=tolerance)


# --- layers --------------------------------------------------------------------------------------


def test_layer_norm(torch_encoder, block, hidden):
    # A large mean is where a variance taken as E[x^2] - E[x]^2 would be off.
    x = hidden + 30
    made = layers.layer_norm(1e-6, "norm1").apply({"params": block[1]["norm1"]}, x.numpy())
    assert_close(made, torch_encoder.student_encoder.blocks[0].norm1(x), 1e-5)


def test_layer_norm_of_nearly_constant_vectors(torch_encoder, block):
    # Here the epsilon decides.
    x = torch.linspace(0, 1e-3, 768)[None]
    made = layers.layer_norm(1e-6, "norm1").apply({"params": block[1]["norm1"]}, x.numpy())
    assert_close(made, torch_encoder.student_encoder.blocks[0].norm1(x), 1e-5)


def test_mlp(torch_encoder, block, hidden):
    config, params = block
    made = matpac.Mlp(config).apply({"params": params["mlp"]}, jnp.asarray(hidden.numpy()))
    assert_close(made, torch_encoder.student_encoder.blocks[0].mlp(hidden), 1e-5)


def test_attention(torch_encoder, block, hidden):
    config, params = block
    made = matpac.SelfAttention(config).apply(
        {"params": params["attn"]}, jnp.asarray(hidden.numpy()), None
    )
    assert_close(made, torch_encoder.student_encoder.blocks[0].attn(hidden), 1e-5)


def test_attention_ignores_masked_keys(torch_encoder, block, hidden):
    config, params = block
    seen = np.arange(21)[None] < np.array([[21], [8]])
    mask = jnp.asarray(np.broadcast_to(seen[:, None], (2, 21, 21)))
    made = matpac.SelfAttention(config).apply(
        {"params": params["attn"]}, jnp.asarray(hidden.numpy()), mask
    )
    module = torch_encoder.student_encoder.blocks[0].attn
    assert_close(made[0], module(hidden[:1])[0], 1e-5)
    assert_close(made[1, :8], module(hidden[1:, :8])[0], 1e-5)


@pytest.mark.parametrize(("heads", "steps"), [(12, 1000), (5, 443)])
def test_attention_of_long_sequences_is_computed_by_heads(heads, steps):
    # More scores than fit in the cache: one head, or two heads of the five, at a time.
    assert attention.CACHED_SCORES // steps**2 < heads
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 1, heads, steps, 8)).astype(np.float32)
    mask = rng.random((1, 1, steps)) < 0.7
    made = jax.jit(attention.attend)(query.swapaxes(1, 2), key, value, mask)
    scores = np.where(mask[:, None], query @ key.swapaxes(2, 3) / 8**0.5, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (weights / weights.sum(-1, keepdims=True)) @ value
    expected = expected.swapaxes(1, 2).reshape(1, steps, heads * 8)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_block(torch_encoder, block, hidden):
    config, params = block
    made, remaining = matpac.Block(config, keep=True).apply(
        {"params": params}, jnp.asarray(hidden.numpy()), None, None
    )
    assert_close(made, torch_encoder.student_encoder.blocks[0](hidden), 1e-5)
    np.testing.assert_array_equal(made, remaining)


@pytest.mark.parametrize("columns", [62, 38, 13])
@pytest.mark.parametrize("width", [768, 32])
def test_positions_are_the_published_ones(columns, width):
    expected = oracle.sincos_positions(5, columns, width).numpy()
    np.testing.assert_array_equal(matpac.sincos_positions(5, columns, width), expected)


# --- the encoder ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("length", LENGTHS)
def test_every_length(torch_encoder, encoder, length):
    config, params = encoder
    samples = sound(LENGTHS[length])
    expected = torch_encoder(torch.from_numpy(samples)[None])
    made = encode_clips(params, [samples], config)[0]
    assert made.shape == expected.shape
    assert_close(made, expected, 1e-4)


@torch.no_grad()
def test_all_layers(torch_encoder, encoder):
    config, params = encoder
    samples = sound(160_000)
    made = encode_clips(params, [samples], config, all_layers=True)[0]
    assert made.shape == (2, 63, 3840)
    assert_close(made, torch_encoder.layers(torch.from_numpy(samples)[None])[0], 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("length", ["3.2 s", "21.3 s"])
def test_fast_chunking_interleaves_as_published(torch_encoder, encoder, length):
    config, params = encoder
    samples = sound(LENGTHS[length])
    made = encode_clips(params, [samples], config, "fast-interleaved")[0][0]
    assert_close(made, torch_encoder.fast(torch.from_numpy(samples)[None])[0], 1e-4)


def test_fast_chunking_in_time_order(encoder):
    config, params = encoder
    samples = sound(LENGTHS["21.3 s"])
    fast, precise = (encode_clips(params, [samples], config, c)[0][0] for c in ("fast", "precise"))
    # All but the last chunk are full either way.
    assert fast.shape == (3 * 62, 3840)
    np.testing.assert_allclose(fast[: 2 * 62], precise[: 2 * 62], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", ["3.2 s", "10 s"])
def test_shorter_chunks_of_self_supervised_encoders(port, length):
    model = port.randomise(oracle.Matpac(depth=1, n_t=608))
    config, params = port.matpac(model)
    assert config.columns == 38
    samples = sound(LENGTHS[length])
    made = encode_clips(params, [samples], config)[0]
    assert_close(made, model(torch.from_numpy(samples)[None]), 1e-4)


@pytest.mark.parametrize(
    ("layout", "all_layers"), [("unrolled", True), ("by_rows", False), ("by_rows", True)]
)
def test_other_layouts_give_the_same(port, encoder, layout, all_layers):
    config, params = encoder
    other = getattr(port, layout)(params, matpac.param_axes(config))
    qkv = other["transformer"]["blocks_1"]["attn"]["qkv"]
    assert set(qkv) == {"bias", "rows" if layout == "by_rows" else "kernel"}
    made, expected = (
        encode_clips(p, [sound(51_200)], config, all_layers=all_layers)[0] for p in (other, params)
    )
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_batched_clips_match_single_clips(encoder):
    config, params = encoder
    clips = [sound(length, seed) for seed, length in enumerate(LENGTHS.values())]
    together = encode_clips(params, clips, config)
    for clip, made in zip(clips, together, strict=True):
        alone = encode_clips(params, [clip], config)[0]
        assert made.shape == alone.shape
        np.testing.assert_allclose(made, alone, rtol=0, atol=1e-5)


@partial(jax.jit, static_argnames=("config", "num_chunks"))
def encode(params, columns, place=None, chunk=None, *, config, num_chunks=1):
    variables = {"params": params}
    return Matpac(config).apply(variables, columns, place, chunk, num_chunks=num_chunks)[0]


def log_mel_columns(samples):
    """Returns the log-mel in columns of 16 frames, the last filled with zeros: (1, A, 16, 80)."""
    log_mel = np.asarray(jax.jit(log_mel_module.log_mel)(samples))
    return np.pad(log_mel, ((0, -len(log_mel) % 16), (0, 0))).reshape(1, -1, 16, 80)


def test_padding_after_a_chunk_changes_nothing(encoder):
    config, params = encoder
    columns = log_mel_columns(sound(51_200))
    count = columns.shape[1]
    alone = encode(params, columns, config=config)
    padded = np.pad(columns, ((0, 0), (0, 4), (0, 0), (0, 0)), constant_values=7.0)
    place = np.arange(count + 4)[None]
    chunk = np.where(place < count, 0, -1)
    made = encode(params, padded, place, chunk, config=config)
    np.testing.assert_allclose(made[:, :count], alone, rtol=0, atol=1e-5)
    seen = encode(params, padded, place, np.zeros_like(chunk), config=config)
    assert np.abs(seen[:, :count] - alone).max() > 1e-2


def test_chunks_of_one_row_are_independent(encoder):
    config, params = encoder
    pieces = [log_mel_columns(sound(n, n)) for n in (9000, 5000, 9001)]
    counts = [piece.shape[1] for piece in pieces]
    chunk = np.repeat(np.arange(3), counts)[None]
    place = np.concatenate([np.arange(n) for n in counts])[None]
    row = np.concatenate(pieces, axis=1)
    made = encode(params, row, place, chunk, config=config, num_chunks=3)
    alone = [encode(params, piece, config=config) for piece in pieces]
    np.testing.assert_allclose(made, np.concatenate(alone, axis=1), rtol=0, atol=1e-5)


def test_frames_after_a_clip_are_zero(encoder):
    config, params = encoder
    samples = sound(4000)  # 23 frames: the second of two columns has 7 of its own
    made = encode_clips(params, [samples], config)[0][0]
    expected = encode(params, log_mel_columns(samples), config=config)[0]
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_bfloat16_is_close_but_not_equal(encoder):
    config, params = encoder
    samples = sound(51_200)
    exact = encode_clips(params, [samples], config)[0]
    rounded = encode_clips(params, [samples], replace(config, compute_dtype="bfloat16"))[0]
    assert rounded.dtype == jnp.float32
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 3e-2


# --- heads ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["audioset", "probe"])
def tagger(request, port):
    """Returns an oracle with a head, the config and the parameters."""
    options = {"audioset": {"audioset_head": True}, "probe": {"probe_classes": 20}}
    model = port.randomise(oracle.Matpac(depth=1, **options[request.param]))
    return model, *port.matpac(model)


@torch.no_grad()
def test_class_probabilities(tagger):
    model, config, params = tagger
    samples = sound(51_200)
    expected = model.class_probabilities(torch.from_numpy(samples)[None])[0].numpy()
    names = [f"class {i}" for i in range(len(expected))]
    made = dict(Embedder(config, params, names).tag(samples, top=None))
    assert set(made) == set(names)
    np.testing.assert_allclose([made[name] for name in names], expected, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_tags_come_most_probable_first(tagger):
    model, config, params = tagger
    samples = sound(51_200)
    expected = model.class_probabilities(torch.from_numpy(samples)[None])[0]
    made = Embedder(config, params).tag(samples, top=3)
    assert [name for name, _ in made] == [f"class {i}" for i in expected.topk(3).indices.tolist()]


def test_classification_ignores_padding(tagger):
    _, config, params = tagger
    vectors = jax.random.normal(jax.random.key(0), (1, 9, config.output_width))
    padded = jnp.pad(vectors, ((0, 0), (0, 4), (0, 0)), constant_values=5.0)
    classify = partial(Matpac(config).apply, {"params": params}, method="classify")
    made = classify(padded, jnp.arange(13)[None] < 9)
    np.testing.assert_allclose(made, classify(vectors), rtol=1e-5, atol=1e-8)


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [None, HeadConfig("audioset", 527), HeadConfig("probe", 20)])
def test_initialized_parameters_match_the_axes(head):
    config = MatpacConfig(width=32, depth=2, num_heads=2, head=head)
    assert {path for path, _ in flatten(expected_shapes(config))} == set(matpac.param_axes(config))


def test_initial_encoder():
    config = MatpacConfig(width=64, depth=2, num_heads=2)
    params = jax.jit(lambda: init_params(config, 0))()
    blocks = params["transformer"]["blocks"]
    kernels = {
        "patch_embed": (params["patch_embed"]["kernel"], 256 + 64),
        "qkv": (blocks["attn"]["qkv"]["kernel"], 64 + 192),
        "proj": (blocks["attn"]["proj"]["kernel"], 64 + 64),
        "fc1": (blocks["mlp"]["fc1"]["kernel"], 64 + 256),
        "fc2": (blocks["mlp"]["fc2"]["kernel"], 256 + 64),
    }
    for name, (kernel, fans) in kernels.items():
        limit = (6 / fans) ** 0.5  # Xavier's uniform
        assert 0.98 * limit < np.abs(kernel).max() <= limit, name
        np.testing.assert_allclose(kernel.std(), limit / 3**0.5, rtol=0.05, err_msg=name)
    biases = [leaf for path, leaf in flatten(params) if path.endswith("bias")]
    assert all((bias == 0).all() for bias in biases)
    np.testing.assert_allclose(params["cls_token"].std(), 0.02, rtol=0.3)
    expected = oracle.sincos_positions(5, 62, 64).numpy()
    np.testing.assert_array_equal(params["pos_embed"], expected)
    first, second = blocks["attn"]["qkv"]["kernel"]
    assert (first != second).any()


@pytest.mark.parametrize("remat", ["attention", "full"])
def test_remat_changes_no_gradient(remat):
    config = MatpacConfig(width=32, depth=3, num_heads=4, num_frames=64)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 32)), jnp.float32)
    params = matpac.Transformer(config).init(jax.random.key(0), x, None, False)

    def slopes(kind):
        transformer = matpac.Transformer(replace(config, remat=kind))

        def total(params, x):
            return jnp.sum(jnp.sin(transformer.apply(params, x, None, False)))

        slope = jax.grad(total, (0, 1))
        return jax.jit(slope)(params, x), str(jax.make_jaxpr(slope)(params, x)).count("= erf ")

    (remaining, once), (again, twice) = slopes("none"), slopes(remat)
    assert (once, twice) == (1, 2), "GELU is computed on the way there, and on the way back"
    for a, b in zip(*map(jax.tree.leaves, (again, remaining)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
