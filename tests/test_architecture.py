"""The import rule of docs/architecture.md: a folder imports only from folders below it."""

import ast
from pathlib import Path

import pytest
from helpers import ROOT

# Lower imports from none above; rooms of one line do not import each other.
FLOORS = [
    {"errors"},
    {"utils", "tokenizer"},
    {"audio", "mesh"},
    {"models"},
    {"checkpoints"},
    {"inference"},
    {"data"},
    {"evaluation", "training", "qa_builder", "library", "notebook"},
    {"quickstart"},
    {"evaluation", "training", "qa_builder", "notebook"},
    {"quickstart", "server"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = ROOT / "tinymu_jax"


def room_of(module: str) -> str:
    """Returns the folder or root module below `tinymu_jax` that a module belongs to."""
    return module.split(".")[1] if module.startswith("tinymu_jax.") else module.split(".")[0]


def imports(path: Path) -> set[str]:
    """Returns the project's modules that a file imports, at its top or inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    return {
        m for m in modules if m.split(".")[0] in ("tinymu_jax", "configs", "conversion", "launch")
    }


def test_every_room_has_a_floor():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == set(FLOOR)


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_imports_point_downwards(room):
    place = PACKAGE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    upwards = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imports(path)
        if room_of(module) != room and FLOOR.get(room_of(module), len(FLOORS)) >= FLOOR[room]
    ]
    assert not upwards
