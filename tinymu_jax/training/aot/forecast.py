"""What is to be expected of a training step on a TPU pod, from its compiled program.

Predicted is at peak rates:
seconds = max(operations / peak, memory bytes / memory rate) + bytes sent / link rate.
"""

import time
from dataclasses import replace
from typing import Any, NamedTuple

from jax.sharding import Mesh

from tinymu_jax.errors import InputError
from tinymu_jax.mesh import MeshConfig, make_mesh
from tinymu_jax.models.config import SelfSupervisedConfig, TinyMUConfig
from tinymu_jax.models.layers import QUERY_BLOCK
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.accelerators import Chip, chip_of
from tinymu_jax.training.aot.compile import (
    compile_step,
    lower_pretraining,
    lower_step,
    topology_devices,
)
from tinymu_jax.training.aot.hlo import read_program
from tinymu_jax.training.aot.traffic import Collective, collectives, memory_bytes
from tinymu_jax.training.flops import (
    encoder_attention,
    encoder_flops,
    flops_of,
    pretraining_flops,
    training_flops,
)

QUESTION_SLOTS, QUESTION_LABELS, QUESTIONS_OF_A_CLIP = 51, 20, 7
"""Of MusicSkills, on average: slots with the question's share of its clip's 63 vectors, answer
tokens, and questions that share a clip."""

PRETRAINING_BATCH = 2048
"""Crops of a step of pre-training, as published."""

FILL = 0.97
"""Share of a block's slots that hold something."""


class Forecast(NamedTuple):
    """What is known of a compiled step; all numbers per chip and step but for the rate."""

    topology: str
    chip: str
    chips: int
    mesh: tuple[int, int, int]
    """Sizes of data, fsdp and tensor."""
    blocks: int
    """Blocks that each chip computes."""
    compile_seconds: float
    memory: dict[str, int]
    """Bytes of arguments, outputs, temporaries, what is `aliased` (outputs in the arguments'
    place), the program, the total, and the chip's."""
    collectives: dict[str, Collective]
    """What is moved between chips, by kind."""
    once: dict[str, float]
    """XLA's own count of `flops` and `bytes`, in which a loop's body counts once."""
    flops: float
    """Operations that the step's numbers need."""
    computed_flops: float
    """Operations that are computed: padding, and what is computed again, included."""
    memory_bytes: float
    """Bytes to and from the chip's memory."""
    seconds: dict[str, float]
    """At peak rates: of `compute`, `memory` and `links`, and of the `step`."""
    mfu: float
    """Needed operations over those that the chip could do in the predicted time."""
    counted: str
    """What a step learns from: questions, or crops."""
    rate: float
    """Of those a second, all chips together."""


def pod_config() -> TinyMUConfig:
    """Returns the published model with the products and the remat that pods train it with."""
    base = TinyMUConfig()
    return replace(
        base,
        encoder=replace(base.encoder, compute_dtype="bfloat16", remat="attention"),
        decoder=replace(base.decoder, compute_dtype="bfloat16", remat="attention"),
    )


def default_mesh(chips: int) -> MeshConfig:
    """Returns the mesh of a slice where none is asked for: copies of the model alone.

    Weights and their averages take 2.1 GB, for which every chip has room, and all that is
    exchanged is the sum of the gradients, as many bytes a chip on 512 chips as on 16.
    """
    return MeshConfig(data=chips)


def memory_of(compiled: Any, chip: Chip) -> dict[str, int]:
    """Returns the bytes of a compiled program by kind, per chip."""
    found = compiled.memory_analysis()
    sizes = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "aliased": found.alias_size_in_bytes,
        "program": found.generated_code_size_in_bytes,
    }
    total = sum(sizes.values()) - 2 * sizes["aliased"]
    return sizes | {"total": total, "chip": int(chip.memory)}


def block_work(packing: PackingConfig) -> dict[str, float]:
    """Returns the questions, slots, labels and clips that a block holds on average."""
    questions = FILL * packing.rows * packing.row_length / QUESTION_SLOTS
    questions = min(
        questions, packing.max_labels / QUESTION_LABELS, packing.max_clips * QUESTIONS_OF_A_CLIP
    )
    return {
        "questions": questions,
        "slots": questions * QUESTION_SLOTS,
        "labels": questions * QUESTION_LABELS,
        "clips": questions / QUESTIONS_OF_A_CLIP,
    }


def block_flops(config: TinyMUConfig, packing: PackingConfig) -> tuple[float, float]:
    """Returns the operations that a block needs, and those that it is computed with.

    The latter include padding and what is computed again on the way back.
    """
    work = block_work(packing)
    needed = training_flops(config, work["slots"], work["labels"], work["clips"])
    # A query of a row looks at all keys up to the end of its piece of the row.
    seen = (packing.row_length + min(QUERY_BLOCK, packing.row_length)) / 2
    slots, cost = packing.rows * packing.row_length, flops_of(config, seen=seen)
    attention = cost.slot - flops_of(config, seen=0).slot
    again = {"none": 0.0, "attention": attention / 3, "full": cost.slot / 3}
    slot, label = cost.slot + again[config.decoder.remat], cost.label * 4 / 3
    attention, whole = encoder_attention(config), encoder_flops(config)
    again = {"none": 0.0, "attention": attention, "full": whole / 3}
    clip = cost.clip + again[config.encoder.remat]
    return needed, slots * slot + packing.max_labels * label + packing.max_clips * clip


