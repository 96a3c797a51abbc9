"""Seeded mutations of files: of bytes, JSON and yaml trees, table cells, records and pickles.

A mutation is a function of a `random.Random` and a file's content that returns the new content.
"""

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import yaml

CANARY = "canary"
"""File that the code in a crafted pickle or yaml writes to the working folder, should it run."""
NESTED = 20_000
"""Depth of nested values; Python's own limit is 1,000."""
EXTREMES = (0, 1, 2**7 - 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def mutate_bytes(draw: Random, data: bytes, start: int = 0, end: int | None = None) -> bytes:
    """Flip, cut, splice, remove or overwrite bytes one to four times, between two offsets."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randint(min(start, len(data)), min(len(data), end or len(data)))
        source, length = draw.randint(0, len(data)), draw.choice((1, 2, 4, 16, 200))
        match draw.randrange(5):
            case 0:
                new = bytes(byte ^ 1 << draw.randrange(8) for byte in data[at : at + 2])
                data = data[:at] + new + data[at + len(new) :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[source : source + length] + data[at + length :]
            case 3:
                data = data[:at] + data[at + length :]
            case 4:  # length fields of all widths
                width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
                new = (draw.choice(EXTREMES) % 2 ** (8 * width)).to_bytes(width, order)
                data = data[:at] + new + data[at + width :]
    return data


def mutate_header(draw: Random, data: bytes) -> bytes:
    """Mutate mostly the first 200 bytes of a file."""
    return mutate_bytes(draw, data, 0, draw.choice((60, 200, None)))


def mutate_ogg(draw: Random, data: bytes) -> bytes:
    """Mutate an ogg file, and mostly make the checksums of its pages right again."""
    data = mutate_header(draw, data)
    if draw.random() < 0.2:
        return data
    pages, at = bytearray(data), 0
    while data[at : at + 4] == b"OggS" and len(data) > at + 27:
        segments = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(segments) + sum(segments)
        pages[at + 22 : at + 26] = bytes(4)
        pages[at + 22 : at + 26] = _ogg_checksum(pages[at:end]).to_bytes(4, "little")
        at = end
    return bytes(pages)


def _ogg_checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


# --- trees ---------------------------------------------------------------------------------------

RAW_NUMBERS = (
    "0",
    "-1",
    "3",
    "1.5",
    "1e30",
    "1e308",
    "-1e999",
    "2147483648",
    "9" * 25,
    "9" * 400,
    "9" * 5000,
)
RAW_JSON = (
    *RAW_NUMBERS,
    *("null", "true", "NaN", "Infinity", '""', '"x"', '"\\ud800"', '"a\\nb\\u2028"', "[]", "{}"),
    *("[[1]]", '{"a": {}}', "1" * 40_000, json.dumps("x" * 300_000), '"../../x"', '"/etc/passwd"'),
    *("[" * NESTED + "]" * NESTED, '{"a":' * NESTED + "1" + "}" * NESTED, "[" * 100 + "]" * 100),
)
_APPLY = "!!python/object/apply:"
_BOMB = ", ".join(f"&b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 30))
RAW_YAML = (
    *RAW_NUMBERS,
    *(
        "~",
        "yes",
        ".nan",
        ".inf",
        "''",
        "'x'",
        "[]",
        "{}",
        "2026-99-99",
        "2026-01-01",
        "0o9",
        "1:99",
    ),
    *(
        "!!int x",
        f"0x{'f' * 20_000}",
        "!!float x",
        "!!timestamp x",
        "!!binary x",
        "!!set {a, b}",
        "!!omap [a]",
        "*gone",
    ),
    *(
        "&r [*r]",
        "&m {? *m : 1}",
        "{? [1] : 2}",
        "{? {a: 1} : 2}",
        "!unknown x",
        "'\\ud800'",
        "a: b: c",
    ),
    *(
        "[" * 5000 + "]" * 5000,
        "{a: " * 5000 + "1" + "}" * 5000,
        "x" * 300_000,
        "!!str 1",
        "|\n  a",
    ),
    *(
        f"{_APPLY}os.system ['touch {CANARY}']",
        f"{_APPLY}builtins.eval [\"open('{CANARY}', 'w')\"]",
    ),
    *("!!python/name:os.system", "!!python/module:os", "!!python/object:os.stat_result {}"),
    *(f"!!python/object/new:subprocess.Popen [['touch', {CANARY}]]", "!!python/tuple [1, 2]"),
    *([f"[&b0 [x, x], {_BOMB}]"] * 3),
)
"""Texts in place of a value; the last one is exponential, the "billion laughs" of aliases."""


def mutate_json(draw: Random, data: bytes) -> bytes:
    """Change values, names or order in a JSON tree, or sometimes bytes of the text."""
    return _mutate_tree(draw, data, json.loads, json.dumps, RAW_JSON)


def mutate_yaml(draw: Random, data: bytes) -> bytes:
    """Change values, names or order in a yaml tree, or sometimes bytes of the text."""
    dump = partial(yaml.safe_dump, width=10**6)
    return _mutate_tree(draw, data, yaml.safe_load, dump, RAW_YAML)


def _mutate_tree(
    draw: Random,
    data: bytes,
    parse: Callable[[bytes], Any],
    dump: Callable[[Any], str],
    raw_values: Sequence[str],
) -> bytes:
    if draw.random() < 0.2:
        return mutate_bytes(draw, data)
    tree, raw = parse(data), {}
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        _change(draw, tree, raw_values, raw)
    return _with_raw(dump(tree), raw)


def mutate_lines(draw: Random, data: bytes) -> bytes:
    """Change one line of JSON lines, or its place."""
    lines = data.split(b"\n")
    number = draw.randrange(len(lines))
    if lines[number] and draw.random() < 0.8:
        lines[number] = mutate_json(draw, lines[number])
    else:
        lines[number] = draw.choice((b"", b"\0", b"[]", b"1", b"\r", b"\xff", draw.choice(lines)))
    return b"\n".join(lines)


def _change(draw: Random, tree: Any, choices: tuple[str, ...], raw: dict[str, str]) -> None:
    """Replace, repeat, rename or remove an entry of a tree, in place.

    Values that no tree holds, such as repeated keys and endless nesting, are put in by a mark, and
    `raw` gets the text by mark.
    """
    entries = list(_entries(tree))
    if not entries:
        return
    parent, key = draw.choice(entries)
    mark = f"mark{len(raw)}mark"
    match draw.randrange(10):
        case 0:
            del parent[key]
        case 1:
            other, name = draw.choice(entries)
            parent[key] = json.loads(json.dumps(other[name]))
        case 2 if isinstance(parent, dict):
            parent[draw.choice(("", "x", "a/b", "é\n", f"{key}2"))] = parent.pop(key)
        case 3 if isinstance(parent, dict):  # the key twice
            parent[mark] = 0
            raw[mark] = json.dumps(key)
        case _:
            parent[key] = mark
            raw[mark] = draw.choice(choices)


def _entries(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key or index) of a tree."""
    keys = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    )
    return [(tree, key) for key in keys] + [e for key in keys for e in _entries(tree[key])]


