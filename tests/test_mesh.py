"""Shardings of weights, state and batches; training gives the same losses on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusal

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.data.loader import Batch
from tinymu_jax.mesh import (
    MeshConfig,
    batch_sharding,
    constrain,
    make_global_batch,
    make_mesh,
    tree_shardings,
    weight_shardings,
)
from tinymu_jax.models import layers, tinymu
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackedGroup, PackedQuestion, PackingConfig, build_block
from tinymu_jax.training.aot.compile import lower_step
from tinymu_jax.training.aot.hlo import read_program
from tinymu_jax.training.aot.traffic import collectives
from tinymu_jax.training.config import OptimConfig
from tinymu_jax.training.optim import make_optimizer, partition_frozen
from tinymu_jax.training.tasks.finetune import answer_loss
from tinymu_jax.training.train_step import init_state, make_train_step
from tinymu_jax.utils.tree import flatten

PACKING = PackingConfig(row_length=90, rows=2, max_clips=2, max_labels=24)

# By hand: width over fsdp, heads and hidden units over tensor; vectors, positions, embeddings and
# the tables of the front end are replicated.
SHARDED = {
    "encoder/transformer/blocks/attn/qkv/kernel": (None, "fsdp", "tensor"),
    "encoder/transformer/blocks/attn/proj/kernel": (None, "tensor", "fsdp"),
    "encoder/transformer/blocks/mlp/fc1/kernel": (None, "fsdp", "tensor"),
    "encoder/transformer/blocks/mlp/fc2/kernel": (None, "tensor", "fsdp"),
    "projector/linear1/kernel": ("fsdp", "tensor"),
    "projector/linear2/kernel": ("tensor", "fsdp"),
    "decoder/body/layers/attn/qkv/q_proj/kernel": (None, "fsdp", "tensor"),
    "decoder/body/layers/attn/qkv/k_proj/kernel": (None, "fsdp", "tensor"),
    "decoder/body/layers/attn/qkv/v_proj/kernel": (None, "fsdp", "tensor"),
    "decoder/body/layers/attn/o_proj/kernel": (None, "tensor", "fsdp"),
    "decoder/body/layers/mlp/gate_up/gate_proj/kernel": (None, "fsdp", "tensor"),
    "decoder/body/layers/mlp/gate_up/up_proj/kernel": (None, "fsdp", "tensor"),
    "decoder/body/layers/mlp/down_proj/kernel": (None, "tensor", "fsdp"),
}


def mesh_of(data, fsdp, tensor):
    devices = jax.devices()[: data * fsdp * tensor]
    return make_mesh(MeshConfig(data, fsdp, tensor), devices)


def test_shardings_of_all_weights():
    config = TinyMUConfig()
    shapes = expected_shapes(config)
    result = weight_shardings(shapes, tinymu.param_axes(config), mesh_of(2, 4, 1))
    assert set(result) == {path for path, _ in flatten(shapes)}
    assert {path: tuple(s.spec) for path, s in result.items() if any(s.spec)} == SHARDED
    whole = sum(leaf.size for path, leaf in flatten(shapes) if path not in SHARDED)
    assert whole / 229e6 < 0.13  # the table of words is an eighth of the model


def test_optimizer_state_is_sharded_like_its_weights():
    config = TinyMUConfig()
    mesh = mesh_of(2, 4, 1)
    trained, _ = partition_frozen(expected_shapes(config), OptimConfig())
    weights = weight_shardings(trained, tinymu.param_axes(config), mesh)
    optimiser = make_optimizer(OptimConfig(weight_decay=0.1), 10)
    state = jax.eval_shape(lambda p: init_state(p, optimiser), trained)
    result = tree_shardings(state, weights, mesh)
    for tree in (result.params, result.opt_state[0].mu, result.opt_state[0].nu):
        assert dict(flatten(tree)) == weights
    assert not result.opt_state[0].count.spec


@pytest.mark.parametrize("sizes", [(3, 1, 1), (0, 3, 1), (8, 2, 1), (-1, 1, 1), (0, 16, 1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    message = refusal(make_mesh, MeshConfig(*sizes))
    assert "does not fit 8 devices" in message


def test_remaining_devices_are_data_parallel():
    assert dict(make_mesh(MeshConfig(fsdp=2)).shape) == {"data": 4, "fsdp": 2, "tensor": 1}


def test_weights_that_cannot_be_sharded_are_named():
    config = TinyMUConfig()
    axes = tinymu.param_axes(config)
    shapes = {"decoder": {"body": {"norm": {"scale": np.zeros(577)}}}}
    message = refusal(weight_shardings, shapes, axes, mesh_of(1, 8, 1))
    assert message.startswith("mesh fsdp=8: does not divide the 577 of decoder/body/norm/scale")
    with pytest.raises(ValueError, match="unknown logical axis 'colour'"):
        weight_shardings({"a": np.zeros(2)}, {"a": ("colour",)}, mesh_of(1, 1, 1))


def test_constrain_shards_activations():
    x = jnp.zeros((8, 4, 6))

    def compute(x):
        return constrain(x + 1, "batch", None, "mlp")

    with jax.set_mesh(mesh_of(2, 2, 2)):
        spec = jax.jit(compute)(x).sharding.spec
    assert tuple(spec) == (("data", "fsdp"), None, "tensor")
    assert constrain(x, "batch", None, "mlp") is x


@pytest.mark.parametrize("axes", [("batch", "colour"), ("batch",), ("batch", None, None)])
def test_constrain_refuses_unknown_or_missing_axes(axes):
    with pytest.raises(ValueError, match="logical ax"):
        constrain(jnp.zeros((8, 4)), *axes)
    with jax.set_mesh(mesh_of(8, 1, 1)), pytest.raises(ValueError, match="logical ax"):
        constrain(jnp.zeros((8, 4)), *axes)


def make_batch(config, step):
    """Eight blocks of two clips with a question or two each."""
    rng = np.random.default_rng(step)

    def question():
        sizes = rng.integers(1, 8, 2)
        return PackedQuestion(*(rng.integers(20, 500, size).tolist() for size in sizes))

    def block():
        placed = [PackedGroup(row, row, 10, [question(), question()][: row + 1]) for row in (0, 1)]
        return build_block(placed, PACKING, config)

    blocks = jax.tree.map(lambda *x: np.stack(x), *(block() for _ in range(8)))
    width = config.projector.input_width
    features = rng.standard_normal((8, 2, 10, width)).astype(np.float32)
    return Batch(features, np.full((8, 2), 10), np.zeros((8, 2), int), blocks)


@pytest.fixture(scope="module")
def alone(golden_checkpoint):
    return train(golden_checkpoint, (1, 1, 1))


def train(checkpoint, sizes):
    """Trains five steps on a mesh; returns the losses."""
    config, mesh, optim = checkpoint.config, mesh_of(*sizes), OptimConfig(learning_rate=1e-3)
    axes = tinymu.param_axes(config)
    trained, frozen = partition_frozen(checkpoint.params, optim)
    optimiser = make_optimizer(optim, 10)
    state = init_state(trained, optimiser)
    state_at = tree_shardings(state, weight_shardings(trained, axes, mesh), mesh)
    frozen_at = tree_shardings(frozen, weight_shardings(frozen, axes, mesh), mesh)
    state, frozen = jax.device_put(state, state_at), jax.device_put(frozen, frozen_at)
    step = jax.jit(
        make_train_step(answer_loss(config, "embeddings"), optimiser),
        in_shardings=(state_at, frozen_at, batch_sharding(mesh)),
        out_shardings=(state_at, None),
        donate_argnums=0,
    )
    losses = []
    with jax.set_mesh(mesh):
        for number in range(5):
            state, metrics = step(
                state, frozen, make_global_batch(make_batch(config, number), mesh)
            )
            losses.append(float(metrics.loss))
    kernel = state.params["decoder"]["body"]["layers"]["mlp"]["down_proj"]["kernel"]
    part = kernel.addressable_shards[0].data.shape
    assert part == (2, 96 // sizes[2], 48 // sizes[1])
    return losses


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (1, 8, 1), (2, 2, 2)])
def test_losses_are_the_same_on_every_mesh(golden_checkpoint, alone, sizes):
    assert len(set(alone)) == 5
    np.testing.assert_allclose(train(golden_checkpoint, sizes), alone, rtol=1e-6)


def moved(config, sizes, accumulate=1):
    """Returns the collectives of a step on a mesh."""
    mesh = mesh_of(*sizes)
    lowered = lower_step(config, PACKING, mesh, 2 * sizes[0] * sizes[1], accumulate)
    return collectives(read_program(lowered.compile().as_text()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_device_keeps_its_own_blocks(golden_checkpoint, accumulate):
    # Sums of gradients are all that is exchanged, once for each part of a step.
    result = moved(golden_checkpoint.config, (8, 1, 1), accumulate)
    assert set(result) == {"all-reduce"}
    trained, _ = partition_frozen(golden_checkpoint.params, OptimConfig())
    learnt = sum(leaf.size for _, leaf in flatten(trained))
    assert result["all-reduce"].size < accumulate * 4 * learnt * 1.5


def test_batches_stay_sharded_with_sharded_weights(golden_checkpoint, monkeypatch):
    # As a deep model is compiled.
    monkeypatch.setattr(layers, "MAX_UNROLLED_LAYERS", 0)

    def sent():
        return sum(item.sent for item in moved(golden_checkpoint.config, (1, 8, 1)).values())

    result = sent()
    for module in (tinymu, layers):
        monkeypatch.setattr(module, "constrain", lambda x, *axes: x, raising=False)
    assert result < 0.9 * sent()
