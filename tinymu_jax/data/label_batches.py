"""Batches of clips with labels, for training the encoder on labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.data.annotations.tables import read_rows
from tinymu_jax.data.loader import ClipReader, EpochBatches
from tinymu_jax.errors import InputError

HEAD = "labels"
"""Name of the linear head among the params."""

FILE_COLUMN = "file_name"


class LabelTable(NamedTuple):
    """One value of each of K categories per clip."""

    categories: Mapping[str, Sequence[str]]
    """Sorted values of each category."""
    of: Mapping[str, Int[np.ndarray, "K"]]
    """Indices of a clip's values, by file name."""


def read_label_table(path: str | Path) -> LabelTable:
    """Reads a csv with the column `file_name` and one column per category.

    Raises:
        InputError: it cannot be read, lacks a column, has an empty field, or repeats a file.
    """
    remedy = f"name a csv whose first line names {FILE_COLUMN} and categories"
    rows = list(read_rows(Path(path), (FILE_COLUMN,), remedy))
    names = [name for name in (rows[0].fields if rows else ()) if name != FILE_COLUMN]
    if not names:
        raise InputError(f"{path}: holds no labels; {remedy}")
    lines: dict[str, int] = {}
    for row in rows:
        file = row.filled(FILE_COLUMN)
        first = lines.setdefault(file, row.line)
        if first != row.line:
            raise row.fault(f"names {file} again, after line {first}; keep one line of each clip")
    categories = {name: sorted({row.filled(name) for row in rows}) for name in names}
    of = {
        row.text(FILE_COLUMN): np.array(
            [categories[name].index(row.text(name)) for name in names], np.int32
        )
        for row in rows
    }
    return LabelTable(categories, of)


class LabelBatch(NamedTuple):
    """N blocks of C clips with their labels."""

    features: np.ndarray
    """(N, C, ...) as stored."""
    lengths: Int[np.ndarray, "N C"]
    labels: np.ndarray
    """(N, C, K) index of each category's value, or (N, C, classes) multi-hot."""
    number: Int[np.ndarray, "N"]
    """Index of each block in the run, which seeds its randomness."""


class LabelBatches(EpochBatches):
    """Batches of clips with their labels."""

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
        """Takes a reader of clips and their labels by file name; see `EpochBatches`."""
        self.reader, self.labels, dataset = reader, labels, reader.dataset
        super().__init__(
            dataset.folder, len(dataset), clips, blocks, block_ids, reader.seed, epochs, steps
        )
        self._paths: dict[str, str] = {}

    def name(self, number: int) -> str:
        """Returns the path of a clip's recording."""
        return self.reader.dataset[number].clip

    def read_block(self, numbers: Int[np.ndarray, "C"], block: int) -> LabelBatch:
        """Reads a block; see `EpochBatches`."""
        records = [self.reader.dataset[int(number)] for number in numbers]
        features, lengths = self.reader.read(records, block, self.size)
        labels = np.stack([self._labels(record.clip) for record in records])
        return LabelBatch(features, lengths, labels, np.int32(block))

    def _labels(self, clip: str) -> np.ndarray:
        name = Path(clip).name
        if name not in self.labels:
            raise InputError(f"{clip}: is not in the table of labels (data.labels); add it")
        other = self._paths.setdefault(name, clip)
        if other != clip:
            raise InputError(
                f"{clip} and {other}: have the same file name, which identifies clips in the "
                "table of labels (data.labels); rename one"
            )
        return self.labels[name]
