"""Compiles the full-size training step for TPU pods on a machine without a TPU.

    python launch/compile_for_pod.py                                    the four pods of the README
    python launch/compile_for_pod.py --topology v5e:4x4 --mesh 4,4,1    another mesh
    python launch/compile_for_pod.py --pretrain                         the encoder's pre-training

It says whether the step fits, what is moved between the chips, and how long a step takes at the
chips' peak rates: the time of a real step is longer. Needs libtpu (Linux x86_64):
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
    """Reads "data,fsdp,tensor".

    Raises:
        InputError: it is something else.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise InputError(f"--mesh {text}: give data,fsdp,tensor as three numbers, such as 16,1,1")
    return MeshConfig(*map(int, parts))


def as_dict(found: "Forecast") -> dict[str, Any]:
    """Returns a forecast as plain containers, ready for json."""
    moved = {kind: item._asdict() for kind, item in found.collectives.items()}
    return found._asdict() | {"collectives": moved}


def describe(found: "Forecast") -> str:
    """Returns a forecast in words and numbers."""
    memory, seconds = found.memory, found.seconds
    sizes = {name: f"{size / GB:.2f}" for name, size in memory.items()}
    lines = [
        f"{found.topology}: {found.chips} x {found.chip}, mesh data={found.mesh[0]} "
        f"fsdp={found.mesh[1]} tensor={found.mesh[2]}, {found.blocks} blocks a chip, "
        f"compiled in {found.compile_seconds:.0f} s; per chip:",
        f"  memory      {sizes['total']} of {sizes['chip']} GB: arguments {sizes['arguments']}, "
        f"outputs {sizes['outputs']} ({sizes['aliased']} of them in the arguments' place), "
        f"temporaries {sizes['temporaries']}, program {sizes['program']}",
        f"  operations  {found.flops / TERA:.2f} TFLOP needed, {found.computed_flops / TERA:.2f} "
        f"computed (XLA, loops counted once: {found.once['flops'] / TERA:.2f})",
        f"  traffic     {found.memory_bytes / GB:.1f} GB to and from memory "
        f"(XLA, loops counted once: {found.once['bytes'] / GB:.1f})",
    ]
    lines += [
        f"  {kind:<18} {item.count} times, {item.size / GB:.3f} GB, of which a chip sends "
        f"{item.sent / GB:.3f} GB"
        for kind, item in sorted(found.collectives.items())
    ]
    times = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in seconds.items())
    lines.append(
        f"  at peak     milliseconds: {times}; MFU {100 * found.mfu:.0f} %, "
        f"{found.rate:,.0f} {found.counted}/s in all"
    )
    return "\n".join(lines)


def table(forecasts: Sequence["Forecast"]) -> str:
    """Returns forecasts as a table in markdown."""
    rows = [
        "| slice | mesh (data, fsdp, tensor) | memory a chip | operations | memory traffic | "
        f"between chips | step at peak rates | MFU | {forecasts[0].counted}/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in forecasts:
        moved = ", ".join(
            f"{item.count} {kind}" for kind, item in sorted(found.collectives.items())
        )
        sent = sum(item.sent for item in found.collectives.values())
        mesh = ", ".join(map(str, found.mesh))
        seconds = {name: f"{1e3 * value:.0f}" for name, value in found.seconds.items()}
        rows.append(
            f"| {found.topology}, {found.chips} x {found.chip} | {mesh} "
            f"| {found.memory['total'] / GB:.1f} of {found.memory['chip'] / GB:.0f} GB "
            f"| {found.computed_flops / TERA:.1f} TFLOP | {found.memory_bytes / GB:.0f} GB "
            f"| {sent / GB:.2f} GB ({moved}) "
            f"| {seconds['step']} ms (compute {seconds['compute']}, memory {seconds['memory']}, "
            f"links {seconds['links']}) "
            f"| {100 * found.mfu:.0f} % | {found.rate:,.0f} |"
        )
    return "\n".join(rows)


def run(args: argparse.Namespace) -> list["Forecast"]:
    """Compiles for every slice, and prints and saves what was found as it comes."""
    from tinymu_jax.training.aot.compile import PRETRAINING_TOPOLOGIES, TOPOLOGIES, prepare_machine
    from tinymu_jax.training.aot.forecast import forecast, forecast_pretraining

    mesh = parse_mesh(args.mesh) if args.mesh else None
    least = {"--blocks-per-chip": args.blocks_per_chip, "--accumulate": args.accumulate}
    for name, value in (least | {"--rows": args.rows, "--batch": args.batch}).items():
        if value < 1:
            raise InputError(f"{name} {value}: give 1 or more")
    if args.blocks_per_chip % args.accumulate and not args.pretrain:
        raise InputError(
            f"--accumulate {args.accumulate}: does not part {args.blocks_per_chip} blocks evenly; "
            "give a divisor of --blocks-per-chip"
        )
    if args.pretrain and (args.blocks_per_chip, args.rows) != (1, PackingConfig.rows):
        raise InputError(
            "--blocks-per-chip and --rows are fine-tuning's; give --batch with --pretrain"
        )
    whole, packing = PackingConfig(), PackingConfig(rows=args.rows)
    share = args.rows / whole.rows
    packing = replace(
        packing, max_clips=round(whole.clips * share), max_labels=round(whole.labels * share)
    )
    prepare_machine()
    found: list[Forecast] = []
    for topology in args.topology or (PRETRAINING_TOPOLOGIES if args.pretrain else TOPOLOGIES):
        if args.pretrain:
            found.append(forecast_pretraining(topology, mesh, args.batch, args.accumulate))
        else:
            found.append(forecast(topology, mesh, args.blocks_per_chip, args.accumulate, packing))
        if not args.markdown:
            print(describe(found[-1]), flush=True)
        if args.json:
            make_folder(args.json.parent)
            write_text(args.json, json.dumps([as_dict(item) for item in found], indent=1) + "\n")
    if args.markdown:
        print(table(found))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the options and compiles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", action="append", help="as v5e:16x16; may be repeated")
    parser.add_argument("--mesh", help="data,fsdp,tensor; default: copies of the model alone")
    parser.add_argument("--blocks-per-chip", type=int, default=1)
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a chip's blocks")
    parser.add_argument("--rows", type=int, default=8, help="of a block, 1,024 slots each")
    parser.add_argument("--pretrain", action="store_true", help="the step of pre-training")
    parser.add_argument("--batch", type=int, default=2048, help="crops of such a step in all")
    parser.add_argument("--json", type=Path, help="where all numbers go")
    parser.add_argument("--markdown", action="store_true", help="print the README's table")
    args = parser.parse_args(arguments)
    with one_line_errors():
        run(args)


if __name__ == "__main__":
    main()
