"""From one GPU to a pod: what the table of machines says of each config."""

import importlib
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from helpers import ROOT

from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.accelerators import CHIPS
from tinymu_jax.training.aot.forecast import block_work
from tinymu_jax.training.aot.machines import (
    MACHINES,
    MEASURED_ON,
    Plan,
    forecast_machine,
    gpu_rate,
    model_of,
    read_config,
    step_memory,
    table,
)

CONFIGS = sorted({machine.config for machine in MACHINES})


def test_memory_by_shapes_is_near_what_a_compiled_program_takes():
    # docs/benchmarks.md: 9.1 GB for one block of eight rows with float32 activations, 6.3 GB with
    # bfloat16 ones, by XLA's own account.
    config = read_config("sft_tinymu_8gpu")
    whole = replace(config, data=replace(config.data, packing=PackingConfig()))
    assert step_memory(whole, MEASURED_ON, 1) == pytest.approx(6.3e9, rel=0.15)


def test_a_part_of_a_step_needs_less():
    config = read_config("sft_tinymu")
    whole, half, weights = (step_memory(config, MEASURED_ON, n) for n in (1, 0.5, 0))
    assert half - weights == pytest.approx((whole - weights) / 2)
    # Decoder and projector learn (weight, two averages, gradient), the encoder's 86 million not.
    assert weights == pytest.approx(4 * (4 * 143e6 + 86e6), rel=0.01)


def test_an_h100_is_as_fast_as_it_was_seen_to_be():
    # tests/benchmarks/train.py there: 1,840 questions a second, seven about a clip.
    result = gpu_rate(read_config("sft_tinymu_8gpu"), CHIPS[MEASURED_ON])
    assert result == pytest.approx(1840, rel=0.1)


def test_a_card_is_as_fast_as_its_memory():
    config = read_config("sft_tinymu_8gpu")
    slow, fast = (gpu_rate(config, CHIPS[name]) for name in ("NVIDIA L4", "NVIDIA H200"))
    assert fast / slow == pytest.approx(4800 / 300)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_how_many_questions_a_step_has(name):
    config = read_config(name)
    questions = block_work(config.data.packing)["questions"] * config.step.blocks
    text = " ".join(importlib.import_module(f"configs.{name}").__doc__.split())
    said = re.search(r"([\d,]+) questions(?: a step|, in (?:three parts|one block))", text)
    assert float(said[1].replace(",", "")) == pytest.approx(questions, rel=0.05)
    # The learning rate grows with the root of the batch; published are 64 questions and 1e-4.
    rate = 1e-4 * math.sqrt(questions / 64)
    assert config.optim.learning_rate == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda one: one.sold_as)
def test_blocks_are_parted_evenly(machine):
    step = read_config(machine.config).step
    assert step.blocks % (machine.devices * step.grad_accum_steps) == 0
    model = model_of(read_config(machine.config), machine.device)
    assert (model.decoder.compute_dtype, model.encoder.compute_dtype) == (
        step.decoder_dtype,
        step.encoder_dtype,
    )


def test_a_t4_computes_in_float16_and_has_room_for_a_row():
    result = forecast_machine(MACHINES[0])
    assert (result.compute_dtype, result.compiled) == ("float16", False)
    assert result.memory < 0.5 * result.capacity == 8e9


def test_adapters_on_stored_embeddings_cost_less_than_half():
    whole, adapters = map(forecast_machine, MACHINES[:2])
    assert adapters.machine.features == "embeddings"
    # Neither the encoder runs, nor is a gradient of the decoder's weights computed.
    assert adapters.rate > 1.3 * whole.rate
    assert adapters.memory < 0.7 * whole.memory


def test_hours_are_those_of_all_questions_three_times():
    machine = next(one for one in MACHINES if one.sold_as == "v5e-4")
    made = Plan(machine, "bfloat16", 58.0, 1, 5e9, 17e9, 3_500_000 / 3600, True)
    assert made.hours == pytest.approx(3)
    text = table([made, made._replace(rate=1000 * made.rate, compiled=False)])
    assert "| v5e-4 | `configs/sft_tinymu_v5e4.py` | bfloat16 | 58 | 1 | 5.0 of 17 GB |" in text
    assert text.splitlines()[2].endswith("| 3.0 h | compiled, at peak rates |")
    assert text.splitlines()[3].endswith("| 11 s | estimate |")


def test_an_unknown_machine_is_refused_by_the_command():
    command = [sys.executable, ROOT / "launch" / "machine_table.py", "--only", "Cray"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --only Cray: no such machine; there are 1 x T4")
    assert len(done.stderr.splitlines()) == 1
