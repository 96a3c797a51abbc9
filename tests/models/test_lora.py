"""LoRA: outputs, gradients and merging match an independent torch model."""

import dataclasses
import json
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers import check_axes, refusal
from oracles import torch_modules as oracle
from training.test_losses import CLIPS, published_step

from tinymu_jax.checkpoints.checkpoint import (
    Checkpoint,
    expected_shapes,
    init_params,
    read_checkpoint,
    save_checkpoint,
)
from tinymu_jax.checkpoints.pytorch import tinymu as tinymu_files
from tinymu_jax.checkpoints.pytorch.key_map import from_state_dict
from tinymu_jax.data.loader import Batch
from tinymu_jax.inference.chunked_encoding import encode_clips
from tinymu_jax.mesh import MeshConfig, make_mesh, weight_shardings
from tinymu_jax.models import smollm2, tinymu
from tinymu_jax.models.config import (
    LORA_TARGETS,
    LoraConfig,
    ProjectorConfig,
    SmolLM2Config,
    TinyMUConfig,
)
from tinymu_jax.models.layers import JointDense, run_layers
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS, add_lora, merge_lora
from tinymu_jax.models.packing import PackedGroup, PackedQuestion, PackingConfig, build_block
from tinymu_jax.training.config import OptimConfig
from tinymu_jax.training.optim import make_optimizer, partition_frozen
from tinymu_jax.training.tasks.finetune import answer_loss
from tinymu_jax.training.train_step import init_state, make_train_step
from tinymu_jax.utils.tree import flatten, unflatten

LORA = LoraConfig(rank=4, alpha=6.0)
EVERYWHERE = dataclasses.replace(LORA, targets=LORA_TARGETS)
FIRST = "decoder/body/layers/attn/qkv/q_proj"


def with_lora(checkpoint, lora):
    """Returns parameters and config with adapters whose B is not zero."""
    params, config = add_lora(checkpoint.params, checkpoint.config, lora, seed=1)
    rng, leaves = np.random.default_rng(2), dict(flatten(params))
    for path, leaf in leaves.items():
        if path.endswith("lora/b"):
            leaves[path] = 0.1 * rng.standard_normal(leaf.shape, np.float32)
    return unflatten(leaves), config


def is_lora(path):
    return "/lora/" in path


# --- the oracle ----------------------------------------------------------------------------------


class LoraLinear(torch.nn.Module):
    """A frozen torch linear layer with an adapter, written from the paper."""

    def __init__(self, linear, a, b, scale):
        super().__init__()
        self.weight, self.scale = linear.weight, scale
        self.lora_a = torch.nn.Parameter(torch.tensor(a.T))
        self.lora_b = torch.nn.Parameter(torch.tensor(b.T))

    def forward(self, x):
        whole = x @ self.weight.T
        return whole + self.scale * ((x @ self.lora_a.T) @ self.lora_b.T)


def build_published(golden_dir):
    """The golden model in PyTorch."""
    module = oracle.build_tinymu(json.loads((golden_dir / "tinymu_tiny.json").read_text()))
    state = torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"]
    module.load_state_dict(state, strict=True)
    return module


def adapt(lm, params, lora):
    """Freezes a decoder and adds the adapters of our tree to its layers."""
    lm.requires_grad_(False)
    for path, a in flatten(params):
        if path.endswith("lora/a"):
            b = dict(flatten(params))[path[:-1] + "b"]
            part, name = path.split("/")[3], path.split("/")[-3]
            for n, layer in enumerate(lm.model.layers):
                parent = layer.self_attn if part == "attn" else layer.mlp
                scale = lora.alpha / lora.rank
                setattr(parent, name, LoraLinear(getattr(parent, name), a[n], b[n], scale))
    return lm


@partial(jax.jit, static_argnames="config")
def logits_of(params, config):
    """Returns the decoder's logits for the tokens at positions 0, 1, ...."""

    def whole(model):
        steps = TOKENS.shape[1]
        places = jnp.broadcast_to(jnp.arange(steps), TOKENS.shape)
        causal = jnp.broadcast_to(jnp.tri(steps, dtype=bool), (len(TOKENS), steps, steps))
        return model.logits(model(model.embed(jnp.asarray(TOKENS)), places, causal)[0])

    model = smollm2.SmolLM2(config.decoder)
    return model.apply({"params": params["decoder"]}, method=whole)


TOKENS = np.random.default_rng(0).integers(0, 64, (2, 21))


def build_llama(port):
    """A small decoder in PyTorch."""
    return port.randomise(
        oracle.build_llama(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=64,
            head_dim=8,
        )
    )


