"""The projectors at full width match the published ones."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle

from tinymu_jax.checkpoints.pytorch.tinymu import PROJECTOR_RULES, PUBLISHED_KINDS
from tinymu_jax.models import projector
from tinymu_jax.models.config import ProjectorConfig, ProjectorKind
from tinymu_jax.models.projector import make_projector

INPUT, OUTPUT = 3840, 576
ORACLES = {
    "linear": lambda: oracle.LinearProjector(INPUT, OUTPUT, 2048),
    "residual": lambda: oracle.ResidualProjector(INPUT, OUTPUT),
    "transformer": lambda: oracle.TransformerProjector(INPUT, OUTPUT),
}
TOLERANCE = {"linear": 1e-5, "residual": 1e-5, "transformer": 1e-4}


@pytest.fixture(scope="module")
def projectors(port):
    """Returns oracle, config and stacked parameters of each kind."""
    made = {}
    for kind, make in ORACLES.items():
        module = port.randomise(make())
        made[kind] = (module, *port.projector(module))
    return made


@pytest.fixture(scope="module")
def vectors():
    """Two clips of 20 audio vectors."""
    return 0.5 * np.random.default_rng(0).standard_normal((2, 20, INPUT)).astype(np.float32)


def run(config, params, x, num_valid=None, **options):
    num_valid = np.full(len(x), x.shape[1]) if num_valid is None else num_valid
    valid = np.arange(x.shape[1]) < num_valid[:, None]
    return _run(params, x, valid, options.pop("rngs", None), config=config, **options)


@partial(jax.jit, static_argnames=("config", "train"))
def _run(params, x, valid, rngs, config, train=False):
    return make_projector(config).apply({"params": params}, x, valid, train, rngs=rngs)


@torch.no_grad()
@pytest.mark.parametrize("kind", ORACLES)
def test_as_published(projectors, vectors, kind):
    module, config, params = projectors[kind]
    expected = module(torch.from_numpy(vectors)).numpy()
    made = run(config, params, vectors)
    np.testing.assert_allclose(made, expected, rtol=0, atol=TOLERANCE[kind])


@pytest.mark.parametrize("kind", ORACLES)
def test_number_of_outputs(projectors, vectors, kind):
    _, config, params = projectors[kind]
    made = run(config, params, vectors)
    assert made.shape == (2, config.num_outputs(20), OUTPUT)
    assert made.shape[1] == {"linear": 20, "residual": 20, "transformer": 32}[kind]


@pytest.mark.parametrize("kind", ORACLES)
def test_padding_after_a_clip_changes_nothing(projectors, vectors, kind):
    _, config, params = projectors[kind]
    num_valid = np.array([13, 20])
    x = np.where(np.arange(20)[None, :, None] < num_valid[:, None, None], vectors, 9.0)
    made = run(config, params, x.astype(np.float32), num_valid)
    alone = run(config, params, vectors[:1, :13])
    np.testing.assert_allclose(made[:1, : alone.shape[1]], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "layout"), [("transformer", "unrolled"), *((kind, "by_rows") for kind in ORACLES)]
)
def test_other_layouts_give_the_same(port, projectors, vectors, kind, layout):
    _, config, params = projectors[kind]
    other = getattr(port, layout)(params, projector.param_axes(config))
    first = other["linear"] if kind == "transformer" else other["linear1"]
    assert ("rows" if layout == "by_rows" else "kernel") in first
    made, expected = (run(config, p, vectors) for p in (other, params))
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_dropout_acts_in_training_only(projectors, vectors):
    _, config, params = projectors["residual"]
    still = run(config, params, vectors)
    first, again, other = (
        run(config, params, vectors, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - still).max() > 0.1
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize("dropout", [0.0, 0.25, 0.5])
def test_dropout_rate(dropout):
    config = ProjectorConfig("residual", 64, output_width=64, dropout=dropout)
    params = {
        "linear1": {"kernel": jnp.eye(64)},
        "linear2": {"kernel": jnp.ones((64, 64))},
        "norm": {"scale": jnp.ones(64), "bias": jnp.zeros(64)},
    }
    # All outputs are equal but for the branch: after the norm, the sign tells who was dropped.
    options = {"train": True, "rngs": {"dropout": jax.random.key(0)}}
    made = run(config, params, np.ones((10, 20, 64), np.float32), **options)
    np.testing.assert_allclose((made < -1e-3).mean(), dropout, atol=0.02)


# --- the start of training -----------------------------------------------------------------------


def initialised(kind):
    config = ProjectorConfig(kind, INPUT, output_width=OUTPUT, depth=2)
    example = jnp.zeros((1, 1, INPUT)), jnp.ones((1, 1), bool)
    return jax.jit(make_projector(config).init)(jax.random.key(0), *example)["params"]


@pytest.fixture(scope="module")
def starts():
    """Initial parameters of each kind."""
    return {kind: initialised(kind) for kind in ORACLES}


def assert_uniform(weights, limit):
    assert float(np.abs(weights).max()) <= limit
    np.testing.assert_allclose(np.std(weights), limit / 3**0.5, rtol=0.06)
    assert abs(np.mean(weights)) < 0.1 * limit


TORCH_LINEARS = [
    ("linear", "linear1", INPUT),
    ("linear", "linear2", 2048),
    ("transformer", "linear", INPUT),
    ("transformer", "layers/attn/project", OUTPUT),
    ("transformer", "layers/mlp/fc1", OUTPUT),
    ("transformer", "layers/mlp/fc2", 2 * OUTPUT),
    ("transformer", "layers/attn/queries", OUTPUT),
    ("transformer", "layers/attn/keys_values", OUTPUT),
]


@pytest.mark.parametrize(("kind", "path", "fan_in"), TORCH_LINEARS)
def test_linear_init_matches_torch(starts, kind, path, fan_in):
    module = starts[kind]
    for name in path.split("/"):
        module = module[name]
    for weights in module.values():
        assert_uniform(weights, fan_in**-0.5)


def test_torch_linear_init():
    # What the test above holds for torch's default.
    torch.manual_seed(0)
    linear = torch.nn.Linear(OUTPUT, OUTPUT)
    for weights in (linear.weight, linear.bias):
        assert_uniform(weights.detach().numpy(), OUTPUT**-0.5)


def test_residual_init_is_xavier(starts):
    assert_uniform(starts["residual"]["linear1"]["kernel"], (6 / (INPUT + OUTPUT)) ** 0.5)
    assert_uniform(starts["residual"]["linear2"]["kernel"], (6 / (OUTPUT + OUTPUT)) ** 0.5)


def test_query_vector_init_is_normal(starts):
    prefix = starts["transformer"]["prefix"]
    assert prefix.shape == (32, OUTPUT)
    np.testing.assert_allclose([prefix.mean(), prefix.std()], [0, 1], atol=0.03)


def test_layers_are_initialized_independently(starts):
    for weights in jax.tree.leaves(starts["transformer"]["layers"]["mlp"]):
        assert (weights[0] != weights[1]).any()


@pytest.mark.parametrize("kind", get_args(ProjectorKind))
def test_every_kind_is_converted_and_compared_with_torch(kind):
    assert kind in PROJECTOR_RULES
    assert kind in PUBLISHED_KINDS
    assert kind in ORACLES
    assert projector.param_axes(ProjectorConfig(kind))
