"""From one GPU to a pod: how long the published fine-tuning takes, by config.

A TPU slice's row is read from its compiled program (`tinymu_jax.training.aot.forecast`). No GPU's
program can be compiled without the GPU: its row is an estimate, of memory from shapes, of time from
operations and what an H100 was seen to do of them, by the rate of the card's memory.
"""

import math
from dataclasses import replace
from typing import NamedTuple

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.accelerators import CHIPS, Chip, chip_of
from tinymu_jax.training.aot.forecast import block_flops, block_work, forecast
from tinymu_jax.training.config import OptimConfig, TrainConfig, load_config
from tinymu_jax.training.optim import partition_frozen
from tinymu_jax.utils.tree import flatten

QUESTIONS, EPOCHS = 3_500_000, 3
"""Of MusicSkills-3.5M, and how often each is learnt from, as published."""

MEASURED_ON = "NVIDIA H100 80GB HBM3"

MEASURED = {"float32": 32e12, "bfloat16": 81e12}
"""Needed operations a second on that card, by what products are computed in: of a pre-training
step of 32 crops, and of a fine-tuning step of 112 questions about 16 clips (README, Speed)."""

GB = 1e9


class Machine(NamedTuple):
    """What a config is for."""

    config: str
    """A module of `configs`."""
    sold_as: str
    """What to ask for."""
    device: str
    """A topology of libtpu, such as v5e:4x4, or a GPU's `device_kind`."""
    devices: int


MACHINES = (
    Machine("sft_tinymu_t4", "1 x T4, 16 GB (Colab)", "Tesla T4", 1),
    Machine("sft_tinymu_8gpu", "8 x A100, 80 GB", "NVIDIA A100-SXM4-80GB", 8),
    Machine("sft_tinymu_8gpu", "8 x H100, 80 GB", MEASURED_ON, 8),
    Machine("sft_tinymu_v5e4", "v5e-4", "v5e:2x2", 4),
    Machine("sft_tinymu_v5e16", "v5e-16", "v5e:4x4", 16),
    Machine("sft_tinymu_v5e256", "v5e-256", "v5e:16x16", 256),
    Machine("sft_tinymu_v5p512", "v5p-1024", "v5p:8x8x8", 512),
)
"""From the smallest on. The vendor counts the cores of a v5p: 512 chips are sold as v5p-1024."""


class Plan(NamedTuple):
    """What is to be expected of a config on its machine."""

    machine: Machine
    compute_dtype: str
    questions: float
    """Of a step, on each device."""
    accumulate: int
    memory: float
    """Bytes on each device."""
    room: float
    """Bytes that each device has."""
    rate: float
    """Questions a second, all devices together."""
    compiled: bool
    """Whether it was read from a compiled program, or is an estimate."""

    @property
    def hours(self) -> float:
        """Of the published fine-tuning."""
        return QUESTIONS * EPOCHS / self.rate / 3600


def read_config(name: str) -> TrainConfig:
    """Returns a config that comes with the package."""
    return load_config(name, TrainConfig)


def model_of(config: TrainConfig) -> TinyMUConfig:
    """Returns the published model, computed as a config says."""
    model, step = TinyMUConfig(), config.step
    return replace(
        model,
        encoder=replace(model.encoder, compute_dtype=step.encoder_dtype, remat=step.remat),
        decoder=replace(model.decoder, compute_dtype=step.decoder_dtype, remat=step.remat),
    )


def plan(machine: Machine) -> Plan:
    """Compiles or estimates the step of a machine's config.

    Raises:
        InputError: the slice is unknown, or its memory too small; no libtpu.
    """
    config = read_config(machine.config)
    blocks, packing = config.step.blocks // machine.devices, config.data.packing
    questions = block_work(packing)["questions"] * blocks
    chip = CHIPS.get(machine.device)
    if chip is not None:
        memory = step_memory(model_of(config), packing, blocks / config.step.grad_accum_steps)
        rate = gpu_rate(config, chip) * machine.devices
    else:
        mesh, accumulate = MeshConfig(data=machine.devices), config.step.grad_accum_steps
        found = forecast(machine.device, mesh, blocks, accumulate, packing, model_of(config))
        memory, rate = found.memory["total"], found.rate
    room = chip.memory if chip is not None else found.memory["chip"]
    return Plan(
        machine=machine,
        compute_dtype=config.step.decoder_dtype,
        questions=questions,
        accumulate=config.step.grad_accum_steps,
        memory=memory,
        room=room,
        rate=rate,
        compiled=chip is None,
    )


def gpu_rate(config: TrainConfig, chip: Chip) -> float:
    """Returns the questions a second of one GPU: operations at what an H100 did, by memory's rate.

    Most of a step of so small a model waits for memory, not for products.
    """
    measured = chip_of(MEASURED_ON)
    assert measured is not None
    speed = MEASURED[config.step.decoder_dtype] * chip.memory_rate / measured.memory_rate
    needed, _ = block_flops(model_of(config), config.data.packing)
    return block_work(config.data.packing)["questions"] * speed / needed


def step_memory(model: TinyMUConfig, packing: PackingConfig, blocks: float) -> float:
    """Returns the bytes that a step holds: weights, averages, gradients, and what is kept.

    Kept for the way back are the results of the decoder's products and each layer's input; the
    encoder does not learn. Scores over the vocabulary are there twice, with their gradient.
    """
    trained, frozen = partition_frozen(expected_shapes(model), OptimConfig())
    own, still = (
        sum(math.prod(leaf.shape) for _, leaf in flatten(tree)) for tree in (trained, frozen)
    )
    sizes = model.decoder
    heads = (sizes.num_heads + 2 * sizes.num_kv_heads) * sizes.head_width
    kept = sizes.depth * (heads + 3 * sizes.width + 2 * sizes.mlp_width)
    slots, scores = packing.rows * packing.row_length, 2 * packing.max_labels * sizes.vocab_size
    return 4.0 * (4 * own + still + blocks * (slots * kept + scores))


def table(plans: list[Plan]) -> str:
    """Returns plans as a table in markdown."""
    rows = [
        "| machine | config | products | questions a step and device | parts | memory a device "
        "| questions/s | MusicSkills-3.5M, three epochs | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in plans:
        how = "compiled, at peak rates" if found.compiled else "estimate"
        rows.append(
            f"| {found.machine.sold_as} | `configs/{found.machine.config}.py` | {found.products} "
            f"| {found.questions:.0f} | {found.accumulate} "
            f"| {found.memory / GB:.1f} of {found.room / GB:.0f} GB "
            f"| {found.rate:,.0f} | {_duration(found.hours)} | {how} |"
        )
    return "\n".join(rows)


def _duration(hours: float) -> str:
    """Returns a time in the unit that suits it."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 20 else f"{3600 * hours:.0f} s"
