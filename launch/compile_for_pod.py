"""Compile the full-size training step for TPU pods on a machine without a TPU.

    python launch/compile_for_pod.py                                    the four default slices
    python launch/compile_for_pod.py --topology v5e:4x4 --mesh 4,4,1    another mesh
    python launch/compile_for_pod.py --pretrain                         pre-training of the encoder

Prints whether the step fits into memory, the transfers between chips, and the time of a step at the
chips' peak rates; a real step takes longer. Needs libtpu (Linux x86_64):
pip install -e '.[tpu-aot]'.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymu_jax.errors import InputError, one_line_errors
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.utils.files import make_folder, write_text

if TYPE_CHECKING:
    from tinymu_jax.training.aot.forecast import Forecast

GB, TERA = 1e9, 1e12


def parse_mesh(text: str) -> MeshConfig:
    """Parse mesh sizes such as "16,1,1" (data, fsdp, tensor); raise `InputError` if malformed."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--mesh {text}: give data,fsdp,tensor as three numbers, such as 16,1,1")
    return MeshConfig(*map(int, parts))


def as_dict(step: "Forecast") -> dict[str, Any]:
    """Convert a forecast to nested dictionaries for JSON."""
    collectives = {kind: total._asdict() for kind, total in step.collectives.items()}
    return step._asdict() | {"collectives": collectives}


def describe(step: "Forecast") -> str:
    """Format a forecast as several lines of text."""
    sizes = {name: f"{size / GB:.2f}" for name, size in step.memory.items()}
    lines = [
        f"{step.topology}: {step.chips} x {step.chip}, mesh data={step.mesh[0]} "
        f"fsdp={step.mesh[1]} tensor={step.mesh[2]}, {step.blocks} blocks per chip, "
        f"compiled in {step.compile_seconds:.0f} s; per chip:",
        f"  memory      {sizes['total']} of {sizes['chip']} GB: arguments {sizes['arguments']}, "
        f"outputs {sizes['outputs']} ({sizes['aliased']} of them aliased to arguments), "
        f"temporaries {sizes['temporaries']}, program {sizes['program']}",
        f"  FLOPs       {step.flops / TERA:.2f} TFLOP needed, {step.computed_flops / TERA:.2f} "
        f"computed (XLA, loops counted once: {step.xla_cost['flops'] / TERA:.2f})",
        f"  traffic     {step.memory_bytes / GB:.1f} GB to and from memory "
        f"(XLA, loops counted once: {step.xla_cost['bytes'] / GB:.1f}); {step.kernel_calls} calls "
        "of attention kernels",
    ]
    lines += [
        f"  {kind:<18} {total.count} times, {total.size / GB:.3f} GB, of which a chip sends "
        f"{total.sent / GB:.3f} GB"
        for kind, total in sorted(step.collectives.items())
    ]
    times = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in step.seconds.items())
    lines.append(
        f"  at peak     milliseconds: {times}; MFU {100 * step.mfu:.0f} %, "
        f"{step.rate:,.0f} {step.unit}/s over all chips"
    )
    return "\n".join(lines)


