"""Muon updates of stacked matrices, beside Adam for all other parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusal
from jax.sharding import NamedSharding

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.mesh import MeshConfig, make_mesh, tree_shardings, weight_shardings
from tinymu_jax.models import tinymu
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.training.checkpointing import Checkpoints
from tinymu_jax.training.config import DataConfig, OptimConfig, TrainConfig
from tinymu_jax.training.optim import make_optimizer, partition_frozen, published_schedule
from tinymu_jax.training.train_step import TrainState, init_state
from tinymu_jax.utils.tree import flatten

STEPS = 100
SHAPES = {
    "layers": {"wide": (3, 6, 16), "tall": (3, 16, 6), "scale": (6,)},
    "single": {"kernel": (8, 12)},
    "table": {"embedding": (10, 4)},
}
AXES = {
    "layers/wide": ("layers", "embed", "mlp"),
    "layers/tall": ("layers", "mlp", "embed"),
    "layers/scale": ("embed",),
    "single/kernel": ("embed", "mlp"),
    "table/embedding": ("vocab", "vocab_embed"),
}
MUON = r"layers/(wide|tall)|single/kernel"
DECODER = r"decoder/body/layers/.*/kernel"


def random_tree(seed):
    rng = np.random.default_rng(seed)
    shapes = flatten(SHAPES)
    leaves = {path: rng.standard_normal(shape).astype(np.float32) for path, shape in shapes}
    return {
        "layers": {name: leaves[f"layers/{name}"] for name in SHAPES["layers"]},
        "single": {"kernel": leaves["single/kernel"]},
        "table": {"embedding": leaves["table/embedding"]},
    }


def updates(config, gradients):
    """Returns what is added to the weights in each of the first steps."""
    optimiser, params, result = make_optimizer(config, STEPS), random_tree(0), []
    state, update = optimiser.init(params), jax.jit(optimiser.update)
    for gradient in gradients:
        added, state = update(gradient, state, params)
        result.append(dict(flatten(added)))
    return result


@pytest.fixture(scope="module")
def gradients():
    return [random_tree(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def result(gradients):
    return updates(
        OptimConfig(learning_rate=1e-3, muon_params=MUON, muon_learning_rate=0.02), gradients
    )


# --- by hand -----------------------------------------------------------------------------------


def newton_schulz(matrix):
    """Makes a matrix about orthogonal: five steps of a X + b (X X') X + c (X X')^2 X."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.astype(np.float64)
    x = x / np.sqrt((x**2).sum())
    for _ in range(5):
        square = x @ x.T
        x = a * x + b * square @ x + c * square @ square @ x
    return x


def averaged(gradients, beta=0.95):
    """Returns the gradient's average after each step, one step ahead (Nesterov, as in NAdam)."""
    average, result = 0.0, []
    for number, gradient in enumerate(gradients, 1):
        average = beta * average + (1 - beta) * gradient.astype(np.float64)
        ahead = beta * average / (1 - beta ** (number + 1))
        result.append(ahead + (1 - beta) * gradient / (1 - beta**number))
    return result


@pytest.mark.parametrize("path", ["layers/wide", "layers/tall", "single/kernel"])
def test_an_update_is_newton_schulz_of_each_layer(result, gradients, path):
    local = [dict(flatten(gradient))[path] for gradient in gradients]
    into, out = local[0].shape[-2:]
    rate = published_schedule(0.02, STEPS, OptimConfig().warmup_fraction)
    for number, average in enumerate(averaged(local)):
        layers = average.reshape(-1, into, out)
        expected = np.stack([newton_schulz(layer) for layer in layers]).reshape(average.shape)
        expected = -float(rate(number)) * max(1, out / into) ** 0.5 * expected
        np.testing.assert_allclose(
            result[number][path], expected, atol=1e-4 * np.abs(expected).max()
        )


def test_an_update_is_about_orthogonal(result):
    rate = published_schedule(0.02, STEPS, OptimConfig().warmup_fraction)
    for number, added in enumerate(result):
        for layer in np.asarray(added["layers/tall"]) / float(rate(number)):
            singular = np.linalg.svd(layer, compute_uv=False)
            assert 0.5 < singular.min() <= singular.max() < 1.5


def test_other_params_follow_adam(result, gradients):
    plain = updates(OptimConfig(learning_rate=1e-3), gradients)
    for number, added in enumerate(result):
        for path in ("layers/scale", "table/embedding"):
            np.testing.assert_array_equal(added[path], plain[number][path])
        for path in ("layers/wide", "layers/tall", "single/kernel"):
            assert np.abs(added[path] - plain[number][path]).max() > 1e-4


