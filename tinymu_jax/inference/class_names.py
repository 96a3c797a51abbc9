"""Reads the names of a classifier's classes from the data set's published file."""

import csv
import json
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, read_text


def read_labels(path: str | Path, num_classes: int | None = None) -> list[str]:
    """Read class names from a file, in the order of the classifier's outputs.

    Args:
        path: AudioSet's `class_labels_indices.csv` (the outputs are in the order of its column
            `mid`), a csv of index and name without a header, a json object of name -> index or
            index -> name, or a text file with one name per line.
        num_classes: expected number of classes; None: any number.

    Raises:
        InputError: the file is missing or malformed, or does not have `num_classes` names.
    """
    path = Path(path)
    if not exists(path):
        raise InputError(f"{path}: no such file; name the data set's list of classes")
    remedy = "give csv, json or one name a line"
    text = read_text(path, remedy)
    try:
        if path.suffix == ".json":
            names = _from_json(json.loads(text))
        elif path.suffix == ".csv":
            names = _from_csv(list(csv.reader(text.splitlines())))
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
    except (ValueError, KeyError, IndexError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: is not a list of classes ({error}); {remedy}") from error
    if num_classes is not None and len(names) != num_classes:
        raise InputError(
            f"{path}: names {len(names)} classes, the checkpoint has {num_classes}; name the list "
            "that belongs to it"
        )
    return names


def _from_json(mapping: dict[str, object]) -> list[str]:
    if all(isinstance(value, int) for value in mapping.values()):
        mapping = {str(index): name for name, index in mapping.items()}
    return _in_order({int(index): str(name) for index, name in mapping.items()})


def _in_order(names: dict[int, str]) -> list[str]:
    if sorted(names) != list(range(len(names))):
        raise ValueError("the indices are not 0, 1, 2, ...")
    return [names[index] for index in range(len(names))]


def _from_csv(rows: list[list[str]]) -> list[str]:
    if "mid" in rows[0]:
        mid, name = rows[0].index("mid"), rows[0].index("display_name")
        return [row[name] for row in sorted(rows[1:], key=lambda row: row[mid])]
    return _in_order({int(row[0]): row[1] for row in rows})


def read_class_indices(path: str | Path) -> dict[str, int]:
    """Return the classifier's output index of each class name in a file; see `read_labels`.

    For AudioSet's csv, the result also contains the index of each `mid` (class identifier).

    Raises:
        InputError: the file is missing or malformed.
    """
    indices = {name: index for index, name in enumerate(read_labels(path))}
    rows = list(csv.reader(read_text(path).splitlines()))
    if Path(path).suffix == ".csv" and "mid" in rows[0]:
        mid = rows[0].index("mid")
        indices |= {name: i for i, name in enumerate(sorted(row[mid] for row in rows[1:]))}
    return indices
