"""How long a step of pre-training takes at full width, beside the published step in PyTorch.

    python tests/benchmarks/pretrain.py --json outputs/pretrain.json

Both sides do the whole step (losses, gradients, clipping, AdamW, teachers and centre) on crops of
608 frames, in turn in one process; each side's memory is measured in a process of its own. On a
GPU both sides run there, and the memory is the GPU's; set XLA_PYTHON_CLIENT_PREALLOCATE=false, so
that they find room beside each other.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
FRAMES, STEPS = 608, 1000
SIDES = {
    "published": ("torch", "float32"),
    "published, bfloat16": ("torch", "bfloat16"),
    "float32": ("ours", "float32"),
    "bfloat16": ("ours", "bfloat16"),
}
"""Who computes, and what products are computed in."""


def make_crops(batch: int) -> np.ndarray:
    """Returns crops of noise (C, frames, 80), as the loader gives them."""
    return np.random.default_rng(0).standard_normal((batch, FRAMES, 80)).astype(np.float16)


def published(batch: int, compute_dtype: str) -> Callable[[], Any]:
    """Returns the published step."""
    import torch
    from oracles import matpac_ssl as ssl_oracle
    from torch_device import products_in, use_same_device

    device = use_same_device()
    torch.manual_seed(0)
    model = ssl_oracle.SelfSupervised(**ssl_oracle.FULL_SIZES)
    optimiser = ssl_oracle.make_optimizer(model)
    image = torch.from_numpy(make_crops(batch).swapaxes(1, 2).astype(np.float32)).to(device)

    def step() -> Any:
        order = torch.rand(batch, 190).argsort(1)
        with products_in(compute_dtype):
            return ssl_oracle.train_step(model, optimiser, image, order, 500, STEPS)

    return step


def actual(batch: int, compute_dtype: str) -> Callable[[], Any]:
    """Returns our step, as the loop runs it."""
    from tinymu_jax.data.crops import CropBatch
    from tinymu_jax.models.config import SelfSupervisedConfig
    from tinymu_jax.models.matpac_ssl.student_teacher import init_student_and_teacher, split_teacher
    from tinymu_jax.training.config import PRETRAINING, ComputeConfig
    from tinymu_jax.training.optim import make_optimizer, partition_frozen
    from tinymu_jax.training.tasks.pretrain import freeze_unused, pretraining_loss, update_teacher
    from tinymu_jax.training.train_step import compile_step, init_state, make_train_step

    config = SelfSupervisedConfig()
    encoder = replace(config.encoder, compute_dtype=compute_dtype, remat=ComputeConfig().remat)
    config = replace(config, encoder=encoder)
    optim = freeze_unused(PRETRAINING, config)
    optimiser = make_optimizer(optim, STEPS)
    params, teaching = split_teacher(init_student_and_teacher(config, 0))
    trained, frozen = partition_frozen(params, optim)
    step = make_train_step(
        pretraining_loss(config, 0), optimiser, post_update=update_teacher(config, STEPS)
    )
    step = jax.jit(step, donate_argnums=0)
    held = {"state": init_state(trained, optimiser, teaching)}
    batch = jax.device_put(CropBatch(make_crops(batch)[None], np.zeros(1, np.int32)))
    step = compile_step(step, held["state"], frozen, batch)

    def run() -> Any:
        held["state"], metrics = step(held["state"], frozen, batch)
        return float(metrics.loss)

    return run


def make(side: str, batch: int) -> Callable[[], Any]:
    """Returns a side's step."""
    whose, compute_dtype = SIDES[side]
    return (published if whose == "torch" else actual)(batch, compute_dtype)


def seconds_of(step: Callable[[], Any]) -> float:
    """Returns how long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def most_bytes_held(whose: str) -> int:
    """Returns the most memory that this process held: a GPU's where there is one."""
    if jax.default_backend() != "gpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if whose == "ours":
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    import torch

    return torch.cuda.max_memory_allocated()


def peak_gigabytes(side: str, batch: int) -> float:
    """Returns the most memory that a process with a side alone held over two steps."""
    command = [sys.executable, __file__, "--memory", side, "--batch", str(batch)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(said.splitlines()[-1])


def main() -> None:
    """Runs everything and prints the numbers."""
    from torch_device import device_name

    from tinymu_jax.utils.malloc import keep_heap

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="crops of a step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        if SIDES[args.memory][0] == "ours":
            keep_heap()
        step = make(args.memory, args.batch)
        for _ in range(2):
            step()
        print(most_bytes_held(SIDES[args.memory][0]) / 1e9)
        return
    memory = {side: peak_gigabytes(side, args.batch) for side in SIDES}
    keep_heap()
    steps = {side: make(side, args.batch) for side in SIDES}
    for step in steps.values():
        step()
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(args.repeats):
        for side, step in steps.items():
            taken[side].append(seconds_of(step))
    median = {side: float(np.median(part)) for side, part in taken.items()}
    result = {
        "device": device_name(),
        "batch": args.batch,
        "seconds a step": median,
        "speed over published": {side: median["published"] / s for side, s in median.items()},
        "peak memory, GB": memory,
        "memory of published over it": {
            side: memory["published"] / m for side, m in memory.items()
        },
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
