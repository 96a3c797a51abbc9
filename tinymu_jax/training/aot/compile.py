"""Compile training steps for TPU topologies with libtpu, on a machine without TPUs."""

import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tinymu_jax.audio.log_mel import NUM_MELS, SAMPLE_RATE, num_frames
from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.data.crops import CropBatch
from tinymu_jax.data.loader import Batch
from tinymu_jax.errors import InputError, translate
from tinymu_jax.mesh import batch_sharding, tree_shardings, weight_shardings
from tinymu_jax.models import tinymu
from tinymu_jax.models.config import SelfSupervisedConfig, TinyMUConfig
from tinymu_jax.models.matpac_ssl import student_teacher
from tinymu_jax.models.matpac_ssl.student_teacher import split_teacher
from tinymu_jax.models.packing import PackingConfig, build_block
from tinymu_jax.training.compute import compiler_options
from tinymu_jax.training.config import PRETRAINING, OptimConfig
from tinymu_jax.training.optim import make_optimizer, partition_frozen
from tinymu_jax.training.tasks.finetune import answer_loss
from tinymu_jax.training.tasks.pretrain import freeze_unused, pretraining_loss, update_teacher
from tinymu_jax.training.train_step import init_state, make_train_step

TOPOLOGIES = ("v5e:4x4", "v5e:16x16", "v6e:16x16", "v5p:8x8x8")
"""Default TPU topologies, of 16, 256, 256 and 512 chips."""
PRETRAINING_TOPOLOGIES = ("v5e:8x8", "v5e:16x16")
"""Default topologies for pre-training with the published batch of 2,048 crops."""
FULL_GATHER = "Involuntary full rematerialization"
"""Text of XLA's warning about gathering a whole array to change the array's sharding."""


def prepare_machine() -> None:
    """Set up jax and libtpu to compile without TPUs; call this before jax looks for devices.

    Raises `InputError` if libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        where = f"{sys.platform} {platform.machine()}"
        raise InputError(
            f"libtpu is not installed ({where}): on Linux x86_64, pip install -e '.[tpu-aot]'"
        )
    # libtpu should not ask the cloud's metadata service which TPU this machine has.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # By default only one process may load libtpu, although compiling uses no TPU.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")


@contextmanager
def captured_stderr(lines: list[str]) -> Iterator[None]:
    """Capture what Python and C++ code write to stderr; on exit, append the lines to `lines`."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines.extend(file.read().decode(errors="replace").splitlines())


def topology_devices(topology: str) -> list[Any]:
    """Return jax's devices of a TPU topology such as v5e:16x16; raise `InputError` if unknown."""
    from jax.experimental import topologies

    failed = f"topology {topology}: {{reason}}; give a name such as {TOPOLOGIES[0]}"
    # libtpu supposes hosts of four chips; a single chip, as in Colab, has a host of its own.
    options = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}
    with translate(failed), captured_stderr([]):
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
        return list(description.devices)


def batch_shapes(config: TinyMUConfig, packing: PackingConfig, blocks: int) -> Batch:
    """Return a batch's array shapes: `blocks` packed blocks with clips of `config.max_seconds`."""
    side = config.encoder.patch_size
    frames = num_frames(int(config.max_seconds * SAMPLE_RATE))
    frames = -(-frames // side) * side
    clips = np.zeros(packing.max_clips, np.int32)
    features = np.zeros((packing.max_clips, frames, NUM_MELS), np.float16)
    block = Batch(features, clips, clips, build_block([], packing, config))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((blocks, *x.shape), x.dtype), block)


def lower_step(
    config: TinyMUConfig, packing: PackingConfig, mesh: Mesh, blocks: int, grad_accum_steps: int = 1
) -> Any:
    """Lower the fine-tuning step with the shardings of `mesh`; return jax's `Lowered` object.

    A batch has `blocks` packed blocks over all chips; `packing` sets the size of a block.
    """
    optim = OptimConfig()
    optimizer = make_optimizer(optim, 1000)
    step = make_train_step(answer_loss(config, "log_mel"), optimizer, grad_accum_steps)
    weights = partition_frozen(expected_shapes(config), optim)
    batch = batch_shapes(config, packing, blocks)
    return _lower(step, optimizer, weights, (), tinymu.param_axes(config), batch, mesh)


def lower_pretraining(
    config: SelfSupervisedConfig, mesh: Mesh, blocks: int, crops: int, grad_accum_steps: int = 1
) -> Any:
    """Lower the pre-training step with the shardings of `mesh`; return jax's `Lowered` object.

    A batch has `blocks` blocks over all chips; a block has `crops` crops of recordings.
    """
    optim = freeze_unused(PRETRAINING, config)
    optimizer = make_optimizer(optim, 1000)
    loss, post_update = pretraining_loss(config, seed=0), update_teacher(config, steps=1000)
    step = make_train_step(loss, optimizer, grad_accum_steps, post_update=post_update)
    params, teacher = split_teacher(expected_shapes(config))
    shape = (blocks, crops, config.encoder.num_frames, NUM_MELS)
    batch = CropBatch(
        jax.ShapeDtypeStruct(shape, np.float16), jax.ShapeDtypeStruct((blocks,), np.int32)
    )
    weights, axes = partition_frozen(params, optim), student_teacher.param_axes(config)
    return _lower(step, optimizer, weights, teacher, axes, batch, mesh)


def _lower(
    step: Callable[..., Any],
    optimizer: Any,
    weights: tuple[Any, Any],
    aux_state: Any,
    axes: Mapping[str, tuple[str | None, ...]],
    batch: Any,
    mesh: Mesh,
) -> Any:
    """Jit a training step with the shardings of `mesh`, and lower it for the given shapes.

    `weights` are two trees of shapes: of the trained and of the frozen parameters. `axes` maps a
    parameter's path to its logical axes. `aux_state` and `batch` hold shapes, too.
    """
    trained, frozen = weights
    state = jax.eval_shape(lambda params: init_state(params, optimizer, aux_state), trained)
    state_shardings, frozen_shardings = (
        tree_shardings(tree, weight_shardings(params, axes, mesh), mesh)
        for tree, params in ((state, trained), (frozen, frozen))
    )
    jitted = jax.jit(
        step,
        in_shardings=(state_shardings, frozen_shardings, batch_sharding(mesh)),
        out_shardings=(state_shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )
    with jax.set_mesh(mesh):
        return jitted.lower(state, frozen, batch)


def compile_step(lowered: Any, name: str) -> Any:
    """Compile a lowered training step; `name` is the topology, for error messages.

    Raises `InputError` if the step exceeds a chip's memory or gathers a whole sharded array.
    """
    lines: list[str] = []
    try:
        with captured_stderr(lines):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text:
            raise
        first = text.splitlines()[0]
        raise InputError(
            f"{name}: {first}; give fewer --blocks-per-chip (--batch for pre-training), more "
            "--grad-accum-steps or another --mesh"
        ) from error
    if warnings := [line for line in lines if FULL_GATHER in line]:
        raise InputError(f"{name}: {warnings[0].strip()}; constrain the array that it names")
    return compiled