def _with_raw(text: str, raw: dict[str, str]) -> bytes:
    """Return the text, with every marked value (and the quotes around it) replaced."""
    for mark, new in raw.items():
        text = text.replace(f'"{mark}"', new).replace(mark, new)
    return text.encode("utf-8", "surrogatepass")


# --- tables and programs -------------------------------------------------------------------------

CELLS = (
    *RAW_NUMBERS,
    *("", " ", "nan", "inf", '"', '"a', 'a"b', "\0", "\ufeff", "\u2028", "é", "\ud800", "\r", "\n"),
    *("[" * NESTED, "[" + "-" * NESTED + "1]", "['a', 1]", "x" * 200_000, "../../x", "/etc/passwd"),
    *("True", "-0", "1_0", "٣", "=1+1", "a;b;;a", "|", "," * 1000, '"' * 999),
)


def mutate_table(draw: Random, data: bytes) -> bytes:
    """Replace, repeat or remove cells of a csv or tsv, or sometimes bytes of the text."""
    if draw.random() < 0.2:
        return mutate_bytes(draw, data)
    return _mutate_parts(draw, data, r"([,;\t\n])", CELLS)


PROGRAM = (
    *RAW_NUMBERS,
    *("", "None", "'x'", "()", "[]", "(" * 300, "1 / 0", "raise SystemExit('stopped')", "exit()"),
    *("import nothing", "raise KeyboardInterrupt", "\0", "é", "\t", "def f(): f()\nf()\n"),
    *("raise ValueError('a\\nb')", "int('x')", "config", "open('gone')", "-" * 5000 + "1"),
)


def mutate_program(draw: Random, data: bytes) -> bytes:
    """Replace, repeat or remove words of a config file in Python."""
    return _mutate_parts(draw, data, r"([^\w.]+)", PROGRAM)


