"""Data sets of recordings with labels and splits, for training and testing probes and taggers."""

import os
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tinymu_jax.audio.files import canonical_name, composed
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tables import FILE_COLUMNS, TableRow, read_rows

LABEL_COLUMNS, SPLIT_COLUMN, UNKNOWN_COLUMN = ("label", "labels"), "split", "unknown"
SPLITS = ("train", "valid", "test")
SPLIT_ALIASES = {
    **dict.fromkeys(("training", "trn"), "train"),
    **dict.fromkeys(("val", "validation", "validate", "dev", "devel", "development"), "valid"),
    **dict.fromkeys(("testing", "tst", "eval", "evaluation"), "test"),
}
"""Other spellings of the names of splits."""
_FOLD = re.compile(r"((fold|split|part|group|set|cv|k)[ _-]*)?(\d+(\.0)?|[a-z])")
"""Name of a cross-validation fold, in lower case: "3", "fold 3", "fold_c"."""


class LabelledClip(NamedTuple):
    """A recording with its labels and split."""

    path: Path
    labels: tuple[str, ...]
    split: str
    """One of `SPLITS`, or the name of a cross-validation fold."""
    denied: tuple[str, ...] | None = None
    """Labels that are known to be absent; a label in neither `labels` nor `denied` is unknown.
    If None, all labels that are not in `labels` are absent."""


class LabelledSet(NamedTuple):
    """A data set of labelled recordings."""

    name: str
    clips: Sequence[LabelledClip]
    multi_label: bool
    """Whether recordings have any number of labels (scored by mAP) or one (scored by accuracy)."""

    @property
    def classes(self) -> list[str]:
        """Sorted distinct labels of all recordings; a probe has one output per class."""
        return sorted({label for clip in self.clips for label in clip.labels})

    @property
    def folds(self) -> list[str]:
        """Sorted names of the cross-validation folds; [] if the data set has splits instead."""
        names = {clip.split for clip in self.clips}
        return [] if names <= set(SPLITS) else sorted(names)

    def targets(self) -> tuple[Bool[np.ndarray, "R classes"], Bool[np.ndarray, "R classes"]]:
        """Return the multi-hot labels of the R recordings, and a mask of the known labels."""
        index = {name: number for number, name in enumerate(self.classes)}
        targets = np.zeros((len(self.clips), len(index)), bool)
        known = np.ones_like(targets)
        for row, clip in enumerate(self.clips):
            targets[row, [index[label] for label in clip.labels]] = True
            if clip.denied is not None:
                known[row] = False
                known[row, [index[n] for n in (*clip.labels, *clip.denied) if n in index]] = True
        return targets, known

    def indices(self, split: str) -> Int[np.ndarray, "_"]:
        """Return the indices in `clips` of the recordings of a split or fold."""
        return np.flatnonzero([clip.split == split for clip in self.clips])


def describe_split(dataset: LabelledSet, all_splits: bool = False) -> str:
    """Return a text that tells which recordings are scored, such as "test (4 of 12 recordings)".

    These are the test split, or everything if `all_splits` or if the data set has folds.
    """
    total = len(dataset.clips)
    if dataset.folds:
        return f"all {len(dataset.folds)} folds: {', '.join(dataset.folds)} ({total} recordings)"
    counts = Counter(clip.split for clip in dataset.clips)
    if all_splits:
        parts = ", ".join(f"{split} {counts[split]}" for split in SPLITS if counts[split])
        return f"all ({total} recordings: {parts})"
    return f"test ({counts['test']} of {total} recordings)"


def validate(dataset: LabelledSet, path: str | Path | None = None) -> LabelledSet:
    """Return a data set after checking that a probe can be trained and tested on it.

    Errors name the data set's table `path`, or else the data set.

    Raises:
        InputError: the data set has fewer than two classes; splits are missing or mixed with
            folds; a recording of a single-label data set has no label or several.
    """
    name, folds, num_classes = path or dataset.name, dataset.folds, len(dataset.classes)
    if num_classes < 2:
        raise InputError(f"{name}: has {num_classes} label; a probe needs two or more")
    mixed = sorted(set(folds) & set(SPLITS))
    if mixed:
        others = sorted(set(folds) - set(SPLITS))
        raise InputError(
            f"{name}: its splits are {mixed[0]!r} and {others[0]!r} among others; name splits "
            f"({', '.join(SPLITS)}) or folds, not both"
        )
    for split in folds if len(folds) > 1 else ("train", "test"):
        if not len(dataset.indices(split)):
            raise InputError(f"{name}: has no recording of split {split!r}; add some")
    if not dataset.multi_label:
        for clip in dataset.clips:
            if len(clip.labels) != 1:
                raise InputError(
                    f"{name}: {clip.path} has {len(clip.labels)} labels instead of one; correct it"
                )
    return dataset


def read_labelled_table(
    path: str | Path, folder: str | Path, label: str | None = None
) -> LabelledSet:
    """Read a data set from a csv with the columns file, label and, optionally, split.

    Args:
        path: path of the csv. `file` (or `file_name`) is relative to `folder`. `label` holds one
            label, `labels` any number of labels separated by ";" or "|". `split` is train, valid,
            test (see `SPLIT_ALIASES` for other spellings) or the number of a fold. Without splits,
            a hash of the file name puts a tenth of the recordings into valid, a fifth into test and
            the rest into train.
        folder: folder of the recordings.
        label: name of the column that holds the label, if it is neither `label` nor `labels`.

    Raises:
        InputError: the csv or a column is missing, a field is empty, or two rows give a file
            different labels or splits; see also `validate`. The rows' `labels` are merged instead.
    """
    column, rows = read_label_rows(path, label)
    clips = [
        LabelledClip(Path(folder) / file, labels, split or _hash_split(file))
        for file, labels, split in rows
    ]
    name = Path(path).stem if column in LABEL_COLUMNS else f"{Path(path).stem}, {column}"
    return validate(LabelledSet(name, clips, column == "labels"), path)


