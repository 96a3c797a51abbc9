"""Teaching the encoder to tell what clips are: a category's value from the mean of its vectors.

It stands where MATPAC++'s tuning on AudioSet stands in the published recipe: before the encoder
meets the decoder. The head that it learns with is left behind.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from tinymu_jax.config import TinyMUConfig
from tinymu_jax.data.config import UNCHANGED
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.loader import ClipReader
from tinymu_jax.data.order import EpochOrder
from tinymu_jax.errors import InputError
from tinymu_jax.files import read_text
from tinymu_jax.mesh import own_parts
from tinymu_jax.models.heads import mean_over_time
from tinymu_jax.sharding import Tree
from tinymu_jax.training.flops import encoder_flops
from tinymu_jax.training.hearing import hear_clips
from tinymu_jax.training.learning import Learning
from tinymu_jax.training.loop import Work
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import join
from tinymu_jax.training.step import Loss, Moment

HEAD = "labels"
"""Name of the head among the trained weights."""
FILE_NAME = "file_name"


class Labels(NamedTuple):
    """What clips are, by file name."""

    categories: Mapping[str, Sequence[str]]
    """Each category with its values, sorted."""
    of: Mapping[str, Int[np.ndarray, "K"]]
    """Number of each category's value."""


def read_labels_table(path: str | Path) -> Labels:
    """Reads a csv of file names and categories.

    Raises:
        InputError: it is missing, has no `file_name` or no category, or an empty field.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path, "name a csv of labels"))))
    names = [name for name in (rows[0] if rows else {}) if name != FILE_NAME]
    if not rows or FILE_NAME not in rows[0] or not names:
        raise InputError(
            f"{path}: is no table of labels; its first line names {FILE_NAME} and categories"
        )
    for number, row in enumerate(rows, 2):
        if None in row or not all(row.values()):
            raise InputError(f"{path}: line {number} has empty or more fields; repair it")
    categories = {name: sorted({row[name] for row in rows}) for name in names}
    for name, count in Counter(row[FILE_NAME] for row in rows).items():
        if count > 1:
            raise InputError(f"{path}: names {name} {count} times; keep one line of each clip")
    places = {name: {v: i for i, v in enumerate(values)} for name, values in categories.items()}
    of = {
        row[FILE_NAME]: np.array([places[name][row[name]] for name in names], np.int32)
        for row in rows
    }
    return Labels(categories, of)


def add_label_head(params: Mapping[str, Any], model: TinyMUConfig, labels: str | Path) -> Tree:
    """Returns a model's weights with a head of zeros that tells the categories of a table."""
    outputs = sum(map(len, read_labels_table(labels).categories.values()))
    head = {
        "kernel": np.zeros((model.encoder.output_width, outputs), np.float32),
        "bias": np.zeros(outputs, np.float32),
    }
    return {**params, HEAD: head}


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
        self.order = EpochOrder(
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


class Labelling(Learning):
    """A run in which the encoder learns to tell labels."""

    extra_axes: Mapping[str, tuple[str | None, ...]] = {
        f"{HEAD}/kernel": (None, None),
        f"{HEAD}/bias": (None,),
    }

    def read(self, folder: str, epochs: int, validation: bool) -> LabelBatches:
        """Returns the batches of a data set."""
        step, data = self.config.step, self.config.data
        self.labels = read_labels_table(data.labels)
        dataset = Dataset(folder)
        if dataset.features.store not in ("log_mel", "waveform"):
            raise InputError(
                f"{folder}: stores {dataset.features.store}, which the encoder does not hear; "
                "prepare log_mel"
            )
        augment = UNCHANGED if validation else data.augment
        reader = ClipReader(dataset, self.model, augment, data.seed)
        own = own_parts(self.mesh, step.blocks, step.accumulate)
        clips = data.packing.clips
        steps = self.config.steps
        return LabelBatches(reader, self.labels.of, clips, step.blocks, own, epochs, steps)

    def check(self, trained: Tree) -> None:
        """Refuses to train what the labels do not depend on.

        Raises:
            InputError: there is something.
        """
        if {"projector", "decoder"} & set(trained):
            raise InputError(
                "data.labels teaches the encoder alone; freeze the rest: optim.frozen "
                "'(projector|decoder)/.*'"
            )

    def loss(self, validation: bool) -> Loss:
        """Returns the cross-entropy of the labels, a mean over categories, summed over clips."""
        folder = self.config.data.validation if validation else self.config.data.train
        store, config = Dataset(folder).features.store, self.model.encoder
        sizes = [len(values) for values in self.labels.categories.values()]

        def loss(params: Tree, frozen: Tree, batch: LabelBatch, at: Moment) -> LossSum:
            whole = join(params, frozen)
            lengths = batch.lengths.reshape(-1)
            features = batch.features.reshape(-1, *batch.features.shape[2:])
            vectors, count = hear_clips(whole["encoder"], features, lengths, store, config)
            mean = mean_over_time(vectors, jnp.arange(vectors.shape[1]) < count[:, None])
            scores = mean @ whole[HEAD]["kernel"] + whole[HEAD]["bias"]
            parts = jnp.split(scores, np.cumsum(sizes)[:-1].tolist(), axis=-1)
            wanted = batch.labels.reshape(-1, len(sizes))
            lost = [
                optax.softmax_cross_entropy_with_integer_labels(part, wanted[:, i]).sum()
                for i, part in enumerate(parts)
            ]
            return LossSum(sum(lost) / len(sizes), jnp.float32(len(lengths)))

        return loss

    def work(self, step: int) -> Work:
        """Returns what a step computes: a label is a question of one token."""
        clips = self.batches.blocks * self.batches.size
        flops = encoder_flops(self.model, self.config.optim.frozen) * clips
        asked = clips * len(self.labels.categories)
        return Work(asked, asked, flops)

    def clips(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""
        return self.batches.names(0 if self.config.overfit_batch else step)
