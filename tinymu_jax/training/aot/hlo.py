"""Reads the text of a compiled program: its instructions, and how often each of them runs.

XLA's own analysis counts the body of a loop once; `executed` says how often it runs.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}


class Op(NamedTuple):
    """One instruction."""

    name: str
    kind: str
    """Its opcode."""
    shape: str
    """What it gives, with layouts."""
    operands: tuple[str, ...]
    """Names, or the text of a constant."""
    attributes: str
    root: bool


class Program(NamedTuple):
    """A module: its computations by name."""

    computations: dict[str, dict[str, Op]]
    entry: str
    devices: int
    """That run it together."""


def _closing(text: str) -> int:
    """Returns where the bracket closes that a text begins with."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return at
    raise ValueError(f"unbalanced brackets in the program's text: {text[:80]}")


def _read_op(line: str) -> Op | None:
    found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)", line)
    if not found:
        return None
    root, name, rest = found.groups()
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    kind, rest = rest[:start], rest[start:]
    end = _closing(rest)
    inside, attributes = rest[1:end], rest[end + 1 :]
    names = re.findall(r"%([\w.\-]+)", inside) or re.findall(r"[^,\s]+", inside)
    return Op(name, kind, shape, tuple(names), attributes, bool(root))


def read_program(text: str) -> Program:
    """Reads what `compiled.as_text()` gives.

    Raises:
        ValueError: it has no entry.
    """
    computations: dict[str, dict[str, Op]] = {}
    entry, own = "", {}
    for raw in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", raw)
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            own = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif op := _read_op(line):
            own[op.name] = op
    if not entry:
        raise ValueError("the program's text has no entry")
    found = re.findall(r"(?:num_partitions|replica_count)=(\d+)", text.split("\n", 1)[0])
    return Program(computations, entry, math.prod(int(n) for n in found))


def shape_bytes(shape: str, memory_only: bool = False) -> float:
    """Returns the bytes of all arrays of a shape, or of those that lie in the chip's memory.

    `S(1)` behind a layout says that an array lies on the chip itself.
    """
    total = 0.0
    for kind, sizes, layout in re.findall(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", shape):
        if memory_only and re.search(r"S\([1-9]", layout):
            continue
        bits = BITS.get(kind) if kind in BITS else int(re.search(r"\d+", kind)[0])
        total += math.prod(int(n) for n in sizes.split(",") if n) * bits / 8
    return total


def elements(shape: str) -> list[str]:
    """Returns the parts of a tuple's shape, or the shape alone."""
    if not shape.startswith("("):
        return [shape]
    parts, rest = [], shape[1:-1]
    while rest:
        start = 0 if rest[0] in "(" else rest.index("[")
        end = start
        while end < len(rest) and rest[end] in "([{":
            end += _closing(rest[end:]) + 1
        parts.append(rest[:end])
        rest = rest[end:].lstrip(", ")
    return parts


def called(op: Op) -> list[str]:
    """Returns the computations that an instruction uses, a loop's aside."""
    found = re.search(r"branch_computations=\{([^}]*)\}", op.attributes)
    names = re.findall(r"%?([\w.\-]+)", found[1]) if found else []
    keys = r"(?:calls|to_apply|true_computation|false_computation)"
    return names + re.findall(keys + r"=%?([\w.\-]+)", op.attributes)


def trip_count(program: Program, loop: Op) -> int:
    """Returns how often a loop runs: as noted, or by its condition `i < n`, i from 0 by 1.

    Raises:
        ValueError: neither says.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]
    ops = list(program.computations[condition].values())
    ops += [o for op in ops for name in called(op) for o in program.computations[name].values()]
    limits = {op.operands[0] for op in ops if op.kind == "constant"}
    below = any(op.kind == "compare" and "direction=LT" in op.attributes for op in ops)
    if len(limits) != 1 or not below or not (limit := limits.pop()).isdigit():
        raise ValueError(f"loop {loop.name}: how often it runs cannot be read from {condition}")
    return int(limit)


def executed(program: Program, name: str = "", times: int = 1) -> Iterator[tuple[str, int]]:
    """Yields every computation that is run by itself, with how often: not those within fusions.

    Of the branches of a condition each counts.
    """
    name = name or program.entry
    yield name, times
    for op in program.computations[name].values():
        if op.kind == "while":
            body = re.search(r"body=%?([\w.\-]+)", op.attributes)[1]
            yield from executed(program, body, times * trip_count(program, op))
        elif op.kind in ("conditional", "call", "async-start"):
            for inner in called(op):
                yield from executed(program, inner, times)
