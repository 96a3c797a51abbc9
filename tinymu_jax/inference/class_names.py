"""Reads the names of a classifier's classes from the data set's published file."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, parse_json, read_text
from tinymu_jax.utils.tables import (
    SEPARATORS,
    TABLE_SUFFIXES,
    is_missing,
    read_lines,
    read_rows,
    strip,
)

MID, DISPLAY_NAME, INDEX = "mid", "display_name", "index"
"""Columns of AudioSet's `class_labels_indices.csv`."""
_NAME_COLUMNS = (DISPLAY_NAME, "name", "label", "class")
_REMEDY = "give csv, json or one name a line"
_FIRST_ROW = re.compile(rf'\s*"?\d+"?[^\S\t]*([{re.escape("".join(SEPARATORS))}])')
"""First line of a csv without a header: an index, and the separator of the cells."""


class _Classes(NamedTuple):
    names: list[str]
    """Names in the order of the classifier's outputs."""
    mids: list[str]
    """Class identifiers in the same order; [] if the file has none."""


def read_labels(path: str | Path, num_classes: int | None = None) -> list[str]:
    """Read class names from a file, in the order of the classifier's outputs.

    Args:
        path: AudioSet's `class_labels_indices.csv` (the outputs are in the order of its column
            `mid`), a csv of index and name with or without a header, a json object of name -> index
            or index -> name, a json list of names, or a text file with one name per line.
        num_classes: expected number of classes; None: any number.

    Raises:
        InputError: the file is missing or malformed, has an empty or repeated name, or does not
            have `num_classes` names.
    """
    names = _read(Path(path)).names
    if num_classes is not None and len(names) != num_classes:
        raise InputError(
            f"{path}: names {len(names)} classes, the checkpoint has {num_classes}; name the list "
            "that belongs to it"
        )
    return names


def read_class_indices(path: str | Path) -> dict[str, int]:
    """Return the classifier's output index of each class name in a file; see `read_labels`.

    For AudioSet's csv, the result also contains the index of each `mid` (class identifier).

    Raises:
        InputError: the file is missing or malformed.
    """
    names, mids = _read(Path(path))
    return {name: index for classes in (names, mids) for index, name in enumerate(classes)}


def _read(path: Path) -> _Classes:
    if not exists(path):
        raise InputError(f"{path}: no such file; name the data set's list of classes")
    mids: list[str] = []
    if path.suffix.lower() in TABLE_SUFFIXES:
        names, mids = _read_table(path)
    elif path.suffix.lower() == ".json":
        names = _read_json(path)
    else:
        names = list(filter(None, map(strip, read_text(path, _REMEDY).split("\n"))))
    if not names:
        raise InputError(f"{path}: is not a list of classes; {_REMEDY}")
    for classes in (names, mids):
        lines: dict[str, int] = {}
        for number, name in enumerate(classes, 1):
            if not strip(name) or is_missing(name) or "\n" in name or "\r" in name:
                raise InputError(f"{path}: class {number} has the name {name!r}; correct it")
            first = lines.setdefault(name, number)
            if first != number:
                raise InputError(
                    f"{path}: names a class twice: {name!r}, as class {first} and {number}; keep "
                    "each once"
                )
    return _Classes(names, mids)


def _read_table(path: Path) -> _Classes:
    content = read_text(path, _REMEDY)  # once, since it may come from a pipe
    head = _FIRST_ROW.match(content)
    if head is not None:  # no header
        pairs = []
        for line, cells in read_lines(path, _REMEDY, head[1], content=content):
            if len(cells) < 2 or any(cells[2:]):
                raise InputError(f"{path}: line {line} is not an index and a name; {_REMEDY}")
            pairs.append((cells[0], strip(cells[1])))
        return _Classes(_in_order(path, pairs), [])
    optional, group = (INDEX, MID), _NAME_COLUMNS
    rows = list(read_rows(path, (), _REMEDY, optional=optional, group=group, content=content))
    columns = rows[0].fields if rows else {}
    name = next((column for column in _NAME_COLUMNS if column in columns), None)
    if name is None or not {MID, INDEX} & set(columns):
        raise InputError(f"{path}: is not a list of classes; {_REMEDY}")
    if MID not in columns:
        pairs = [(row.name(INDEX), row.name(name)) for row in rows]
        return _Classes(_in_order(path, pairs), [])
    rows.sort(key=lambda row: row.name(MID))
    return _Classes([row.name(name) for row in rows], [row.name(MID) for row in rows])


def _read_json(path: Path) -> list[str]:
    content = parse_json(read_text(path, _REMEDY), path, _REMEDY)
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: is not a list of classes; {_REMEDY}")
    if all(isinstance(index, int) for index in content.values()):
        return _in_order(path, ((index, name) for name, index in content.items()))
    return _in_order(path, content.items())


def _in_order(path: Path, pairs: Iterable[tuple[Any, Any]]) -> list[str]:
    """Return the names in (index, name) pairs, in the order of the indices 0, 1, 2, ..."""
    try:
        ordered = sorted((int(index), str(name)) for index, name in pairs)
    except ValueError as error:
        raise InputError(f"{path}: is not a list of classes ({error}); {_REMEDY}") from error
    if [index for index, _ in ordered] != list(range(len(ordered))):
        raise InputError(
            f"{path}: is not a list of classes (the indices are not 0, 1, 2, ...); {_REMEDY}"
        )
    return [name for _, name in ordered]
