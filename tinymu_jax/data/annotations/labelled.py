"""Recordings with labels and a split: what probes and taggers learn from."""

import csv
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import read_text

FILE_COLUMNS, LABEL_COLUMNS = ("file", "file_name"), ("label", "labels")

LABEL_SEPARATOR = ";"
"""Stands between the labels of a recording that has several."""

SPLITS = ("train", "valid", "test")

SPLIT_ALIASES = {"val": "valid", "validation": "valid", "dev": "valid", "eval": "test"}
"""Of parts, in tables."""


class LabelledClip(NamedTuple):
    """A recording of a data set."""

    path: Path
    labels: tuple[str, ...]
    split: str
    """One of `SPLITS`, or the name of a fold."""
    denied: tuple[str, ...] | None = None
    """Labels that it is known not to have, where nothing is known of the others."""


class LabelledSet(NamedTuple):
    """A data set of them."""

    name: str
    clips: Sequence[LabelledClip]
    multi_label: bool
    """Whether a recording may have any number of labels: then mean average precision is measured,
    else accuracy."""

    @property
    def classes(self) -> list[str]:
        """Returns all labels, sorted: the order of a probe's outputs."""
        return sorted({label for item in self.clips for label in item.labels})

    @property
    def folds(self) -> list[str]:
        """Returns the names of the folds, each of which is tested in turn; [] where there are
        parts instead."""
        names = {item.split for item in self.clips}
        return [] if names <= set(SPLITS) else sorted(names)

    def targets(self) -> tuple[Bool[np.ndarray, "R classes"], Bool[np.ndarray, "R classes"]]:
        """Returns which labels each recording has, and of which of them that is known.

        Labels are in the order of `classes`.
        """
        place = {name: number for number, name in enumerate(self.classes)}
        wanted = np.zeros((len(self.clips), len(place)), bool)
        known = np.ones_like(wanted)
        for row, item in enumerate(self.clips):
            wanted[row, [place[label] for label in item.labels]] = True
            if item.denied is not None:
                named = [place[label] for label in (*item.labels, *item.denied) if label in place]
                known[row] = False
                known[row, named] = True
        return wanted, known

    def indices(self, split: str) -> Int[np.ndarray, "_"]:
        """Returns the numbers of the recordings of a part or fold."""
        return np.flatnonzero([item.split == split for item in self.clips])


def validate(found: LabelledSet) -> LabelledSet:
    """Holds a data set against what is needed to learn and to test.

    Raises:
        InputError: nothing to learn from or to test with, or a recording with no or several labels
            where each has one.
    """
    if len(found.classes) < 2:
        raise InputError(f"{found.name}: has {len(found.classes)} label; a probe tells two or more")
    mixed = sorted(set(found.folds) & set(SPLITS))
    if mixed:
        others = sorted(set(found.folds) - set(SPLITS))
        raise InputError(
            f"{found.name}: its splits are {mixed[0]!r} and {others[0]!r} among others; name parts "
            f"({', '.join(SPLITS)}) or folds, not both"
        )
    needed = found.folds if len(found.folds) > 1 else ("train", "test")
    for split in needed:
        if not len(found.indices(split)):
            raise InputError(f"{found.name}: has no recording of split {split!r}; add some")
    unfit = [item for item in found.clips if not found.multi_label and len(item.labels) != 1]
    if unfit:
        raise InputError(
            f"{found.name}: {unfit[0].path} has {len(unfit[0].labels)} labels, and each is to have "
            "one; correct it"
        )
    return found


def read_labelled_table(
    path: str | Path, folder: str | Path, label: str | None = None
) -> LabelledSet:
    """Reads a csv: `file` (or `file_name`), `label` or `labels` (several, by ";"), and `split`.

    Args:
        path: of the csv. Its `split` is train, valid or test, or a fold's name; without the column
            a tenth is for validation and a fifth for the test, by the names of the files.
        folder: where the recordings are.
        label: name of the column of labels, where it is another.

    Raises:
        InputError: it is missing, a column is, or a field is empty; or as `validate`.
    """
    column, rows = read_label_rows(path, label)
    clips = [
        LabelledClip(Path(folder) / file, own, split or _drawn(file)) for file, own, split in rows
    ]
    name = Path(path).stem if column in LABEL_COLUMNS else f"{Path(path).stem}, {column}"
    return validate(LabelledSet(name, clips, column == "labels"))


def read_labels_by_file(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Returns the labels of each recording of such a csv, by its name.

    Raises:
        InputError: as `read_labelled_table`; or a recording comes twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for file, labels, _ in read_label_rows(path, None)[1]:
        if file in found:
            raise InputError(f"{path}: names {file} twice; keep one line of each recording")
        found[file] = labels
    return found


def read_label_rows(
    path: str | Path, label: str | None
) -> tuple[str, list[tuple[str, tuple[str, ...], str]]]:
    """Returns the column of labels, and each line's file, labels and split ("" where none is)."""
    rows = list(csv.DictReader(io.StringIO(read_text(path, "name a csv of file, label, split"))))
    columns = list(rows[0]) if rows else []
    file = next((name for name in FILE_COLUMNS if name in columns), None)
    label = label or next((name for name in LABEL_COLUMNS if name in columns), None)
    if file is None or label not in columns:
        wanted = label or "label (or labels, or the name of another column with --label)"
        raise InputError(f"{path}: its first line does not name file and {wanted}; correct it")
    found = []
    for number, row in enumerate(rows, 2):
        empty = row[label] is None or not (row[label] or label == "labels")
        if None in row or not row[file] or empty:
            raise InputError(f"{path}: line {number} has empty or more fields; repair it")
        own = row[label].split(LABEL_SEPARATOR) if label == "labels" else [row[label]]
        labels = tuple(part.strip() for part in own if part.strip())
        split = row.get("split") or ""
        found.append((row[file], labels, SPLIT_ALIASES.get(split, split)))
    return label, found


def _drawn(name: str) -> str:
    """Returns the part of a recording by its name: the same on every machine."""
    number = zlib.crc32(name.encode()) % 10
    return "valid" if number == 0 else "test" if number < 3 else "train"
