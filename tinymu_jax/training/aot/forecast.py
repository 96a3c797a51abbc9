"""Forecast memory, traffic and time of a compiled training step on a TPU slice.

Step time = max(FLOPs / peak FLOP/s, memory bytes / memory rate) + link bytes / link rate, where
bytes that are sent while the chip computes do not count. Kernels (custom calls) move their operands
and results; their FLOPs are counted by formula, as all others.
"""

import time
from dataclasses import replace
from typing import Any, NamedTuple

from jax.sharding import Mesh

from tinymu_jax.errors import InputError
from tinymu_jax.mesh import MeshConfig, make_mesh
from tinymu_jax.models.attention import QUERY_BLOCK
from tinymu_jax.models.config import SelfSupervisedConfig, TinyMUConfig
from tinymu_jax.models.flash_attention import block_size
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.accelerators import Chip, chip_of
from tinymu_jax.training.aot.compile import (
    compile_step,
    lower_pretraining,
    lower_step,
    topology_devices,
)
from tinymu_jax.training.aot.hlo import read_program
from tinymu_jax.training.aot.traffic import Collective, collectives, kernel_calls, memory_bytes
from tinymu_jax.training.flops import encoder_attention, flops_of, pretraining_flops, training_flops

SLOTS_PER_QUESTION, LABELS_PER_QUESTION, QUESTIONS_PER_CLIP = 51, 20, 7
"""Averages over the MusicSkills data set: decoder positions per question, including a share of the
clip's 63 audio vectors; answer tokens per question; questions per clip."""
PRETRAINING_BATCH = 2048
"""Published number of crops per pre-training step."""
POD_OPTIONS = {"compute_dtype": "bfloat16", "remat": "attention", "attention": "flash"}
"""Fields of encoder and decoder configs on pods."""
FILL = 0.97
"""Average fraction of positions in packed rows that are not padding."""


class Forecast(NamedTuple):
    """Forecast of a training step on a TPU slice; bytes and FLOPs are per chip and step."""

    topology: str
    chip: str
    chips: int
    mesh: tuple[int, int, int]
    """Sizes of the mesh axes data, fsdp and tensor."""
    blocks: int
    """Blocks of examples per step and chip, or per group of tensor-parallel chips."""
    compile_seconds: float
    memory: dict[str, int]
    """Bytes by name: `arguments`, `outputs`, `temporaries`, `program`, `aliased` (outputs in the
    memory of arguments), the `total` that is needed, and the capacity of the `chip`."""
    collectives: dict[str, Collective]
    """Transfers between chips, by kind of collective."""
    kernel_calls: int
    """Number of calls of fused attention kernels."""
    xla_cost: dict[str, float]
    """`flops` and `bytes` from XLA's cost analysis, which counts a loop as one iteration."""
    flops: float
    """FLOPs without padding and recomputation."""
    computed_flops: float
    """FLOPs with padding and recomputation; for pre-training, the same as `flops`."""
    memory_bytes: float
    """Bytes read from and written to the chip's main memory."""
    seconds: dict[str, float]
    """Predicted seconds for `compute`, `memory` traffic, `links`, the part of `links` that is
    `exposed` (the chip computes nothing meanwhile), and the whole `step`."""
    mfu: float
    """Model FLOPs utilization: `flops` / (peak FLOP/s x predicted seconds)."""
    unit: str
    """What `rate` counts: questions or crops."""
    rate: float
    """Questions or crops per second, over all chips."""


def pod_config() -> TinyMUConfig:
    """Return the published model's config for pods: bfloat16, with fused attention."""
    base, options = TinyMUConfig(), POD_OPTIONS
    return replace(
        base, encoder=replace(base.encoder, **options), decoder=replace(base.decoder, **options)
    )


def default_mesh(chips: int) -> MeshConfig:
    """Return a pure data-parallel mesh of `chips` chips.

    Every chip holds all weights and optimizer state (2.1 GB); chips exchange only gradients.
    """
    return MeshConfig(data=chips)


def memory_of(compiled: Any, chip: Chip) -> dict[str, int]:
    """Return the memory in bytes that a compiled program needs per chip; see `Forecast.memory`."""
    analysis = compiled.memory_analysis()
    sizes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    total = sum(sizes.values()) - 2 * sizes["aliased"]
    return sizes | {"total": total, "chip": int(chip.memory)}


