"""Predict how long the published fine-tuning takes on machines from one GPU to a TPU pod.

TPU numbers come from compiled programs. GPU numbers are estimates: memory from array shapes, time
from the speed measured on an H100, scaled by memory bandwidth.
"""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

from tinymu_jax.checkpoints.checkpoint import expected_shapes
from tinymu_jax.data.config import FeatureKind
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.training.accelerators import CHIPS, Chip, chip_of
from tinymu_jax.training.aot.forecast import block_work, forecast
from tinymu_jax.training.config import TrainConfig
from tinymu_jax.training.config_files import load_config
from tinymu_jax.training.flops import training_flops
from tinymu_jax.training.optim import partition_frozen
from tinymu_jax.training.tasks.finetune import with_step_config
from tinymu_jax.utils.numbers import duration
from tinymu_jax.utils.tree import flatten

QUESTIONS, EPOCHS = 3_500_000, 3
"""Number of questions in MusicSkills-3.5M, and published number of epochs."""
MEASURED_ON = "NVIDIA H100 80GB HBM3"
MEASURED = {"float32": 32e12, "bfloat16": 81e12, "float16": 81e12}
"""FLOP/s measured on `MEASURED_ON`, by compute dtype, without padding and recomputation. float32:
pre-training steps of 32 crops; bfloat16: fine-tuning steps of 112 questions on 16 clips. float16
moves the same bytes, and is taken to be as fast."""
GB = 1e9


class Machine(NamedTuple):
    """A machine, and the config for fine-tuning on it."""

    config: str
    """Name of a module in `configs`."""
    sold_as: str
    """Vendor's name of the machine."""
    device: str
    """TPU topology such as v5e:4x4, or a GPU's `device_kind`."""
    devices: int
    features: FeatureKind = "log_mel"
    """What the data set stores; with embeddings the encoder does not run."""


MACHINES = (
    Machine("sft_tinymu_t4", "1 x T4, 16 GB (Colab)", "Tesla T4", 1),
    Machine("sft_lora_t4", "1 x T4, LoRA on stored embeddings", "Tesla T4", 1, "embeddings"),
    Machine("sft_tinymu_v5e1", "v5e-1 (Colab)", "v5e:1x1", 1),
    Machine("sft_tinymu_8gpu", "8 x A100, 80 GB", "NVIDIA A100-SXM4-80GB", 8),
    Machine("sft_tinymu_8gpu", "8 x H100, 80 GB", MEASURED_ON, 8),
    Machine("sft_tinymu_v5e4", "v5e-4", "v5e:2x2", 4),
    Machine("sft_tinymu_v5e16", "v5e-16", "v5e:4x4", 16),
    Machine("sft_tinymu_v5e256", "v5e-256", "v5e:16x16", 256),
    Machine("sft_tinymu_v5p512", "v5p-1024", "v5p:8x8x8", 512),
)
"""Machines in order of size. A v5p is named after its cores: v5p-1024 has 512 chips."""


class Plan(NamedTuple):
    """Predicted memory and speed of fine-tuning on a machine with its config."""

    machine: Machine
    compute_dtype: str
    questions: float
    """Questions per step and device."""
    grad_accum_steps: int
    memory: float
    """Bytes needed per device."""
    capacity: float
    """Bytes available per device."""
    rate: float
    """Questions per second, over all devices."""
    compiled: bool
    """Whether the numbers come from a compiled program, not from an estimate."""

    @property
    def hours(self) -> float:
        """Hours that the published fine-tuning takes."""
        return QUESTIONS * EPOCHS / self.rate / 3600


def read_config(name: str) -> TrainConfig:
    """Load a fine-tuning config that comes with the package, by name."""
    return load_config(name, TrainConfig)


def model_of(config: TrainConfig, device: str) -> TinyMUConfig:
    """Return the published model's config with the fields that a run on `device` sets.

    `device` is a TPU topology or a GPU's `device_kind`, as in `Machine`. The attention of GPUs is
    `reference`, which has the same FLOPs and parameters as cuDNN's.
    """
    platform = SimpleNamespace(platform="gpu" if device in CHIPS else "tpu", device_kind=device)
    model = with_step_config(TinyMUConfig(), config.step, platform)
    return replace(model, decoder=replace(model.decoder, lora=config.lora))


