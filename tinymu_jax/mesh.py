"""Where weights and batches lie: one mesh, one table of rules, one way onto the devices."""

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
"""Of every mesh: copies of the model, parts of the weights along their width, parts of the heads
and hidden units. A batch is spread over the first two."""

LOGICAL_AXIS_RULES: dict[str, str | None] = {
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "rank": None,
    "classes": None,
    # A table spread over the batch's axes would be gathered for every look-up.
    "vocab": None,
    "vocab_embed": None,
}
"""Logical axis of a weight -> axis of the mesh."""

BATCH_AXES = ("data", "fsdp")
"""Axes of the mesh that part a batch."""


@dataclass(frozen=True)
class MeshConfig:
    """How many devices share what; their product is the number of all devices."""

    data: int = 0
    """Copies of the model, each with its part of the batch; 0 means all devices that are left."""
    fsdp: int = 1
    """Devices that share the weights and their averages, and part the batch too."""
    tensor: int = 1
    """Devices that share the heads and hidden units of a layer."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh of all devices, or of those given.

    Raises:
        InputError: the sizes do not go into the devices.
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
    """Returns where every weight lies, by its path.

    Matrices are parted; vectors are whole everywhere, since fetching them would cost more than
    keeping them.

    Args:
        shapes: the tree, or a part of it; anything with a `shape`.
        table: logical axes of each weight, of the whole tree.
        mesh: the mesh.

    Raises:
        InputError: an axis that cannot be parted evenly.
        ValueError: an unknown logical axis.
    """
    found = {}
    for path, leaf in flatten(shapes):
        names: list[str | None] = []
        for size, axis in zip(leaf.shape, table[path], strict=True):
            if axis is not None and axis not in LOGICAL_AXIS_RULES:
                raise ValueError(f"{path}: unknown logical axis {axis!r}")
            name = None if axis is None else LOGICAL_AXIS_RULES[axis]
            if name is not None and size % mesh.shape[name]:
                raise InputError(
                    f"mesh {name}={mesh.shape[name]}: does not part the {size} of {path} "
                    f"({axis}) evenly; choose a size that does"
                )
            names.append(name)
        vector = sum(axis not in (None, "layers") for axis in table[path]) < 2
        spec = PartitionSpec() if vector else PartitionSpec(*names)
        found[path] = NamedSharding(mesh, spec)
    return found


def tree_shardings(tree: Any, weights: Mapping[str, NamedSharding], mesh: Mesh) -> Any:
    """Returns where every leaf of a state lies: what belongs to a weight lies where it does.

    A leaf belongs to a weight if the names on its way are the weight's path, as those of the
    optimiser's averages are; all others are whole on every device.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def find(way: Any, _: Any) -> NamedSharding:
        path = "/".join(str(key.key) for key in way if isinstance(key, jax.tree_util.DictKey))
        return weights.get(path, whole)

    return jax.tree_util.tree_map_with_path(find, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns where a batch's blocks lie: parted over copies and sharers of the weights."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def constrain(x: Array, *axes: str | None) -> Array:
    """Tells XLA where an array lies that is computed on the way; the numbers stay the same.

    It is needed where weights and batch share an axis of the mesh: left alone, XLA may part what
    is computed by the weights' width instead of by the batch, and keep whole batches. The mesh is
    that of `jax.set_mesh`; without one x is returned as it is.

    Args:
        x: of any shape.
        axes: logical axis of each of x's axes: "batch" (blocks, rows, clips), one of `LOGICAL_AXIS_RULES`, or
            None for an axis that every device has whole.

    Raises:
        ValueError: an unknown logical axis, or not one for each of x's axes.
    """
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes for an array of {x.ndim}: {axes}")
    places = LOGICAL_AXIS_RULES | {"batch": BATCH_AXES}
    for axis in axes:
        if axis is not None and axis not in places:
            raise ValueError(f"unknown logical axis {axis!r}; use one of {', '.join(places)}")
    if jax.sharding.get_abstract_mesh().empty:
        return x
    spec = PartitionSpec(*(None if axis is None else places[axis] for axis in axes))
    return jax.lax.with_sharding_constraint(x, spec)


def make_global_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts what this process has of a batch on its devices, as a part of the whole batch."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def local_block_ids(mesh: Mesh, blocks: int, accumulate: int = 1) -> list[int]:
    """Returns which blocks of a step this process computes.

    Raises:
        InputError: the blocks cannot be parted evenly.
    """
    sharing = mesh.shape["data"] * mesh.shape["fsdp"]
    if blocks % (sharing * accumulate):
        times = (
            f", computed in {accumulate} parts (step.grad-accum-steps)" if accumulate > 1 else ""
        )
        raise InputError(
            f"step.blocks {blocks}: cannot be parted evenly over the {sharing} devices of "
            f"mesh.data and mesh.fsdp{times}; give a multiple of {sharing * accumulate}"
        )
    spans = batch_sharding(mesh).addressable_devices_indices_map((blocks,)).values()
    return sorted({number for span in spans for number in range(*span[0].indices(blocks))})


def device_put_tree(tree: Any, shardings: Any) -> Any:
    """Puts a tree that every process has, each device's part on it and no more."""
    return jax.tree.map(
        lambda x, at: jax.make_array_from_callback(x.shape, at, lambda part: np.asarray(x[part])),
        tree,
        shardings,
    )


def shard_local_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Puts a batch on a mesh of this process, parted where its first axis allows it.

    Without a mesh, it is returned as it is.
    """
    if mesh is None:
        return tree
    sharing = mesh.shape["data"] * mesh.shape["fsdp"]
    whole = NamedSharding(mesh, PartitionSpec())

    def place(x: Any) -> Array:
        parted = x.ndim and x.shape[0] % sharing == 0
        return jax.device_put(x, batch_sharding(mesh) if parted else whole)

    return jax.tree.map(place, tree)