def block_work(packing: PackingConfig) -> dict[str, float]:
    """Estimate a block's numbers of `questions`, `slots` (decoder positions), `labels`, `clips`."""
    questions = min(
        FILL * packing.rows * packing.row_length / SLOTS_PER_QUESTION,
        packing.max_labels / LABELS_PER_QUESTION,
        packing.max_clips * QUESTIONS_PER_CLIP,
    )
    return {
        "questions": questions,
        "slots": questions * SLOTS_PER_QUESTION,
        "labels": questions * LABELS_PER_QUESTION,
        "clips": questions / QUESTIONS_PER_CLIP,
    }


def block_flops(config: TinyMUConfig, packing: PackingConfig) -> tuple[float, float]:
    """Return two FLOP counts of a packed block: without and with padding and recomputation.

    The second counts every key before a query; the fused kernel skips some of other groups.
    """
    work = block_work(packing)
    needed = training_flops(config, work["slots"], work["labels"], work["clips"])
    # Queries are computed in blocks: each attends to all keys of its row up to its block's end.
    flash = config.decoder.attention == "flash"
    block = block_size(packing.row_length) if flash else min(QUERY_BLOCK, packing.row_length)
    seen = (packing.row_length + block) / 2
    slots, cost = packing.rows * packing.row_length, flops_of(config, seen=seen)
    attention = cost.slot - flops_of(config, seen=0).slot
    # Of six products of attention, a fused backward pass repeats the first, remat the first two.
    repeated = attention / (6 if flash else 3)
    recomputed = {"none": 0.0, "attention": repeated, "full": cost.slot / 3}
    slot, label = cost.slot + recomputed[config.decoder.remat], cost.label * 4 / 3
    clip = cost.clip + _encoder_overhead(config)
    return needed, slots * slot + packing.max_labels * label + packing.max_clips * clip


