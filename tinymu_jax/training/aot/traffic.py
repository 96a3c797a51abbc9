"""What a compiled program moves, per chip and run: between chips, and to and from memory."""

import math
import re
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
"""Instructions that move nothing, or whose parts are counted by themselves."""

FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")
"""Custom calls of a TPU's programs that move nothing."""


class Collective(NamedTuple):
    """All collectives of one kind, per chip and run of the program."""

    count: int
    size: float
    """Bytes of the whole arrays: reduced, gathered, scattered or sent."""
    sent: float
    """Bytes that a chip sends if it does so round a ring."""


def group_size(op: Op, devices: int) -> int:
    """Returns how many devices take part in one group of a collective.

    Raises:
        ValueError: groups in a form that is not known.
    """
    found = re.search(r"replica_groups=(.*)", op.attributes)
    text = found[1] if found else "{}"
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
    """Returns a collective's kind, its whole array's bytes and what a chip sends of them."""
    kind, parts = op.kind.removesuffix("-start"), elements(op.shape)
    # A started one gives its operand too, but for an all-reduce.
    started = op.kind != kind and kind != "all-reduce" and len(parts) > 1
    size = shape_bytes(parts[1] if started else op.shape)
    if kind in ("collective-permute", "collective-broadcast"):
        return kind, size, size
    number = group_size(op, devices)
    share = (number - 1) / number
    if kind == "reduce-scatter":
        return kind, size * number, size * number * share
    if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):
        # How a TPU's program writes a reduce-scatter: the sum and the own part of it, fused.
        return "reduce-scatter", size, size * share
    return kind, size, size * share * (2 if kind == "all-reduce" else 1)


def collectives(program: Program) -> dict[str, Collective]:
    """Returns what a run moves between chips, by kind."""
    found: dict[str, Collective] = {}
    seen: set[str] = set()

    def add(name: str, times: int) -> None:
        for op in program.computations[name].values():
            if op.kind == "fusion":
                for inner in called(op):
                    add(inner, times)
            if op.kind.removesuffix("-start") not in COLLECTIVES:
                continue
            channel = re.search(r"channel_id=(\d+)", op.attributes)
            own = channel[1] if channel else f"{name}/{op.name}"
            if own in seen:
                # One transfer in several pieces, each fused with what is computed meanwhile.
                continue
            seen.add(own)
            kind, size, sent = _collective(op, name, program.devices)
            old = found.get(kind, Collective(0, 0.0, 0.0))
            found[kind] = Collective(
                old.count + times, old.size + times * size, old.sent + times * sent
            )

    for name, times in executed(program):
        add(name, times)
    return found


def memory_bytes(program: Program) -> float:
    """Returns the bytes that a run reads from and writes to the chip's main memory.

    Every instruction outside of a fusion reads what it is given and writes what it makes; of what
    it only cuts a piece from or writes a piece into, the piece counts. Arrays that XLA has put
    into the chip's own memory count where they are copied. Padding of layouts is not known here.
    """
    total = 0.0
    for name, times in executed(program):
        own = program.computations[name]
        total += times * sum(_moved(program, own, op) for op in own.values())
    return total


def _moved(program: Program, own: dict[str, Op], op: Op) -> float:
    if FREE.fullmatch(op.kind):
        return 0.0
    if any(f'custom_call_target="{name}"' in op.attributes for name in FREE_CALLS):
        return 0.0
    if op.kind.endswith("-start") and op.kind.removesuffix("-start") not in COLLECTIVES:
        # Copies and slices: one part is where it comes from, the other where it goes.
        parts = sorted(elements(op.shape)[:2], key=shape_bytes)
        size = shape_bytes(parts[0])
        return size * sum(shape_bytes(part, memory_only=True) > 0 for part in parts)
    inside = _inner(program, op)
    given = [own[name].shape if name in own else "" for name in op.operands]
    if inside is None:
        body = {op.name: op._replace(root=True)}
        return _written(body, op) + sum(
            _read(program, body, name, shape)
            for name, shape in zip(op.operands, given, strict=True)
        )
    names = {int(o.operands[0]): name for name, o in inside.items() if o.kind == "parameter"}
    read = sum(
        _read(program, inside, names[i], shape) for i, shape in enumerate(given) if i in names
    )
    return read + _written(inside, op)


def _inner(program: Program, op: Op) -> dict[str, Op] | None:
    return program.computations[called(op)[0]] if op.kind == "fusion" else None


def _read(program: Program, body: dict[str, Op], name: str, shape: str) -> float:
    """Returns the bytes that a body reads of an array that it calls `name`."""
    whole = shape_bytes(shape, memory_only=True)
    if not whole:
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
                return whole
    return min(total, whole)


def _written(body: dict[str, Op], op: Op) -> float:
    """Returns the bytes that a body writes of what `op` gives."""
    root = next(o for o in body.values() if o.root)
    made = [body[name] for name in root.operands] if root.kind == "tuple" else [root]
    total = 0.0
    for shape, source in zip(elements(op.shape), made, strict=False):
        while source.kind == "bitcast" and source.operands[0] in body:
            source = body[source.operands[0]]
        size = shape_bytes(shape, memory_only=True)
        if size and source.kind == "dynamic-update-slice" and source.operands[1] in body:
            size = min(size, shape_bytes(body[source.operands[1]].shape))
        total += size
    return total