def _mutate_parts(draw: Random, data: bytes, separator: str, choices: tuple[str, ...]) -> bytes:
    parts = re.split(separator, data.decode())
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = (
            2 * draw.randrange(len(parts) // 2 + 1)
            if draw.random() < 0.8
            else draw.randrange(len(parts))
        )
        match draw.randrange(6):
            case 0:
                parts[at] = ""
            case 1:
                parts[at] = draw.choice(parts)
            case 2:
                parts[at] *= 2
            case _:
                parts[at] = draw.choice(choices)
    return "".join(parts).encode("utf-8", "surrogatepass")


# --- pickles, and the archives around them -------------------------------------------------------

_STORAGE = b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ"
_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage" + _STORAGE


def _tensor(numel: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return the pickle of a float32 tensor of the storage "0"."""
    numbers = [pickle.dumps(value, 2)[2:-1] for value in (size, stride)]
    tail = b"tQK\0" + b"".join(numbers) + b"\x89ccollections\nOrderedDict\n)RtR"
    return _TENSOR + struct.pack("<i", numel) + tail


def _call(module: str, name: str, argument: str) -> bytes:
    """Return a pickle that calls a function with a text."""
    text = argument.encode()
    return f"c{module}\n{name}\n".encode() + b"X" + struct.pack("<I", len(text)) + text + b"\x85R"


_CODE = f"open('{CANARY}', 'w')"
_TUPLES = b"X\x01\0\0\0xq\0" + b"0h\0h\0\x86q\0" * 60
"""A tuple of two tuples of two tuples ...: 2^60 texts for whoever prints or hashes it."""
CRAFTED = (
    *(_call(module, "system", f"touch {CANARY}") for module in ("os", "posix", "nt")),
    *(_call("builtins", name, _CODE) for name in ("eval", "exec")),
    *(_call("__builtin__", name, _CODE) for name in ("eval", "exec")),
    _call("subprocess", "Popen", f"touch {CANARY}"),
    _call("torch.serialization", "load", "x.pt"),
    _call("numpy", "load", "x.npy"),
    _call("torch._utils", "__globals__", "x"),
    b"}X\x05\0\0\0model" + _call("os", "system", f"touch {CANARY}") + b"s",
    b"(S'touch canary'\nios\nsystem\n",  # INST
    b"(cos\nsystem\nS'touch canary'\no",  # OBJ
    b"cos\nsystem\nX\x0c\0\0\0touch canary\x85\x81",  # NEWOBJ
    b"\x82\x01\x83\x01\0\x84\x01\0\0\0",  # EXT
    b"X\x02\0\0\0osX\x06\0\0\0system\x93X\x0c\0\0\0touch canary\x85R",  # STACK_GLOBAL
    b"]" * NESTED + b"a" * (NESTED - 1),
    b"(" * NESTED + b"t" * NESTED,
    _TUPLES,
    b"}" + _TUPLES + b"N s",
    b"}" + _TUPLES + b"Ns",
    b"}X\x05\0\0\0model}" + _TUPLES + b"Nss",
    b"cbuiltins\nset\n](" + _TUPLES + b"e\x85R",
    b"\x8f(" + _TUPLES + b"\x90",
    b"\x8a\xff" + b"\x7f" * 255,
    b"\x8b\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"Nr\xff\xff\xff\x7f",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN",
    b"}X\x05\0\0\0model}X\x01\0\0\0a" + _tensor(1, (2**40,), (0,)) + b"ss",
    b"}X\x01\0\0\0a" + _tensor(1, (1,) * 70, (0,) * 70) + b"s",
    b"}X\x01\0\0\0a" + _tensor(1, (2**70, 0), (1, 1)) + b"s",
    b"}X\x09\0\0\0cls_token" + _tensor(1, (1, 1, 2**40), (0, 0, 0)) + b"s",
)


def mutate_torch(draw: Random, data: bytes) -> bytes:
    """Mutate a zip checkpoint: its bytes, its pickle with a sound checksum, or its records."""
    if draw.random() < 0.3:
        return mutate_bytes(draw, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    number = next(n for n, (name, _) in enumerate(records) if name.endswith("data.pkl"))
    compression, choice = zipfile.ZIP_STORED, draw.randrange(10)
    if choice < 5:
        records[number] = records[number][0], mutate_bytes(draw, records[number][1])
    elif choice < 7:
        records[number] = records[number][0], b"\x80\x02" + draw.choice(CRAFTED) + b"."
    elif choice == 7:
        compression = zipfile.ZIP_DEFLATED
        number = draw.randrange(len(records))
        size = 3 * 10**8 if draw.random() < 0.1 else 10**6
        records[number] = records[number][0], bytes(size)
    else:
        number = draw.randrange(len(records))
        name, content = records.pop(number)
        names = ("", "x/y", "../x", "/x", name, f"{name}x", records[0][0])
        records.insert(0, (draw.choice(names), mutate_bytes(draw, content)))
    return _to_zip(records, compression)


def _to_zip(records: list[tuple[str, bytes]], compression: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()


def mutate_pickle(draw: Random, data: bytes) -> bytes:
    """Mutate a file that is a pickle, as torch wrote before 1.6, or put crafted code behind it."""
    magic = data[: draw.choice((0, 2, 15, 19))]
    return mutate_bytes(draw, data) if draw.random() < 0.6 else magic + draw.choice(CRAFTED) + b"."


def mutate_safetensors(draw: Random, data: bytes) -> bytes:
    """Mutate the header of a safetensors file: as json of the right length, or as bytes."""
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.4:
        return mutate_bytes(draw, data, 0, draw.choice((8, 8 + size, None)))
    header = mutate_json(draw, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


Mutation = Callable[[Random, bytes], bytes]