def _encoder_overhead(config: TinyMUConfig) -> float:
    """Return a clip's FLOPs in the frozen encoder for padding to whole blocks of the kernel."""
    if config.encoder.attention != "flash":
        return 0.0
    tokens = 1 + config.encoder.rows * config.encoder.columns
    size = block_size(tokens)
    padded = -(-tokens // size) * size
    return encoder_attention(config) * ((padded / tokens) ** 2 - 1)


def step_seconds(
    chip: Chip, flops: float, moved: float, sent: float, overlapped: float = 0.0
) -> dict[str, float]:
    """Return the predicted seconds of a step, by name as in `Forecast.seconds`.

    `flops`, `moved` (bytes read from and written to main memory) and `sent` (bytes sent to other
    chips) are per chip and step. `overlapped` bytes of `sent` are sent while the chip computes.
    """
    compute, memory = flops / chip.flops, moved / chip.memory_rate
    links, exposed = sent / chip.link_rate, (sent - overlapped) / chip.link_rate
    step = max(compute, memory, links - exposed) + exposed
    return {"compute": compute, "memory": memory, "links": links, "exposed": exposed, "step": step}


def slice_of(topology: str, config: MeshConfig | None = None) -> tuple[Chip, Mesh]:
    """Return the kind of chip of a TPU topology, and a device mesh of its chips.

    `config` sets the sizes of the mesh; default: `default_mesh`. Raises `InputError` if the
    topology or its chip is unknown, or if the mesh does not fit the topology.
    """
    devices = topology_devices(topology)
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise InputError(
            f"{topology}: {devices[0].device_kind!r} is not in accelerators.py; add it"
        )
    return chip, make_mesh(config or default_mesh(len(devices)), devices)


def forecast(
    topology: str,
    mesh_config: MeshConfig | None = None,
    blocks: int = 1,
    grad_accum_steps: int = 1,
    packing: PackingConfig | None = None,
    config: TinyMUConfig | None = None,
) -> Forecast:
    """Compile the fine-tuning step for a TPU slice and forecast its speed.

    Args:
        topology: libtpu's name of the slice, such as v5e:4x4.
        mesh_config: sizes of the mesh; default: `default_mesh`.
        blocks: packed blocks per step on each chip, or on each group of tensor-parallel chips.
        grad_accum_steps: number of parts of a step that are computed one after another.
        packing: number and length of a block's rows; default: `PackingConfig()`.
        config: model config; default: `pod_config`.

    Raises:
        InputError: the topology is unknown, or the step does not fit the chips' memory.
    """
    config, packing = config or pod_config(), packing or PackingConfig()
    chip, mesh = slice_of(topology, mesh_config)
    sizes = tuple(mesh.shape[axis] for axis in mesh.axis_names)
    all_blocks = blocks * sizes[0] * sizes[1]
    lowered = lower_step(config, packing, mesh, all_blocks, grad_accum_steps)
    flops = tuple(flops * blocks / sizes[2] for flops in block_flops(config, packing))
    questions = block_work(packing)["questions"] * all_blocks
    return _read_forecast(lowered, topology, chip, mesh, blocks, flops, "questions", questions)


def forecast_pretraining(
    topology: str,
    mesh_config: MeshConfig | None = None,
    batch: int = PRETRAINING_BATCH,
    grad_accum_steps: int = 1,
    config: SelfSupervisedConfig | None = None,
) -> Forecast:
    """Compile the pre-training step for a TPU slice and forecast its speed.

    Args:
        topology: libtpu's name of the slice, such as v5e:4x4.
        mesh_config: sizes of the mesh; default: `default_mesh`.
        batch: crops per step, over all chips.
        grad_accum_steps: number of gradient accumulation steps.
        config: model config, whose dtype is changed to bfloat16; default: published sizes.

    Raises:
        InputError: the topology is unknown, the batch cannot be split evenly, or memory is short.
    """
    config = config or SelfSupervisedConfig()
    config = replace(config, encoder=replace(config.encoder, **POD_OPTIONS))
    chip, mesh = slice_of(topology, mesh_config)
    all_blocks = mesh.shape["data"] * mesh.shape["fsdp"] * grad_accum_steps
    crops, rest = divmod(batch, all_blocks)
    if rest or not crops:
        raise InputError(
            f"{topology}: {batch} crops cannot be split evenly over {all_blocks} blocks (data x "
            f"fsdp x grad-accum-steps); give a multiple of {all_blocks}"
        )
    lowered = lower_pretraining(config, mesh, all_blocks, crops, grad_accum_steps)
    # Crops have no padding; recomputation is not counted here.
    flops = (pretraining_flops(config) * batch / mesh.size,) * 2
    return _read_forecast(
        lowered, topology, chip, mesh, grad_accum_steps, flops, "crops", float(batch)
    )


def _read_forecast(
    lowered: Any,
    topology: str,
    chip: Chip,
    mesh: Mesh,
    blocks: int,
    flops: tuple[float, float],
    unit: str,
    units: float,
) -> Forecast:
    """Compile a lowered step and compute its forecast.

    `blocks` is the number of blocks per chip and step. `flops` are two FLOP counts per chip and
    step: without, and with, padding and recomputation. A step trains on `units` questions or crops
    over all chips; `unit` is "questions" or "crops".
    """
    start = time.perf_counter()
    compiled = compile_step(lowered, topology)
    compile_seconds = time.perf_counter() - start
    program, cost = read_program(compiled.as_text()), compiled.cost_analysis()
    moved, transfers = memory_bytes(program), collectives(program)
    needed, computed = flops
    sent = sum(transfer.sent for transfer in transfers.values())
    overlapped = sum(transfer.overlapped for transfer in transfers.values())
    seconds = step_seconds(chip, computed, moved, sent, overlapped)
    return Forecast(
        topology=topology,
        chip=chip.name,
        chips=mesh.size,
        mesh=tuple(mesh.shape[axis] for axis in mesh.axis_names),
        blocks=blocks,
        compile_seconds=compile_seconds,
        memory=memory_of(compiled, chip),
        collectives=transfers,
        kernel_calls=kernel_calls(program),
        xla_cost={"flops": cost["flops"], "bytes": cost["bytes accessed"]},
        flops=needed,
        computed_flops=computed,
        memory_bytes=moved,
        seconds=seconds,
        mfu=needed / seconds["step"] / chip.flops,
        unit=unit,
        rate=units / seconds["step"],
    )