def table(forecasts: Sequence["Forecast"]) -> str:
    """Format forecasts as a Markdown table with one row per TPU slice."""
    rows = [
        "| slice | mesh (data, fsdp, tensor) | memory per chip | FLOPs | memory traffic | "
        f"between chips | step at peak rates | MFU | {forecasts[0].unit}/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for step in forecasts:
        counts = ", ".join(
            f"{total.count} {kind}" for kind, total in sorted(step.collectives.items())
        )
        sent = sum(total.sent for total in step.collectives.values())
        mesh = ", ".join(map(str, step.mesh))
        times = {name: f"{1e3 * value:.0f}" for name, value in step.seconds.items()}
        rows.append(
            f"| {step.topology}, {step.chips} x {step.chip} | {mesh} "
            f"| {step.memory['total'] / GB:.1f} of {step.memory['chip'] / GB:.0f} GB "
            f"| {step.computed_flops / TERA:.1f} TFLOP | {step.memory_bytes / GB:.0f} GB "
            f"| {sent / GB:.2f} GB ({counts}) "
            f"| {times['step']} ms (compute {times['compute']}, memory {times['memory']}, "
            f"links {times['links']}, of which {times['exposed']} are not overlapped) "
            f"| {100 * step.mfu:.0f} % | {step.rate:,.0f} |"
        )
    return "\n".join(rows)


def check_options(args: argparse.Namespace) -> None:
    """Raise `InputError` if an option is out of range, or options do not fit together."""
    counts = {
        "--blocks-per-chip": args.blocks_per_chip,
        "--grad-accum-steps": args.grad_accum_steps,
        "--rows": args.rows,
        "--batch": args.batch,
    }
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} {value}: give 1 or more")
    if args.blocks_per_chip % args.grad_accum_steps and not args.pretrain:
        raise InputError(
            f"--grad-accum-steps {args.grad_accum_steps}: does not divide {args.blocks_per_chip} "
            "blocks; give a divisor of --blocks-per-chip"
        )
    if args.pretrain and (args.blocks_per_chip, args.rows) != (1, PackingConfig.rows):
        raise InputError(
            "--blocks-per-chip and --rows are for fine-tuning; give --batch with --pretrain"
        )


def run(args: argparse.Namespace) -> None:
    """Compile the step for every slice; print and save each forecast when it is ready."""
    from tinymu_jax.training.aot.compile import PRETRAINING_TOPOLOGIES, TOPOLOGIES, prepare_machine
    from tinymu_jax.training.aot.forecast import forecast, forecast_pretraining, pod_config

    mesh = parse_mesh(args.mesh) if args.mesh else None
    check_options(args)
    default = PackingConfig()
    scale = args.rows / default.rows
    packing = replace(
        default,
        rows=args.rows,
        max_clips=round(default.max_clips * scale),
        max_labels=round(default.max_labels * scale),
    )
    config = pod_config()
    dtype = {"gradient_dtype": args.gradient_dtype}
    config = replace(
        config, encoder=replace(config.encoder, **dtype), decoder=replace(config.decoder, **dtype)
    )
    prepare_machine()
    steps: list[Forecast] = []
    accum = args.grad_accum_steps
    for topology in args.topology or (PRETRAINING_TOPOLOGIES if args.pretrain else TOPOLOGIES):
        if args.pretrain:
            steps.append(forecast_pretraining(topology, mesh, args.batch, accum))
        else:
            blocks = args.blocks_per_chip
            steps.append(forecast(topology, mesh, blocks, accum, packing, config))
        if not args.markdown:
            print(describe(steps[-1]), flush=True)
        if args.json:
            make_folder(args.json.parent)
            write_text(args.json, json.dumps([as_dict(step) for step in steps], indent=1) + "\n")
    if args.markdown:
        print(table(steps))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print the forecasts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--topology", action="append", help="slice such as v5e:16x16; may be repeated")
    add("--mesh", help="data,fsdp,tensor; default: data parallelism only")
    add("--blocks-per-chip", type=int, default=1, help="blocks per chip and step (default: 1)")
    add("--grad-accum-steps", type=int, default=1, help="gradient accumulation (default: 1)")
    add("--rows", type=int, default=8, help="rows of 1,024 positions per block (default: 8)")
    add(
        "--gradient-dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="dtype in which chips add up gradients of linear layers, as step.gradient_dtype",
    )
    add("--pretrain", action="store_true", help="compile the pre-training step")
    add("--batch", type=int, default=2048, help="crops per pre-training step (default: 2048)")
    add("--json", type=Path, help="file to write all numbers to")
    add("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args(arguments)
    with one_line_errors():
        run(args)


if __name__ == "__main__":
    main()
