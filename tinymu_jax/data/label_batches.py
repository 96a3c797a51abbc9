"""Teaching the encoder to tell what clips are: a category's value from the mean of its vectors.

It stands where MATPAC++'s tuning on AudioSet stands in the published recipe: before the encoder
meets the decoder. The head that it learns with is left behind.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.data.loader import ClipReader
from tinymu_jax.data.sampler import EpochSampler
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import read_text

HEAD = "labels"
"""Name of the head among the trained weights."""

FILE_COLUMN = "file_name"


class LabelTable(NamedTuple):
    """What clips are, by file name."""

    categories: Mapping[str, Sequence[str]]
    """Each category with its values, sorted."""
    of: Mapping[str, Int[np.ndarray, "K"]]
    """Number of each category's value."""


def read_label_table(path: str | Path) -> LabelTable:
    """Reads a csv of file names and categories.

    Raises:
        InputError: it is missing, has no `file_name` or no category, or an empty field.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path, "name a csv of labels"))))
    names = [name for name in (rows[0] if rows else {}) if name != FILE_COLUMN]
    if not rows or FILE_COLUMN not in rows[0] or not names:
        raise InputError(
            f"{path}: is no table of labels; its first line names {FILE_COLUMN} and categories"
        )
    for number, row in enumerate(rows, 2):
        if None in row or not all(row.values()):
            raise InputError(f"{path}: line {number} has empty or more fields; repair it")
    categories = {name: sorted({row[name] for row in rows}) for name in names}
    for name, count in Counter(row[FILE_COLUMN] for row in rows).items():
        if count > 1:
            raise InputError(f"{path}: names {name} {count} times; keep one line of each clip")
    places = {name: {v: i for i, v in enumerate(values)} for name, values in categories.items()}
    of = {
        row[FILE_COLUMN]: np.array([places[name][row[name]] for name in names], np.int32)
        for row in rows
    }
    return LabelTable(categories, of)


class LabelBatch(NamedTuple):
    """N blocks of C clips with what they are."""

    features: np.ndarray
    """(N, C, ...) as the data set stores them."""
    lengths: Int[np.ndarray, "N C"]
    labels: np.ndarray
    """(N, C, K) each category's value, or (N, C, classes) which tags a clip has."""
    number: Int[np.ndarray, "N"]
    """Of each block in the run: what is drawn for it is drawn by it."""


class LabelBatches:
    """All steps of a run, found by their number."""

    def __init__(
        self,
        reader: ClipReader,
        labels: Mapping[str, np.ndarray],
        clips: int,
        blocks: int,
        own: Sequence[int],
        epochs: int,
        steps: int = 0,
    ) -> None:
        """Takes what reads clips, and what they are.

        Args:
            reader: of the clips.
            labels: of all of them, by file name.
            clips: C, of one block.
            blocks: of one step, over all processes.
            own: which of a step's blocks this process computes.
            epochs: how often each clip comes; 0 means as often as `steps` needs.
            steps: of the run, where `epochs` does not say.

        Raises:
            InputError: there are fewer clips than a step takes.
        """
        self.reader, self.labels = reader, labels
        self.size, self.blocks, self.own = clips, blocks, own
        dataset = reader.dataset
        self.order = EpochSampler(
            dataset.folder, len(dataset), clips, blocks, reader.seed, epochs, steps
        )
        self._seen: dict[str, str] = {}

    def __len__(self) -> int:
        return self.order.steps

    def numbers(self, step: int) -> Int[np.ndarray, "N C"]:
        """Returns the records of a step."""
        return self.order.numbers(step)

    def __getitem__(self, step: int) -> LabelBatch:
        """Reads this process's blocks of a step."""
        blocks = []
        for number in self.own:
            records = [self.reader.dataset[int(i)] for i in self.numbers(step)[number]]
            block = step * self.blocks + number
            features, lengths = self.reader.read(records, block, self.size)
            labels = np.stack([self._labels(record.clip) for record in records])
            blocks.append((features, lengths, labels, np.int32(block)))
        return LabelBatch(*map(np.stack, zip(*blocks, strict=True)))

    def _labels(self, clip: str) -> np.ndarray:
        name = Path(clip).name
        if name not in self.labels:
            raise InputError(f"{clip}: is not in the table of labels (data.labels); add it")
        other = self._seen.setdefault(name, clip)
        if other != clip:
            raise InputError(
                f"{clip} and {other}: have one name, by which the table of labels (data.labels) "
                "knows clips; give each its own"
            )
        return self.labels[name]

    def names(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""
        return [self.reader.dataset[int(i)].clip for i in self.numbers(step).reshape(-1)]