def check_audio_folder(folder: str | Path, table: str | Path) -> None:
    """Raise `InputError` if the folder of the recordings that a table names does not exist."""
    if not Path(folder).is_dir():
        raise InputError(
            f"{folder}: is not a folder; name the one with the recordings of {table} (--audio)"
        )


def read_labels_by_file(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a csv as described in `read_labelled_table`; return each file's labels by file name.

    Raises:
        InputError: the csv is invalid, or names a file of one `label` twice.
    """
    labels_by_file: dict[str, tuple[str, ...]] = {}
    for file, labels, _ in read_label_rows(path, None, has_splits=False)[1]:
        if file in labels_by_file:
            raise InputError(f"{path}: names {file} twice; keep one line of each recording")
        labels_by_file[file] = labels
    return labels_by_file


def read_unknown_by_file(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read the labels of which a csv does not say whether they hold, by `canonical_name`.

    They are in the column `unknown`, separated by ";" or "|", which a csv may lack.
    """
    rows = read_rows(Path(path), (), "name a csv of file and labels", optional=(UNKNOWN_COLUMN,))
    unknown: dict[str, tuple[str, ...]] = {}
    for row in rows:
        file = next(row.name(name) for name in FILE_COLUMNS if name in row.fields)
        key = canonical_name(Path(file).name)
        unknown[key] = (*unknown.get(key, ()), *row.names(UNKNOWN_COLUMN))
    return unknown


def read_label_rows(
    path: str | Path, label: str | None, has_splits: bool = True
) -> tuple[str, list[tuple[str, tuple[str, ...], str]]]:
    """Return a csv's label column name, and each row's file, labels and split ("" if missing).

    Rows of `labels` that name the same file are merged into the first. Without `has_splits`, a
    column of splits is not read. See `read_labelled_table` for the columns
    and errors.
    """
    group = LABEL_COLUMNS if label is None else (label,)
    remedy = "name a csv of file, label, split"
    rows = list(read_rows(Path(path), (), remedy, optional=(SPLIT_COLUMN,), group=group))
    if not rows:
        raise InputError(f"{path}: has no rows; name a csv of file, label, split")
    columns = rows[0].fields
    file = next((name for name in FILE_COLUMNS if name in columns), None)
    label = label or next((name for name in LABEL_COLUMNS if name in columns), None)
    if file is None or label not in columns:
        expected = label or "label (or labels, or the name of another column with --label-column)"
        raise InputError(f"{path}: its first line does not name file and {expected}; correct it")
    splits = _read_splits(rows) if has_splits else [""] * len(rows)
    labels = [row.names(label) if label == "labels" else (row.name(label),) for row in rows]
    files = [row.name(file) for row in rows]
    merge = label == "labels"
    _check_agreement(rows, files, [()] * len(rows) if merge else labels, splits)
    values = list(zip(files, labels, splits, strict=True))
    return label, _merged(values) if merge else values


def _same_file(name: str) -> str:
    """Return a text that is the same for all spellings of one file's name."""
    return composed(os.path.normpath(name))


def _merged(
    rows: Sequence[tuple[str, tuple[str, ...], str]],
) -> list[tuple[str, tuple[str, ...], str]]:
    """Return (file, labels, split) of each file, with the labels of all its rows."""
    merged: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for file, labels, split in rows:
        first, before, _ = merged.get(_same_file(file), (file, (), split))
        union = tuple(dict.fromkeys((*before, *labels)))
        merged[_same_file(file)] = (first, union, split)
    return list(merged.values())


def _check_agreement(
    rows: Sequence[TableRow],
    files: Sequence[str],
    labels: Sequence[tuple[str, ...]],
    splits: Sequence[str],
) -> None:
    """Raise `InputError` if two rows give one file different labels or splits."""
    first_rows: dict[str, tuple[TableRow, tuple[frozenset[str], str]]] = {}
    for row, file, names, split in zip(rows, files, labels, splits, strict=True):
        value = (frozenset(names), split)
        first, expected = first_rows.setdefault(_same_file(file), (row, value))
        if value != expected:
            raise row.fault(
                f"gives {file} another label or split than line {first.line}; keep one line of "
                "each recording"
            )


def _read_splits(rows: Sequence[TableRow]) -> list[str]:
    """Return each row's split (one of `SPLITS`) or fold; all "" if no row names one.

    Case and spaces around names are ignored. Raises `InputError` if only some rows name one, if a
    name is unknown, or if the rows mix splits and folds.
    """
    names = [" ".join(row.text(SPLIT_COLUMN).lower().split()) for row in rows]
    splits = [SPLIT_ALIASES.get(name, name) for name in names]
    if not any(splits):
        return splits
    for row in rows:
        row.name(SPLIT_COLUMN)
    others: dict[str, TableRow] = {}
    for row, split in zip(rows, splits, strict=True):
        if split not in SPLITS:
            others.setdefault(split, row)
    known = sorted(set(splits) - set(others))
    if others and (known or not all(map(_FOLD.fullmatch, others))):
        first, row = next(iter(others.items()))
        raise row.fault(
            f"has the split {first!r} (known: {', '.join(known) or 'none'}; others: "
            f"{', '.join(others)}); name splits ({', '.join(SPLITS)}) or folds (by number), not "
            "both"
        )
    return splits


def _hash_split(name: str) -> str:
    """Choose a recording's split (train, valid or test) by a hash of its file name."""
    number = zlib.crc32(name.encode()) % 10
    return "valid" if number == 0 else "test" if number < 3 else "train"
