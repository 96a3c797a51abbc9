"""Training steps compiled for TPU pods that are not there.

libtpu compiles for a topology by its name. Nothing is computed: only shapes go in.
"""

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
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import batch_sharding, tree_shardings, weight_shardings
from tinymu_jax.models import tinymu
from tinymu_jax.models.config import SelfSupervisedConfig, TinyMUConfig
from tinymu_jax.models.matpac_ssl import student_teacher
from tinymu_jax.models.matpac_ssl.student_teacher import split_teacher
from tinymu_jax.models.packing import PackingConfig, build_block
from tinymu_jax.training.config import PRETRAINING, OptimConfig
from tinymu_jax.training.optim import make_optimizer, partition_frozen
from tinymu_jax.training.tasks.finetune import answer_loss
from tinymu_jax.training.tasks.pretrain import freeze_unused, pretraining_loss, update_teacher
from tinymu_jax.training.train_step import init_state, make_train_step

TOPOLOGIES = ("v5e:4x4", "v5e:16x16", "v6e:16x16", "v5p:8x8x8")
"""16, 256, 256 and 512 chips; the vendor calls the last one v5p-1024, by its cores."""

PRETRAINING_TOPOLOGIES = ("v5e:8x8", "v5e:16x16")
"""Those that pre-training's batch of 2,048 crops is shown for."""

LOST = "Involuntary full rematerialization"
"""What XLA prints where it gathers a whole array because two shardings do not go together."""


def prepare_machine() -> None:
    """Lets libtpu compile on a machine without TPUs; to be called before jax looks for devices.

    Raises:
        InputError: there is no libtpu, or none for this kind of machine.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        where = f"{sys.platform} {platform.machine()}"
        raise InputError(
            f"libtpu is not installed ({where}): on Linux x86_64, pip install -e '.[tpu-aot]'"
        )
    # There is no service that tells which TPU this machine has.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # The library is loaded by every process with jax, and would refuse the second; nothing here
    # touches a device.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")


@contextmanager
def captured_stderr(lines: list[str]) -> Iterator[None]:
    """Adds what is written to stderr meanwhile to `lines`, libraries' own writing included."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines.extend(file.read().decode(errors="replace").splitlines())


def topology_devices(topology: str) -> list[Any]:
    """Returns the devices of a slice by its name, such as v5e:16x16.

    Raises:
        InputError: libtpu does not know it.
    """
    from jax.experimental import topologies

    try:
        with captured_stderr([]):
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"topology {topology}: {error}; give a name such as {TOPOLOGIES[0]}"
        ) from error
    return list(found.devices)


def batch_shapes(config: TinyMUConfig, packing: PackingConfig, blocks: int) -> Batch:
    """Returns the shapes of a batch of stored log-mels, of clips of `config.max_seconds`."""
    side = config.encoder.patch_size
    frames = num_frames(int(config.max_seconds * SAMPLE_RATE))
    frames = -(-frames // side) * side
    clips = np.zeros(packing.max_clips, np.int32)
    features = np.zeros((packing.max_clips, frames, NUM_MELS), np.float16)
    block = Batch(features, clips, clips, build_block([], packing, config))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((blocks, *x.shape), x.dtype), block)


def lower_step(
    config: TinyMUConfig, packing: PackingConfig, mesh: Mesh, blocks: int, accumulate: int = 1
) -> Any:
    """Returns the whole step of a run with `blocks` blocks, lowered for a mesh."""
    optim = OptimConfig()
    optimiser = make_optimizer(optim, 1000)
    step = make_train_step(answer_loss(config, "log_mel"), optimiser, accumulate)
    weights = partition_frozen(expected_shapes(config), optim)
    batch = batch_shapes(config, packing, blocks)
    return _lower(step, optimiser, weights, (), tinymu.param_axes(config), batch, mesh)


def lower_pretraining(
    config: SelfSupervisedConfig, mesh: Mesh, blocks: int, clips: int, accumulate: int = 1
) -> Any:
    """Returns the whole step of pre-training with `blocks` blocks of `clips` crops, for a mesh."""
    optim = freeze_unused(PRETRAINING, config)
    optimiser = make_optimizer(optim, 1000)
    loss, after = pretraining_loss(config, seed=0), update_teacher(config, steps=1000)
    step = make_train_step(loss, optimiser, accumulate, post_update=after)
    params, teaching = split_teacher(expected_shapes(config))
    crops = (blocks, clips, config.encoder.num_frames, NUM_MELS)
    batch = CropBatch(
        jax.ShapeDtypeStruct(crops, np.float16), jax.ShapeDtypeStruct((blocks,), np.int32)
    )
    weights, axes = partition_frozen(params, optim), student_teacher.param_axes(config)
    return _lower(step, optimiser, weights, teaching, axes, batch, mesh)


def _lower(
    step: Callable[..., Any],
    optimiser: Any,
    weights: tuple[Any, Any],
    extra: Any,
    axes: Mapping[str, tuple[str | None, ...]],
    batch: Any,
    mesh: Mesh,
) -> Any:
    """Returns a step lowered for a mesh, from the shapes of its trained and frozen weights."""
    trained, frozen = weights
    state = jax.eval_shape(lambda params: init_state(params, optimiser, extra), trained)
    state_at, frozen_at = (
        tree_shardings(tree, weight_shardings(own, axes, mesh), mesh)
        for tree, own in ((state, trained), (frozen, frozen))
    )
    compiled = jax.jit(
        step,
        in_shardings=(state_at, frozen_at, batch_sharding(mesh)),
        out_shardings=(state_at, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        return compiled.lower(state, frozen, batch)


def compile_step(lowered: Any, what: str) -> Any:
    """Compiles a lowered step.

    Raises:
        InputError: it does not fit into the chips' memory, or XLA has lost a sharding.
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
            f"{what}: {first}; give fewer --blocks-per-chip (--batch of pre-training), more "
            "--accumulate or another --mesh"
        ) from error
    if lost := [line for line in lines if LOST in line]:
        raise InputError(f"{what}: {lost[0].strip()}; constrain the array that it names")
    return compiled
