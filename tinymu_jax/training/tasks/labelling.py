"""Teaching the encoder to tell what clips are: a category's value from the mean of its vectors.

It stands where MATPAC++'s tuning on AudioSet stands in the published recipe: before the encoder
meets the decoder. The head that it learns with is left behind.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from tinymu_jax.data.config import NO_AUGMENT
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.label_batches import HEAD, LabelBatch, LabelBatches, read_label_table
from tinymu_jax.data.loader import ClipReader
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import local_block_ids
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.heads import mean_over_time
from tinymu_jax.training.encode_features import encode_features
from tinymu_jax.training.flops import encoder_flops
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.training.tasks.base import TrainTask
from tinymu_jax.training.train_step import Loss, StepContext
from tinymu_jax.training.trainer import StepCost
from tinymu_jax.utils.tree import Tree


def add_label_head(params: Mapping[str, Any], model: TinyMUConfig, labels: str | Path) -> Tree:
    """Returns a model's weights with a head of zeros that tells the categories of a table."""
    outputs = sum(map(len, read_label_table(labels).categories.values()))
    head = {
        "kernel": np.zeros((model.encoder.output_width, outputs), np.float32),
        "bias": np.zeros(outputs, np.float32),
    }
    return {**params, HEAD: head}


class Labelling(TrainTask):
    """A run in which the encoder learns to tell labels."""

    extra_axes: Mapping[str, tuple[str | None, ...]] = {
        f"{HEAD}/kernel": (None, None),
        f"{HEAD}/bias": (None,),
    }

    def read(self, folder: str, epochs: int, validation: bool) -> LabelBatches:
        """Returns the batches of a data set."""
        step, data = self.config.step, self.config.data
        self.labels = read_label_table(data.labels)
        dataset = Dataset(folder)
        if dataset.features.kind not in ("log_mel", "waveform"):
            raise InputError(
                f"{folder}: stores {dataset.features.kind}, which the encoder does not hear; "
                "prepare log_mel"
            )
        augment = NO_AUGMENT if validation else data.augment
        reader = ClipReader(dataset, self.model, augment, data.seed)
        own = local_block_ids(self.mesh, step.blocks, step.grad_accum_steps)
        clips = data.packing.max_clips
        steps = self.config.steps
        return LabelBatches(reader, self.labels.of, clips, step.blocks, own, epochs, steps)

    def check(self, trained: Tree) -> None:
        """Refuses to train what the labels do not depend on.

        Raises:
            InputError: there is something.
        """
        if {"projector", "decoder"} & set(trained):
            raise InputError(
                "data.labels teaches the encoder alone; freeze the rest: optim.frozen-params "
                "'(projector|decoder)/.*'"
            )

    def loss(self, validation: bool) -> Loss:
        """Returns the cross-entropy of the labels, a mean over categories, summed over clips."""
        folder = self.config.data.validation if validation else self.config.data.train
        store, config = Dataset(folder).features.kind, self.model.encoder
        sizes = [len(values) for values in self.labels.categories.values()]

        def loss(params: Tree, frozen: Tree, batch: LabelBatch, at: StepContext) -> LossSum:
            whole = merge_trees(params, frozen)
            lengths = batch.lengths.reshape(-1)
            features = batch.features.reshape(-1, *batch.features.shape[2:])
            vectors, count = encode_features(whole["encoder"], features, lengths, store, config)
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

    def work(self, step: int) -> StepCost:
        """Returns what a step computes: a label is a question of one token."""
        clips = self.batches.blocks * self.batches.size
        flops = encoder_flops(self.model, self.config.optim.frozen_params) * clips
        asked = clips * len(self.labels.categories)
        return StepCost(asked, asked, flops)

    def clips(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""
        return self.batches.names(0 if self.config.overfit_batch else step)
