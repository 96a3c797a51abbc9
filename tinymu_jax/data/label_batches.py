"""Batches of clips with labels, for training the encoder on labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.data.annotations.tables import read_rows
from tinymu_jax.data.loader import ClipReader
from tinymu_jax.data.sampler import EpochSampler
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


class LabelBatches:
    """The batches of a run by step number, as far as this process computes them."""

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
        """Takes a reader, the labels and the sizes of a batch.

        Args:
            reader: of the clips.
            labels: of all clips, by file name.
            clips: C, clips per block.
            blocks: blocks per step, over all processes.
            block_ids: which blocks of a step this process computes.
            epochs: passes over the clips; 0: as many as `steps` needs.
            steps: of the run, if `epochs` is 0.

        Raises:
            InputError: there are fewer clips than a step takes.
        """
        self.reader, self.labels = reader, labels
        self.size, self.blocks, self.block_ids = clips, blocks, block_ids
        dataset = reader.dataset
        self.order = EpochSampler(
            dataset.folder, len(dataset), clips, blocks, reader.seed, epochs, steps
        )
        self._paths: dict[str, str] = {}

    def __len__(self) -> int:
        return self.order.steps

    def numbers(self, step: int) -> Int[np.ndarray, "N C"]:
        """Returns the record numbers of a step."""
        return self.order.numbers(step)

    def __getitem__(self, step: int) -> LabelBatch:
        """Reads this process's blocks of a step."""
        blocks = []
        for i in self.block_ids:
            records = [self.reader.dataset[int(number)] for number in self.numbers(step)[i]]
            block = step * self.blocks + i
            features, lengths = self.reader.read(records, block, self.size)
            labels = np.stack([self._labels(record.clip) for record in records])
            blocks.append((features, lengths, labels, np.int32(block)))
        return LabelBatch(*map(np.stack, zip(*blocks, strict=True)))

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

    def names(self, step: int) -> list[str]:
        """Returns the paths of a step's recordings."""
        return [self.reader.dataset[int(i)].clip for i in self.numbers(step).reshape(-1)]