@pytest.fixture(scope="module")
def small(port):
    """The small decoder in our layout, as part of a full model."""
    config, params = port.decoder(build_llama(port))
    whole = TinyMUConfig(projector=ProjectorConfig(output_width=32), decoder=config)
    return Checkpoint(whole, jax.tree.map(np.asarray, {"decoder": params}))


@torch.no_grad()
@pytest.mark.parametrize("lora", [LORA, EVERYWHERE], ids=["published", "everywhere"])
def test_logits_match_an_independent_model(port, small, lora):
    params, config = with_lora(small, lora)
    lm = adapt(build_llama(port), params, lora)
    expected = lm(input_ids=torch.from_numpy(TOKENS), use_cache=False).logits
    made = logits_of(params, config)
    np.testing.assert_allclose(made, expected.numpy(), rtol=0, atol=1e-5)
    without = logits_of(small.params, small.config)
    assert np.abs(made - without).max() > 0.1


# --- the training step ---------------------------------------------------------------------------

PACKING = PackingConfig(row_length=128, rows=2, max_clips=3, max_labels=80)
KEEP = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradient, _, params: (jax.tree.map(jnp.zeros_like, gradient), gradient),
)
"""An optimizer without updates whose state is the gradient."""


def asked(questions):
    """Questions for each clip; among them a "!"."""
    rng = np.random.default_rng(questions)

    def one(number):
        prompt, answer = (rng.integers(20, 500, rng.integers(1, 5)).tolist() for _ in range(2))
        return prompt, ([17, *answer] if number == 0 else answer)

    return [[one(number) for number in range(questions)] for _ in CLIPS]


def packed(texts, sizes, config):
    """Packs two clips' questions into two blocks; the second clip is used by both."""
    cut = [[PackedQuestion(prompt, [*answer, 0]) for prompt, answer in local] for local in texts]
    half = (len(cut[1]) + 1) // 2
    first = [PackedGroup(0, 0, sizes[0], cut[0]), PackedGroup(1, 1, sizes[1], cut[1][:half])]
    second = [PackedGroup(0, 1, sizes[1], cut[1][half:])] if cut[1][half:] else []
    blocks = [build_block(placed, PACKING, config) for placed in (first, second)]
    return jax.tree.map(lambda *x: np.stack(x), *blocks)


@pytest.fixture(scope="module")
def waveforms(golden):
    return [golden[f"{clip}/waveform"] for clip in CLIPS]


@pytest.fixture(scope="module")
def make_batch(golden_checkpoint, waveforms):
    """A function that packs questions about two clips, stored as embeddings."""
    config = golden_checkpoint.config
    result = [
        x[0] for x in encode_clips(golden_checkpoint.params["encoder"], waveforms, config.encoder)
    ]
    features = np.zeros((2, 3, 63, result[0].shape[-1]), np.float32)
    lengths = np.array([[*map(len, result), 0]] * 2)
    for clip, local in enumerate(result):
        features[:, clip, : len(local)] = local

    def make(texts):
        return Batch(features, lengths, np.zeros((2, 3), int), packed(texts, lengths[0], config))

    return make


def wanted_gradients(gradients, config):
    """Converts torch's gradients of the projector and the adapters to our layout."""
    base = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, lora=None))
    plain = {key: value for key, value in gradients.items() if "lora_" not in key}
    actual = from_state_dict(
        plain, tinymu_files.rules(base), expected_shapes(base), "gradients", tinymu_files.TIES
    )
    result = {f"projector/{path}": leaf for path, leaf in flatten(actual["projector"])}
    for path, axes in tinymu.param_axes(config).items():
        if is_lora(path):
            part, name = path.split("/")[3], path.split("/")[-3]
            parent = "self_attn" if part == "attn" else "mlp"
            key = "text_decoder.lm.model.layers.{n}." + f"{parent}.{name}.lora_{path[-1]}"
            layers = range(config.decoder.depth)
            result[path] = np.stack([gradients[key.format(n=n)].T for n in layers])
            assert result[path].ndim == len(axes)
    return result


def assert_gradients(result, expected, tolerance=1e-5):
    result = dict(flatten(result))
    assert result.keys() == expected.keys()
    for path, target in expected.items():
        largest = np.abs(target).max()
        assert largest > 0, path
        assert np.abs(result[path] - target).max() / largest <= tolerance, path