def test_muon_with_clipping_decay_and_lr_multipliers(result, gradients):
    rates = {"learning_rate": 1e-3, "muon_params": MUON, "muon_learning_rate": 0.02}
    parts = {
        "lr_multipliers": {"layers/.*": 0.5},
        "weight_decay": 0.1,
        "weight_decay_params": "single/.*",
    }
    # The length of a gradient is nothing to Muon.
    (added,) = updates(OptimConfig(**rates, **parts, max_grad_norm=0.1), gradients[:1])
    rate = float(published_schedule(1e-3, STEPS, OptimConfig().warmup_fraction)(0))
    for path, factor, decay in (("layers/wide", 0.5, 0.0), ("single/kernel", 1.0, 0.1)):
        weight = dict(flatten(random_tree(0)))[path]
        expected = factor * np.asarray(result[0][path]) - rate * decay * weight
        np.testing.assert_allclose(added[path], expected, atol=1e-3 * np.abs(expected).max())


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["layers/.*", ".*", "layers/scale"])
def test_muon_on_a_vector_is_an_error(pattern):
    optimiser = make_optimizer(OptimConfig(muon_params=pattern), STEPS)
    message = refusal(optimiser.init, random_tree(0))
    assert (
        message
        == f"optim.muon-params {pattern!r} names layers/scale, which is no matrix; narrow it"
    )


def test_a_muon_pattern_without_match_is_an_error():
    optimiser = make_optimizer(OptimConfig(muon_params="layer/.*"), STEPS)
    assert "optim.muon-params 'layer/.*' names no" in refusal(optimiser.init, random_tree(0))


def test_an_invalid_regular_expression_is_an_error():
    optimiser = make_optimizer(OptimConfig(muon_params="("), STEPS)
    assert "is no regular expression" in refusal(optimiser.init, random_tree(0))


def test_a_negative_learning_rate_is_an_error(tmp_path):
    config = TrainConfig(
        output=str(tmp_path), optim=OptimConfig(muon_params=MUON, muon_learning_rate=-1.0)
    )
    assert "optim.muon-learning-rate is -1.0; give 0 or more" in refusal(config.check)


def test_muon_with_adam_rate_zero_is_an_error(tmp_path):
    # Muon's rate is told as a multiple of it.
    optim = OptimConfig(learning_rate=0.0, muon_params=MUON)
    config = TrainConfig(output=str(tmp_path), data=DataConfig(train="data"), optim=optim)
    assert "optim.learning-rate" in refusal(config.check)


# --- where it lies -----------------------------------------------------------------------------


def assert_averages_lie_with_their_weights(part, weights):
    """Holds the shardings of averages against those of the weights that they are of."""
    leaves = {path: at for path, at in flatten(part) if isinstance(at, NamedSharding)}
    assert leaves
    assert leaves == {path: weights[path] for path in leaves}
    return set(leaves)


def test_muon_moments_are_sharded_as_their_params():
    config = TinyMUConfig()
    mesh = make_mesh(MeshConfig(2, 4, 1))
    trained, _ = partition_frozen(expected_shapes(config), OptimConfig())
    weights = weight_shardings(trained, tinymu.param_axes(config), mesh)
    optimiser = make_optimizer(OptimConfig(muon_params=DECODER), 10)
    state = jax.eval_shape(lambda p: init_state(p, optimiser), trained)
    result = tree_shardings(state, weights, mesh)
    assert dict(flatten(result.params)) == weights
    muon, adam = (part.inner_state for part in result.opt_state[:2])
    orthogonal = assert_averages_lie_with_their_weights(muon[0].mu, weights)
    divided = assert_averages_lie_with_their_weights(adam.mu, weights)
    assert assert_averages_lie_with_their_weights(adam.nu, weights) == divided
    assert not orthogonal & divided
    assert orthogonal | divided == set(weights)
    assert {path.split("/")[-2] for path in orthogonal} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    # Neither are the parted ones whole everywhere.
    assert all(any(weights[path].spec) for path in orthogonal)


def test_a_checkpoint_restores_the_moments(gradients, tmp_path):
    optimiser, mesh = (
        make_optimizer(OptimConfig(muon_params=MUON), STEPS),
        make_mesh(MeshConfig(2, 2, 2)),
    )
    params = random_tree(0)
    places = weight_shardings(params, AXES, mesh)
    _, averages = jax.jit(optimiser.update)(gradients[0], optimiser.init(params), params)
    state = TrainState(jnp.int32(1), params, averages)
    places = tree_shardings(state, places, mesh)
    state = jax.device_put(state, places)
    average = state.opt_state[0].inner_state[0].mu["layers"]["wide"]
    assert tuple(average.sharding.spec) == (None, "fsdp", "tensor")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, 1, {})
    checkpoints.close()
    abstract = jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, places
    )
    again = Checkpoints(tmp_path / "checkpoints", read_only=True)
    restored = again.restore(1, abstract)
    again.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for result, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert result.sharding == expected.sharding
        np.testing.assert_array_equal(result, expected)
