"""Batches of clips with labels, by step number, for training the encoder to predict labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.audio.files import canonical_name
from tinymu_jax.data.loader import ClipReader, EpochBatches
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tables import TableRow, read_rows

HEAD = "labels"
"""Key of the linear classification head in the parameter tree."""
FILE_COLUMN = "file_name"


class LabelTable(NamedTuple):
    """A table of labels: every clip has one value in each of K categories."""

    categories: Mapping[str, Sequence[str]]
    """Name of each category -> its possible values, sorted."""
    of: Mapping[str, Int[np.ndarray, "K"]]
    """File name of each clip -> the index of the clip's value in every category."""


def read_label_table(path: str | Path) -> LabelTable:
    """Read a table of labels from a csv with the column `file_name` and one column per category.

    Raises:
        InputError: the csv cannot be read, lacks a column, has an empty field or repeats a file.
    """
    remedy = f"name a csv whose first line names {FILE_COLUMN} and categories"
    rows = list(read_rows(Path(path), (FILE_COLUMN,), remedy))
    names = [name for name in (rows[0].fields if rows else ()) if name != FILE_COLUMN]
    if not names:
        raise InputError(f"{path}: holds no labels; {remedy}")
    first_rows: dict[str, TableRow] = {}
    for row in rows:
        file = row.name(FILE_COLUMN)
        first = first_rows.setdefault(canonical_name(file), row)
        if first is not row:
            other = first.name(FILE_COLUMN)
            name = file if file == other else f"{file} (the same as {other})"
            raise row.fault(
                f"names {name} again, after line {first.line}; keep one line of each clip"
            )
    categories = {name: sorted({row.name(name) for row in rows}) for name in names}
    of = {
        row.text(FILE_COLUMN): np.array(
            [categories[name].index(row.text(name)) for name in names], np.int32
        )
        for row in rows
    }
    return LabelTable(categories, of)


class LabelBatch(NamedTuple):
    """Clips and labels for one training step: N blocks of C clips (a block goes to one device)."""

    features: np.ndarray
    """Stored features of the clips, (N, C, ...), padded with zeros."""
    lengths: Int[np.ndarray, "N C"]
    labels: np.ndarray
    """Index of each clip's value in each of K categories, (N, C, K). For clips with any number of
    labels: multi-hot labels, (N, C, classes)."""
    number: Int[np.ndarray, "N"]
    """Index of each block in the run, which seeds the block's randomness."""


class LabelBatches(EpochBatches):
    """Batches of a data set's clips with their labels, by step number."""

    def __init__(
        self,
        reader: ClipReader,
        labels: Mapping[str, np.ndarray],
        clips: int,
        blocks: int,
        block_ids: Sequence[int],
        epochs: int,
        steps: int = 0,
    ) -> None:
        """Plan batches of all clips in a reader's data set; see `EpochBatches` for the arguments.

        `labels` maps a clip's file name to the array of the clip's labels.
        """
        self.reader, dataset = reader, reader.dataset
        self.labels = {canonical_name(name): row for name, row in labels.items()}
        super().__init__(
            dataset.folder, len(dataset), clips, blocks, block_ids, reader.seed, epochs, steps
        )
        self._paths: dict[str, str] = {}

    def name(self, number: int) -> str:
        """Return the path of the recording from which clip `number` of the data set was read."""
        return self.reader.dataset[number].clip

    def read_block(self, numbers: Int[np.ndarray, "C"], block: int) -> LabelBatch:
        """Read the features and labels of C clips; see `EpochBatches.read_block`."""
        records = [self.reader.dataset[int(number)] for number in numbers]
        features, lengths = self.reader.read(records, block, self.size)
        labels = np.stack([self._labels(record.clip) for record in records])
        return LabelBatch(features, lengths, labels, np.int32(block))

    def _labels(self, clip: str) -> np.ndarray:
        name = canonical_name(Path(clip).name)
        if name not in self.labels:
            raise InputError(f"{clip}: is not in the table of labels (data.labels); add it")
        other = self._paths.setdefault(name, clip)
        if other != clip:
            raise InputError(
                f"{clip} and {other}: have the same file name, which identifies clips in the "
                "table of labels (data.labels); rename one"
            )
        return self.labels[name]