def forecast_machine(machine: Machine) -> Plan:
    """Predict a machine's memory use and speed: for TPUs by compiling, for GPUs by estimates.

    Raises `InputError` if the TPU topology is unknown, memory is too small, or libtpu is missing.
    """
    config = read_config(machine.config)
    blocks, packing = config.step.blocks // machine.devices, config.data.packing
    questions = block_work(packing)["questions"] * blocks
    chip, grad_accum_steps = CHIPS.get(machine.device), config.step.grad_accum_steps
    if chip is not None:
        memory = step_memory(config, machine.device, blocks / grad_accum_steps)
        capacity, rate = chip.memory, gpu_rate(config, chip, machine.features) * machine.devices
    else:
        mesh = MeshConfig(data=machine.devices)
        model = model_of(config, machine.device)
        step = forecast(machine.device, mesh, blocks, grad_accum_steps, packing, model)
        memory, capacity, rate = step.memory["total"], step.memory["chip"], step.rate
    return Plan(
        machine=machine,
        compute_dtype=config.step.decoder_dtype,
        questions=questions,
        grad_accum_steps=grad_accum_steps,
        memory=memory,
        capacity=capacity,
        rate=rate,
        compiled=chip is None,
    )


def gpu_rate(config: TrainConfig, chip: Chip, features: FeatureKind = "log_mel") -> float:
    """Estimate the fine-tuning speed of one GPU in questions per second.

    The speed measured on an H100 is multiplied by the ratio of the two GPUs' memory bandwidths,
    because bandwidth limits a model as small as TinyMU. `features` is what the data set stores.
    """
    measured = chip_of(MEASURED_ON)
    assert measured is not None
    speed = MEASURED[config.step.decoder_dtype] * chip.memory_rate / measured.memory_rate
    work = block_work(config.data.packing)
    flops = training_flops(
        model_of(config, MEASURED_ON),
        work["slots"],
        work["labels"],
        work["clips"],
        features,
        frozen=config.optim.frozen_params,
    )
    return work["questions"] * speed / flops


def step_memory(config: TrainConfig, device: str, blocks: float) -> float:
    """Estimate the bytes that a fine-tuning step with a frozen encoder needs on one device.

    The estimate includes weights, optimizer state, gradients, and the decoder's activations and
    logits for `blocks` packed blocks.
    """
    model, packing = model_of(config, device), config.data.packing
    trained, frozen = (
        sum(math.prod(leaf.shape) for _, leaf in flatten(tree))
        for tree in partition_frozen(expected_shapes(model), config.optim)
    )
    sizes = model.decoder
    heads = (sizes.num_heads + 2 * sizes.num_kv_heads) * sizes.head_width
    activations = sizes.depth * (heads + 3 * sizes.width + 2 * sizes.mlp_width)
    slots = packing.rows * packing.row_length
    width = 4 if sizes.compute_dtype == "float32" else 2
    logits = 8 * packing.max_labels * sizes.vocab_size
    return 4.0 * (4 * trained + frozen) + blocks * (width * slots * activations + logits)


def table(plans: list[Plan]) -> str:
    """Format plans as a Markdown table with one row per machine."""
    rows = [
        "| machine | config | compute dtype | questions per step and device | accumulation steps "
        "| memory per device | questions/s | MusicSkills-3.5M, three epochs | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for plan in plans:
        source = "compiled, at peak rates" if plan.compiled else "estimate"
        rows.append(
            f"| {plan.machine.sold_as} | `configs/{plan.machine.config}.py` | {plan.compute_dtype} "
            f"| {plan.questions:.0f} | {plan.grad_accum_steps} "
            f"| {plan.memory / GB:.1f} of {plan.capacity / GB:.0f} GB "
            f"| {plan.rate:,.0f} | {duration(3600 * plan.hours)} | {source} |"
        )
    return "\n".join(rows)
