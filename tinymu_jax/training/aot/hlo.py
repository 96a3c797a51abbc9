"""Parse the text of a compiled program (HLO): its instructions, and how often each one runs.

Loops count with all their iterations, unlike in jax's `cost_analysis()`.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}


class Op(NamedTuple):
    """One HLO instruction."""

    name: str
    kind: str
    """Opcode, such as "fusion" or "all-reduce"."""
    shape: str
    """Text of the result's shape, with data type and layout."""
    operands: tuple[str, ...]
    """Names of the operand instructions; for a constant its value, for a parameter its number."""
    attributes: str
    root: bool


class Program(NamedTuple):
    """A parsed HLO module."""

    computations: dict[str, dict[str, Op]]
    """Computation name -> instruction name -> instruction."""
    entry: str
    """Name of the computation that the program starts with."""
    devices: int
    """Number of devices that run the program together."""


def _closing(text: str) -> int:
    """Return the index at which the bracket at the start of a text is closed."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return index
    raise ValueError(f"unbalanced brackets in the program's text: {text[:80]}")


def _read_op(line: str) -> Op | None:
    """Parse a line of HLO text; return None if it is not an instruction."""
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)", line)
    if not match:
        return None
    root, name, rest = match.groups()
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    kind, rest = rest[:start], rest[start:]
    end = _closing(rest)
    inside, attributes = rest[1:end], rest[end + 1 :]
    names = re.findall(r"%([\w.\-]+)", inside) or re.findall(r"[^,\s]+", inside)
    return Op(name, kind, shape, tuple(names), attributes, bool(root))


def read_program(text: str) -> Program:
    """Parse `compiled.as_text()`; raise `ValueError` if the text has no entry computation."""
    computations: dict[str, dict[str, Op]] = {}
    entry, current = "", {}
    for raw in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", raw)
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif op := _read_op(line):
            current[op.name] = op
    if not entry:
        raise ValueError("the program's text has no entry")
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", text.split("\n", 1)[0])
    return Program(computations, entry, math.prod(int(n) for n in counts))


def shape_bytes(shape: str, memory_only: bool = False) -> float:
    """Return the bytes of all arrays in `shape`, the HLO text of an array's or a tuple's shape.

    With `memory_only`, arrays in on-chip memory (`S(1)` or higher in the layout) do not count.
    """
    total = 0.0
    for kind, sizes, layout in re.findall(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", shape):
        if memory_only and re.search(r"S\([1-9]", layout):
            continue
        bits = BITS.get(kind) if kind in BITS else int(re.search(r"\d+", kind)[0])
        total += math.prod(int(n) for n in sizes.split(",") if n) * bits / 8
    return total


def elements(shape: str) -> list[str]:
    """Return the shapes of a tuple's elements, given its shape; return [`shape`] for an array."""
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
    """Return the names of the computations that `op` calls, except a loop's body and condition."""
    branches = re.search(r"branch_computations=\{([^}]*)\}", op.attributes)
    names = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
    keys = r"(?:calls|to_apply|true_computation|false_computation)"
    return names + re.findall(keys + r"=%?([\w.\-]+)", op.attributes)


def trip_count(program: Program, loop: Op) -> int:
    """Return a loop's number of iterations, from XLA's annotation or its condition `i < n`.

    Raises `ValueError` if the loop has no annotation and its condition has another form.
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
    """Yield each computation that a program runs, as (name, number of runs).

    Begin with the computation `name` (default: the program's entry), which runs `times` times.
    Every branch of a conditional counts as executed. Computations inside fusions are left out.
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
