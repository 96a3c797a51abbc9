"""Count the bytes that a chip moves in a program run: to other chips, and to and from memory."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from tinymu_jax.training.aot.hlo import Op, Program, called, elements, executed, shape_bytes

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
FREE = re.compile(
    "parameter|constant|get-tuple-element|tuple|bitcast|while|conditional|call|after-all"
    "|partition-id|replica-id|opt-barrier|async-start|async-update|.*-done"
)
"""Opcodes that move no bytes themselves; the computations that they call may move bytes."""
FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")
"""Custom calls of TPU programs that move no bytes."""
WORK = ("fusion", "convolution", "dot", "custom-call", "while", "conditional")
"""Opcodes that take time enough for a transfer to go on meanwhile."""


class Collective(NamedTuple):
    """Totals of one kind of collective operation, per chip and run of the program."""

    count: int
    """Number of executions."""
    size: float
    """Bytes of the full arrays that are reduced, gathered, scattered or sent."""
    sent: float
    """Bytes that a chip sends if the devices form a ring."""
    overlapped: float = 0.0
    """Bytes of `sent` whose transfers begin before and end after other work."""


def group_size(op: Op, devices: int) -> int:
    """Return the number of devices in each group of a collective; `devices` is the total number.

    Raises `ValueError` if the instruction's replica groups are written in an unknown form.
    """
    groups = re.search(r"replica_groups=(.*)", op.attributes)
    text = groups[1] if groups else "{}"
    if text.startswith("{}"):
        return devices
    if text.startswith("{{"):
        return text[2:].split("}", 1)[0].count(",") + 1
    if iota := re.match(r"\[\d+,(\d+)\]<=", text):
        return int(iota[1])
    if mesh := re.match(r"mesh\[(.*?)\](?:, device_ids=\(.*?\)\))? ?\{(.*?)\}", text):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", mesh[1]))
        if ":" not in mesh[2]:
            return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']*)'", mesh[2]))
    raise ValueError(f"{op.name}: groups in an unknown form: {text[:80]}")


def _collective(op: Op, inside: str, devices: int) -> tuple[str, float, float]:
    """Return a collective's kind, the bytes of its whole array, and the bytes that a chip sends.

    `inside` is the name of the computation that contains `op`; `devices` is the number of chips.
    """
    kind, parts = op.kind.removesuffix("-start"), elements(op.shape)
    # A "-start" instruction returns its operand before its result, except for an all-reduce.
    has_operand = op.kind != kind and kind != "all-reduce" and len(parts) > 1
    size = shape_bytes(parts[1] if has_operand else op.shape)
    if kind in ("collective-permute", "collective-broadcast"):
        return kind, size, size
    number = group_size(op, devices)
    share = (number - 1) / number
    if kind == "reduce-scatter":
        return kind, size * number, size * number * share
    if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):
        # TPU programs write a reduce-scatter as a fusion of an all-reduce and a slice.
        return "reduce-scatter", size, size * share
    return kind, size, size * share * (2 if kind == "all-reduce" else 1)


def collectives(program: Program) -> dict[str, Collective]:
    """Return the totals of the collectives in one run of a program, by kind."""
    totals: dict[str, Collective] = {}
    counted: set[str] = set()

    def add(name: str, times: int, overlapped: bool = False) -> None:
        ops = program.computations[name]
        for op in ops.values():
            if op.kind == "fusion":
                for inner in called(op):
                    add(inner, times, _is_overlapped(ops, op.name))
            if op.kind.removesuffix("-start") not in COLLECTIVES:
                continue
            channel = re.search(r"channel_id=(\d+)", op.attributes)
            transfer = channel[1] if channel else f"{name}/{op.name}"
            if transfer in counted:
                # XLA may split a transfer into pieces, fused with other computation: count it once.
                continue
            counted.add(transfer)
            kind, size, sent = _collective(op, name, program.devices)
            hidden = overlapped or _is_overlapped(ops, op.name)
            new = Collective(times, times * size, times * sent, times * sent * hidden)
            old = totals.get(kind, Collective(0, 0.0, 0.0))
            totals[kind] = Collective(*map(sum, zip(old, new, strict=True)))

    for name, times in executed(program):
        add(name, times)
    return totals


def _is_overlapped(ops: Mapping[str, Op], name: str) -> bool:
    """Return whether instruction `name` starts a transfer that ends after other work.

    `ops` are all instructions of its computation, in the order in which the chip runs them.
    """
    if "-start" not in name:
        return False
    # The end reads the start's result, as it is or through the elements of a tuple.
    results, works = {name}, False
    order = list(ops)
    for other in order[order.index(name) + 1 :]:
        if results & set(ops[other].operands):
            if "-done" in other:
                return works
            results.add(other)
        is_transfer = "-start" in other or "-done" in other
        works |= ops[other].kind in WORK and not is_transfer
    return False


def kernel_calls(program: Program) -> int:
    """Return how often one run of a TPU program calls kernels that were written in Pallas."""
    target = 'custom_call_target="tpu_custom_call"'
    return sum(
        times * sum(target in op.attributes for op in program.computations[name].values())
        for name, times in executed(program)
    )


def memory_bytes(program: Program) -> float:
    """Return the bytes that a chip reads from and writes to its main memory in one run.

    Every instruction outside of a fusion reads its operands and writes its result. For slices and
    in-place updates, only the slice counts. Arrays in on-chip memory count only when they are
    copied from or to main memory. Layout padding does not count.
    """
    total = 0.0
    for name, times in executed(program):
        ops = program.computations[name]
        total += times * sum(_moved(program, ops, op) for op in ops.values())
    return total


def _moved(program: Program, ops: dict[str, Op], op: Op) -> float:
    """Return the bytes that `op` reads from and writes to main memory.

    `ops` are all instructions, by name, of the computation that contains `op`.
    """
    if FREE.fullmatch(op.kind):
        return 0.0
    if any(f'custom_call_target="{name}"' in op.attributes for name in FREE_CALLS):
        return 0.0
    if op.kind.endswith("-start") and op.kind.removesuffix("-start") not in COLLECTIVES:
        # A copy or slice returns its source and destination, of which the smaller one is moved.
        parts = sorted(elements(op.shape)[:2], key=shape_bytes)
        size = shape_bytes(parts[0])
        return size * sum(shape_bytes(part, memory_only=True) > 0 for part in parts)
    inside = _inner(program, op)
    shapes = [ops[name].shape if name in ops else "" for name in op.operands]
    if inside is None:
        body = {op.name: op._replace(root=True)}
        return _written(body, op) + sum(
            _read(program, body, name, shape)
            for name, shape in zip(op.operands, shapes, strict=True)
        )
    names = {int(o.operands[0]): name for name, o in inside.items() if o.kind == "parameter"}
    read = sum(
        _read(program, inside, names[i], shape) for i, shape in enumerate(shapes) if i in names
    )
    return read + _written(inside, op)


def _inner(program: Program, op: Op) -> dict[str, Op] | None:
    """Return the instructions inside a fusion; None for any other instruction."""
    return program.computations[called(op)[0]] if op.kind == "fusion" else None


def _read(program: Program, body: dict[str, Op], name: str, shape: str) -> float:
    """Return how many bytes of an array in main memory are read by the instructions in `body`.

    `name` is the array's name in `body`; `shape` is the HLO text of its shape.
    """
    size = shape_bytes(shape, memory_only=True)
    if not size:
        return 0.0
    total = 0.0
    for op in body.values():
        for place, operand in enumerate(op.operands):
            if operand != name or op.kind == "parameter":
                continue
            if op.kind in ("dynamic-slice", "slice", "gather") and place == 0:
                total += shape_bytes(op.shape)
            elif op.kind == "dynamic-update-slice" and place == 0:
                continue
            elif op.kind == "bitcast":
                total += _read(program, body, op.name, shape)
            elif inner := _inner(program, op):
                parameter = next(
                    n
                    for n, o in inner.items()
                    if o.kind == "parameter" and o.operands[0] == str(place)
                )
                total += _read(program, inner, parameter, shape)
            else:
                return size
    return min(total, size)


def _written(body: dict[str, Op], op: Op) -> float:
    """Return the bytes that `op` writes to main memory.

    `body` are the instructions inside `op` if it is a fusion; otherwise `body` contains only `op`.
    """
    root = next(o for o in body.values() if o.root)
    sources = [body[name] for name in root.operands] if root.kind == "tuple" else [root]
    total = 0.0
    for shape, source in zip(elements(op.shape), sources, strict=False):
        while source.kind == "bitcast" and source.operands[0] in body:
            source = body[source.operands[0]]
        size = shape_bytes(shape, memory_only=True)
        if size and source.kind == "dynamic-update-slice" and source.operands[1] in body:
            size = min(size, shape_bytes(body[source.operands[1]].shape))
        total += size
    return total