@pytest.mark.parametrize(
    ("questions", "lora", "accumulate"), [(1, LORA, 1), (3, EVERYWHERE, 1), (7, LORA, 2)]
)
def test_gradients_match_the_padded_step(
    golden_dir, golden_checkpoint, waveforms, make_batch, questions, lora, accumulate
):
    params, config = with_lora(golden_checkpoint, lora)
    module, texts = build_published(golden_dir), asked(questions)
    module.audio_encoder.requires_grad_(False)
    adapt(module.text_decoder.lm, params, lora)
    loss, gradients = published_step(module, waveforms, texts, ignore_bang=True)
    trained, frozen = partition_frozen(params, OptimConfig(frozen_params=LORA_FROZEN_PARAMS))
    step = jax.jit(make_train_step(answer_loss(config, "embeddings"), KEEP, accumulate))
    state, metrics = step(init_state(trained, KEEP), frozen, make_batch(texts))
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    assert_gradients(state.opt_state, wanted_gradients(gradients, config))


def test_an_encoder_that_is_not_frozen_gets_gradients(golden_dir, golden_checkpoint, waveforms):
    config, texts = golden_checkpoint.config, asked(1)
    stored = [np.round(w[:24_000] * 32768).astype(np.int16) for w in waveforms]
    stored[1] = stored[1][:20_000]
    features = np.zeros((1, 3, 24_000), np.int16)
    for clip, local in enumerate(stored):
        features[0, clip, : len(local)] = local
    sizes = [10, 8]
    blocks = jax.tree.map(lambda x: x[:1], packed(texts, sizes, config))
    lengths = np.array([[24_000, 20_000, 0]])
    batch = Batch(features, lengths, np.zeros((1, 3), int), blocks)
    module = build_published(golden_dir)
    module.text_decoder.requires_grad_(False)
    encoded = [local / np.float32(32768) for local in stored]
    loss, gradients = published_step(module, encoded, texts, ignore_bang=True)
    whole = from_state_dict(
        gradients, tinymu_files.rules(config), expected_shapes(config), "", tinymu_files.TIES
    )
    # The published encoder learns neither its positions nor its front end.
    constants = r"decoder/.*|encoder/log_mel/.*|encoder/pos_embed"
    trained, frozen = partition_frozen(
        golden_checkpoint.params, OptimConfig(frozen_params=constants)
    )
    step = jax.jit(make_train_step(answer_loss(config, "waveform"), KEEP))
    state, metrics = step(init_state(trained, KEEP), frozen, batch)
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    expected = {path: leaf for path, leaf in flatten(whole) if path in dict(flatten(trained))}
    assert sum(path.startswith("encoder/") for path in expected) > 10
    # Looser: each side makes its log-mel itself.
    assert_gradients(state.opt_state, expected, 1e-4)


def test_only_trained_params_have_optimizer_state(golden_checkpoint):
    params, _ = add_lora(golden_checkpoint.params, golden_checkpoint.config, LORA, 0)
    trained, frozen = partition_frozen(params, OptimConfig(frozen_params=LORA_FROZEN_PARAMS))
    state = make_optimizer(OptimConfig(weight_decay=0.1), 10).init(trained)
    expected = {p for p, _ in flatten(params) if p.startswith("projector/") or is_lora(p)}
    assert len(expected) == 4 + 4
    for averages in (state[0].mu, state[0].nu):
        assert {path for path, _ in flatten(averages)} == expected
    assert {p for p, _ in flatten(frozen)} == {p for p, _ in flatten(params)} - expected


def test_number_of_published_adapter_params():
    config = dataclasses.replace(TinyMUConfig(), decoder=SmolLM2Config(lora=LoraConfig()))
    trained, _ = partition_frozen(
        expected_shapes(config), OptimConfig(frozen_params=LORA_FROZEN_PARAMS)
    )
    sizes = {path: leaf.size for path, leaf in flatten(trained) if is_lora(path)}
    # 30 layers; A of 576 x 32 for queries and values, B of 32 x 576 and 32 x 192.
    assert sum(sizes.values()) == 30 * 32 * (576 + 576 + 576 + 192)


# --- adding and merging --------------------------------------------------------------------------


def test_fresh_adapters_are_initialized_as_in_peft(small):
    before = small
    params, config = add_lora(before.params, before.config, EVERYWHERE, seed=3)
    old, leaves = dict(flatten(before.params)), dict(flatten(params))
    assert config.decoder.lora == EVERYWHERE
    assert all(leaves[path] is leaf for path, leaf in old.items())
    made = dict(flatten({"decoder": jax.jit(lambda: init_params(config.decoder, 0))()}))
    assert {p: x.shape for p, x in leaves.items()} == {p: x.shape for p, x in made.items()}
    for path in leaves.keys() - old.keys():
        if path.endswith("b"):
            assert not leaves[path].any()
            assert not made[path].any()
            continue
        for a in (leaves[path], made[path]):
            limit = a.shape[1] ** -0.5
            assert 0.9 * limit < np.abs(a).max() <= limit
            np.testing.assert_allclose(a.std(), limit / 3**0.5, rtol=0.1)
            assert len(np.unique(a)) > 0.99 * a.size
    one = logits_of(params, config)
    two = logits_of(before.params, before.config)
    np.testing.assert_array_equal(one, two)