def step_seconds(chip: Chip, flops: float, moved: float, sent: float) -> dict[str, float]:
    """Returns a step's time at a chip's peak rates: computing hides reading, links hide nothing."""
    compute, memory = flops / chip.flops, moved / chip.memory_rate
    links = sent / chip.link_rate
    step = max(compute, memory) + links
    return {"compute": compute, "memory": memory, "links": links, "step": step}


def slice_of(topology: str, config: MeshConfig | None = None) -> tuple[Chip, Mesh]:
    """Returns a slice's chip, and the mesh of its devices (default: `default_mesh`).

    Raises:
        InputError: the slice or its chip is unknown, or the mesh does not fit it.
    """
    devices = topology_devices(topology)
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise InputError(f"{topology}: {devices[0].device_kind!r} is missing in chips.py; add it")
    return chip, make_mesh(config or default_mesh(len(devices)), devices)


def forecast(
    topology: str,
    mesh_config: MeshConfig | None = None,
    blocks: int = 1,
    accumulate: int = 1,
    packing: PackingConfig | None = None,
    config: TinyMUConfig | None = None,
) -> Forecast:
    """Compiles the step for a slice and reads from the program what is to be expected.

    Args:
        topology: as libtpu names it.
        mesh_config: default `default_mesh`.
        blocks: of each chip; those that share heads (`tensor`) share blocks.
        accumulate: parts that they are computed in.
        packing: size of a block.
        config: of the model.

    Raises:
        InputError: as `slice_of` and `compile_step`.
    """
    config, packing = config or pod_config(), packing or PackingConfig()
    chip, mesh = slice_of(topology, mesh_config)
    sizes = tuple(mesh.shape[axis] for axis in mesh.axis_names)
    number = blocks * sizes[0] * sizes[1]
    lowered = lower_step(config, packing, mesh, number, accumulate)
    flops = tuple(share * blocks / sizes[2] for share in block_flops(config, packing))
    items = block_work(packing)["questions"] * number
    return read_forecast(lowered, topology, chip, mesh, blocks, flops, "questions", items)


def forecast_pretraining(
    topology: str,
    mesh_config: MeshConfig | None = None,
    batch: int = PRETRAINING_BATCH,
    accumulate: int = 1,
    config: SelfSupervisedConfig | None = None,
) -> Forecast:
    """Compiles the step of pre-training; arguments and errors as `forecast`.

    Args:
        topology: as libtpu names it.
        mesh_config: default `default_mesh`.
        batch: crops of a step, over all chips.
        accumulate: parts that they are computed in.
        config: default the published one, multiplied in bfloat16.
    """
    config = config or SelfSupervisedConfig()
    config = replace(
        config, encoder=replace(config.encoder, compute_dtype="bfloat16", remat="attention")
    )
    chip, mesh = slice_of(topology, mesh_config)
    sharing = mesh.shape["data"] * mesh.shape["fsdp"]
    clips, rest = divmod(batch, sharing * accumulate)
    if rest or not clips:
        raise InputError(
            f"{topology}: {batch} crops cannot be parted evenly over {sharing} chips that share "
            f"them, in {accumulate} parts; give a multiple of {sharing * accumulate}"
        )
    lowered = lower_pretraining(config, mesh, sharing * accumulate, clips, accumulate)
    flops = pretraining_flops(config) * batch / mesh.size
    # Nothing is padded, and nothing computed again.
    return read_forecast(
        lowered, topology, chip, mesh, accumulate, (flops, flops), "crops", float(batch)
    )


def read_forecast(
    lowered: Any,
    topology: str,
    chip: Chip,
    mesh: Mesh,
    blocks: int,
    flops: tuple[float, float],
    counted: str,
    items: float,
) -> Forecast:
    """Compiles a lowered step and reads from the program what is to be expected.

    Args:
        lowered: the step.
        topology: of the slice.
        chip: of the slice.
        mesh: of its chips.
        blocks: of each chip.
        flops: of each chip, needed and computed.
        counted: what a step learns from.
        items: how many of those, over all chips.
    """
    start = time.perf_counter()
    compiled = compile_step(lowered, topology)
    taken = time.perf_counter() - start
    program, cost = read_program(compiled.as_text()), compiled.cost_analysis()
    moved, sent = memory_bytes(program), collectives(program)
    needed, computed = flops
    seconds = step_seconds(chip, computed, moved, sum(item.sent for item in sent.values()))
    return Forecast(
        topology=topology,
        chip=chip.name,
        chips=mesh.size,
        mesh=tuple(mesh.shape[axis] for axis in mesh.axis_names),
        blocks=blocks,
        compile_seconds=taken,
        memory=memory_of(compiled, chip),
        collectives=sent,
        once={"flops": cost["flops"], "bytes": cost["bytes accessed"]},
        flops=needed,
        computed_flops=computed,
        memory_bytes=moved,
        seconds=seconds,
        mfu=needed / seconds["step"] / chip.flops,
        counted=counted,
        rate=items / seconds["step"],
    )
