"""Device mesh, and sharding of weights, batches and activations over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from tinymu_jax.errors import InputError
from tinymu_jax.utils.tree import flatten

MESH_AXES = ("data", "fsdp", "tensor")
"""Mesh axes: data parallelism, fully sharded data parallelism (weights are split along the model
width) and tensor parallelism (attention heads and hidden units are split)."""
LOGICAL_AXIS_RULES: dict[str, str | None] = {
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "rank": None,
    "classes": None,
    # An embedding sharded over the batch axes would be gathered for every lookup.
    "vocab": None,
    "vocab_embed": None,
}
"""Logical axis of a weight -> mesh axis over which it is sharded, or None if it is replicated."""
BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which the first axis of a batch is sharded."""


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; their product is the number of devices."""

    data: int = 0
    """Size of the data-parallel axis; 0 means the largest size that the devices allow."""
    fsdp: int = 1
    """Number of devices over which weights, optimizer state and the batch are sharded."""
    tensor: int = 1
    """Number of devices over which the heads and hidden units of a layer are sharded."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh of the given devices, or of all devices if `devices` is None.

    Raises:
        InputError: the product of the axis sizes is not the number of devices.
    """
    devices = list(jax.devices()) if devices is None else list(devices)
    rest = config.fsdp * config.tensor
    data = config.data or len(devices) // max(rest, 1)
    if min(data, config.fsdp, config.tensor) < 1 or data * rest != len(devices):
        raise InputError(
            f"mesh data={config.data} fsdp={config.fsdp} tensor={config.tensor}: does not fit "
            f"{len(devices)} devices; choose sizes whose product is their number"
        )
    auto = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh((data, config.fsdp, config.tensor), MESH_AXES, auto, devices=devices)


def weight_shardings(
    shapes: Mapping[str, Any], table: Mapping[str, tuple[str | None, ...]], mesh: Mesh
) -> dict[str, NamedSharding]:
    """Return the sharding of each weight, by path; vectors such as biases are replicated.

    `shapes` is a tree of some or all weights, or of anything with their `shape`. `table` has the
    logical axes of each weight, by path (see `LOGICAL_AXIS_RULES`).

    Raises:
        InputError: an axis cannot be divided evenly over its mesh axis.
        ValueError: a logical axis is unknown.
    """
    shardings = {}
    for path, leaf in flatten(shapes):
        mesh_axes: list[str | None] = []
        for size, axis in zip(leaf.shape, table[path], strict=True):
            if axis is not None and axis not in LOGICAL_AXIS_RULES:
                raise ValueError(f"{path}: unknown logical axis {axis!r}")
            name = None if axis is None else LOGICAL_AXIS_RULES[axis]
            if name is not None and size % mesh.shape[name]:
                raise InputError(
                    f"mesh {name}={mesh.shape[name]}: does not divide the {size} of {path} "
                    f"({axis}); choose a size that does"
                )
            mesh_axes.append(name)
        is_vector = sum(axis not in (None, "layers") for axis in table[path]) < 2
        spec = PartitionSpec() if is_vector else PartitionSpec(*mesh_axes)
        shardings[path] = NamedSharding(mesh, spec)
    return shardings


def tree_shardings(tree: Any, weights: Mapping[str, NamedSharding], mesh: Mesh) -> Any:
    """Return the sharding of each leaf of a training state `tree`, as a tree of the same structure.

    `weights` has the sharding of each weight, by path. A leaf with the path of a weight, such as an
    optimizer moment, is sharded like the weight; all other leaves are replicated.
    """
    replicated = NamedSharding(mesh, PartitionSpec())

    def find(key_path: Any, _: Any) -> NamedSharding:
        keys = [str(key.key) for key in key_path if isinstance(key, jax.tree_util.DictKey)]
        return weights.get("/".join(keys), replicated)

    return jax.tree_util.tree_map_with_path(find, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, whose first axis is split over `BATCH_AXES`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def constrain(x: Array, *axes: str | None) -> Array:
    """Constrain the sharding of an activation on the mesh of `jax.set_mesh`, if there is one.

    For each axis of x, `axes` has "batch", a key of `LOGICAL_AXIS_RULES`, or None (replicated).
    Without the constraint, XLA may shard activations along the width and replicate the batch.

    Raises:
        ValueError: an axis is unknown, or `axes` does not have one entry for each axis of x.
    """
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes for an array of {x.ndim}: {axes}")
    rules = LOGICAL_AXIS_RULES | {"batch": BATCH_AXES}
    for axis in axes:
        if axis is not None and axis not in rules:
            raise ValueError(f"unknown logical axis {axis!r}; use one of {', '.join(rules)}")
    if jax.sharding.get_abstract_mesh().empty:
        return x
    spec = PartitionSpec(*(None if axis is None else rules[axis] for axis in axes))
    return jax.lax.with_sharding_constraint(x, spec)


def make_global_batch(batch: Any, mesh: Mesh) -> Any:
    """Join the batches of all processes into one sharded batch; `batch` is this process's."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def local_block_ids(mesh: Mesh, blocks: int, accumulate: int = 1) -> list[int]:
    """Return the indices of the blocks that this process loads at each training step.

    A block is a batch of packed questions for one device. All processes together load `blocks`
    blocks per training step, over which gradients are accumulated in `accumulate` parts.

    Raises:
        InputError: the blocks cannot be divided evenly among devices and accumulation steps.
    """
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if blocks % (devices * accumulate):
        steps = f" and the {accumulate} step.grad-accum-steps" if accumulate > 1 else ""
        raise InputError(
            f"step.blocks {blocks}: cannot be divided evenly among the {devices} devices of "
            f"mesh.data and mesh.fsdp{steps}; give a multiple of {devices * accumulate}"
        )
    spans = batch_sharding(mesh).addressable_devices_indices_map((blocks,)).values()
    return sorted({number for span in spans for number in range(*span[0].indices(blocks))})


def device_put_tree(tree: Any, shardings: Any) -> Any:
    """Put a tree, which every process holds in full, onto the devices with `shardings`.

    The arrays are copied: a CPU's device would else use those of a mapped file as they are.
    """
    return jax.tree.map(
        lambda x, to: jax.make_array_from_callback(x.shape, to, lambda part: np.array(x[part])),
        tree,
        shardings,
    )


def shard_local_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Put a batch onto a mesh of this process's devices; without a mesh, return it unchanged.

    Arrays whose first axis cannot be divided evenly over `BATCH_AXES` are replicated.
    """
    if mesh is None:
        return tree
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    replicated = NamedSharding(mesh, PartitionSpec())

    def put(x: Any) -> Array:
        divisible = x.ndim and x.shape[0] % devices == 0
        return jax.device_put(x, batch_sharding(mesh) if divisible else replicated)

    return jax.tree.map(put, tree)