def test_init_depends_on_path_and_seed(small):
    def made(targets, seed):
        lora = dataclasses.replace(LORA, targets=targets)
        base = small
        return dict(flatten(add_lora(base.params, base.config, lora, seed)[0]))

    first = made(("q_proj",), 0)[f"{FIRST}/lora/a"]
    both = made(("k_proj", "q_proj"), 0)
    np.testing.assert_array_equal(both[f"{FIRST}/lora/a"], first)
    assert (both[f"{FIRST.replace('q_', 'k_')}/lora/a"] != first).mean() > 0.9
    assert (made(("q_proj",), 1)[f"{FIRST}/lora/a"] != first).mean() > 0.9


@pytest.mark.parametrize("lora", [LORA, EVERYWHERE], ids=["published", "everywhere"])
def test_a_merged_model_computes_the_same(small, lora):
    params, config = with_lora(small, lora)
    merged, plain = merge_lora(params, config)
    assert plain == small.config
    old, result = dict(flatten(small.params)), dict(flatten(merged))
    assert result.keys() == old.keys()
    changed = {path.split("/")[-2] for path in old if result[path] is not old[path]}
    assert changed == set(lora.targets)
    made, expected = logits_of(merged, plain), logits_of(params, config)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_merging_fresh_adapters_changes_no_bit(small):
    before = small
    merged, config = merge_lora(*add_lora(before.params, before.config, EVERYWHERE, 0))
    assert config == before.config
    for path, leaf in flatten(before.params):
        result = dict(flatten(merged))[path]
        assert (result.dtype, result.tobytes()) == (leaf.dtype, leaf.tobytes()), path
    again, same = merge_lora(merged, config)
    assert same is config
    assert dict(flatten(again)).keys() == dict(flatten(merged)).keys()


def test_a_checkpoint_may_have_adapters(golden_checkpoint, tmp_path):
    params, config = with_lora(golden_checkpoint, LORA)
    save_checkpoint(tmp_path / "lora", Checkpoint(config, params))
    again = read_checkpoint(tmp_path / "lora")
    assert again.config == config
    for path, leaf in flatten(again.params):
        np.testing.assert_array_equal(leaf, dict(flatten(params))[path])


def test_adapters_are_not_added_twice(golden_checkpoint):
    params, config = add_lora(golden_checkpoint.params, golden_checkpoint.config, LORA, 0)
    assert "merge it first" in refusal(add_lora, params, config, LORA, 0)
    wrong = LoraConfig(rank=0)
    base = golden_checkpoint
    assert refusal(add_lora, base.params, base.config, wrong, 0).startswith("lora: rank is 0;")


# --- dropout -------------------------------------------------------------------------------------

WIDTH = 8


class ProbeLayer(nn.Module):
    """Returns what two projections' adapters receive after dropout."""

    lora: LoraConfig

    @nn.compact
    def __call__(self, x, _):
        sizes = {"q_proj": WIDTH, "v_proj": WIDTH}
        return x, jnp.stack(JointDense(sizes, lora=self.lora, name="qkv")(x))


class Probe(nn.Module):
    lora: LoraConfig

    @nn.compact
    def __call__(self, x):
        return run_layers(self, ProbeLayer, {"lora": self.lora}, 3, "layers", x, ())[1]


def let_through(key, rate=0.25):
    """Returns 400 rows of ones after the dropout of 3 layers' 2 projections."""
    lora = LoraConfig(rank=WIDTH, alpha=float(WIDTH), dropout=rate)
    one = jnp.broadcast_to(jnp.eye(WIDTH), (3, WIDTH, WIDTH))
    weights = {"kernel": 0 * one, "lora": {"a": one, "b": one}}
    params = {"layers": {"qkv": {"q_proj": weights, "v_proj": weights}}}
    rngs = {} if key is None else {"dropout": jax.random.key(key)}
    return np.asarray(Probe(lora).apply({"params": params}, jnp.ones((400, WIDTH)), rngs=rngs))


def test_dropout_keeps_the_mean_and_differs_between_layers_and_projections():
    made = let_through(0)
    assert made.shape == (3, 2, 400, WIDTH)
    np.testing.assert_allclose(np.unique(made), [0, 4 / 3], rtol=1e-6)
    # 3,200 numbers each; the spread of their mean is sqrt(1/3 / 3200) = 0.01.
    np.testing.assert_allclose(made.mean((2, 3)), 1, atol=0.05)
    masks = made.reshape(6, -1) > 0
    for i in range(6):
        for j in range(i):
            # Independent masks agree in 0.75**2 + 0.25**2 = 0.625 of their places.
            assert abs((masks[i] == masks[j]).mean() - 0.625) < 0.06
    np.testing.assert_array_equal(made, let_through(0))
    assert (made != let_through(1)).mean() > 0.3


def test_no_dropout_without_rng_or_rate():
    np.testing.assert_array_equal(let_through(None), 1)
    np.testing.assert_array_equal(let_through(0, rate=0.0), 1)


def test_dropout_depends_on_the_step_and_survives_remat(golden_checkpoint, make_batch):
    params, config = with_lora(golden_checkpoint, dataclasses.replace(LORA, dropout=0.5))
    trained, frozen = partition_frozen(params, OptimConfig(frozen_params=LORA_FROZEN_PARAMS))
    batch = make_batch(asked(1))

    def run(remat):
        """Returns losses and gradients of two steps over the same weights and questions."""
        decoder = dataclasses.replace(config.decoder, remat=remat)
        changed = dataclasses.replace(config, decoder=decoder)
        step = jax.jit(make_train_step(answer_loss(changed, "embeddings"), KEEP, seed=0))
        state, metrics = step(init_state(trained, KEEP), frozen, batch)
        later, others = step(state, frozen, batch)
        return [float(m.loss) for m in (metrics, others)], state.opt_state, later.opt_state

    (losses, *remaining), (again, *anew) = run("none"), run("attention")
    assert abs(losses[0] - losses[1]) > 1e-3
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    for one, two in zip(anew, remaining, strict=True):
        assert_gradients(one, dict(flatten(two)))


# --- config and table ----------------------------------------------------------------------------


def test_every_adapter_weight_has_axes(golden_checkpoint):
    _, config = add_lora(golden_checkpoint.params, golden_checkpoint.config, EVERYWHERE, 0)
    shapes, table = expected_shapes(config), tinymu.param_axes(config)
    check_axes(shapes, table)
    assert sum(map(is_lora, table)) == 14
    assert table[f"{FIRST}/lora/a"] == ("layers", "embed", "rank")
    assert table[f"{FIRST}/lora/b"] == ("layers", "rank", "heads")
    down = "decoder/body/layers/mlp/down_proj/lora"
    assert table[f"{down}/a"] == ("layers", "mlp", "rank")
    assert table[f"{down}/b"] == ("layers", "rank", "embed")
    plain = tinymu.param_axes(golden_checkpoint.config)
    assert plain == {path: axes for path, axes in table.items() if not is_lora(path)}
    result = weight_shardings(shapes, table, make_mesh(MeshConfig(2, 2, 2)))
    assert tuple(result[f"{FIRST}/lora/a"].spec) == (None, "fsdp", None)
    assert tuple(result[f"{FIRST}/lora/b"].spec) == (None, None, "tensor")
    assert tuple(result[f"{down}/a"].spec) == (None, "tensor", None)


@pytest.mark.parametrize("lora", [None, LoraConfig(), EVERYWHERE])
def test_configs_survive_json(lora):
    config = SmolLM2Config(lora=lora)
    again = SmolLM2Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_configs_without_lora_have_no_adapters():
    values = SmolLM2Config().to_dict()
    del values["lora"]
    assert SmolLM2Config.from_dict(values) == SmolLM2Config()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"targets": ["q_proj", "query"]}, "not ['query']"),
        ({"targets": []}, "targets must name a layer"),
        ({"targets": "q_proj"}, "targets is 'q_proj'; give it as a list"),
        ({"targets": [3]}, "targets is 3; give it as str"),
        ({"dropout": 1.0}, "dropout must be below 1"),
        ({"rank": 0}, "rank is 0; give a number above 0"),
        ({"alpha": -1}, "alpha is -1.0; give a number above 0"),
        ({"r": 8}, "unknown key 'r'"),
    ],
)
def test_invalid_lora_configs_are_refused(values, named):
    message = refusal(SmolLM2Config.from_dict, {"lora": values})
    assert message.startswith("config.lora: ")
    assert named in message


def test_fused_weights_refuse_adapters(golden_checkpoint, port):
    params, config = with_lora(golden_checkpoint, LORA)
    rows = port.by_rows(params, tinymu.param_axes(config))
    assert "merge it" in refusal(logits_of, rows, config)
