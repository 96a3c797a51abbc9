"""Teaching an encoder to tag: what stands between pre-training and the encoder of TinyMU.

Head and normalisation are those of the published AudioSet encoder: the mean over the rows of
patches and over time, BatchNorm without weights, a linear layer. Its running statistics are state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from tinymu_jax.data.annotations.labelled import read_labels_by_file
from tinymu_jax.data.config import NO_AUGMENT
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.label_batches import LabelBatch, LabelBatches
from tinymu_jax.data.loader import ClipReader
from tinymu_jax.errors import InputError
from tinymu_jax.inference.class_names import read_labels, read_places
from tinymu_jax.mesh import local_block_ids
from tinymu_jax.models import heads, matpac
from tinymu_jax.models.config import HeadConfig, MatpacConfig, TinyMUConfig
from tinymu_jax.training.config import TagConfig
from tinymu_jax.training.encode_features import encode_features
from tinymu_jax.training.flops import encoder_flops
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.training.tasks.base import TrainTask
from tinymu_jax.training.train_step import Loss, StepContext, TrainState
from tinymu_jax.training.trainer import StepCost
from tinymu_jax.utils.tree import Tree

MOMENTUM = 0.1
"""Of BatchNorm, as torch has it."""


class Statistics(NamedTuple):
    """BatchNorm's running ones."""

    mean: Float[Array, "D"]
    variance: Float[Array, "D"]
    count: Array
    """Steps so far."""


class Moments(NamedTuple):
    """Of a batch."""

    mean: Float[Array, "D"]
    variance: Float[Array, "D"]


def classes_of(config: TagConfig) -> list[str]:
    """Returns the names of all classes in the order of the outputs.

    Raises:
        InputError: a list that cannot be read.
    """
    if config.data.classes is not None:
        names = read_labels(config.data.classes)
        if len(set(names)) < len(names):
            raise InputError(f"{config.data.classes}: names a class twice; keep each once")
        return names
    own = read_labels_by_file(config.data.labels)
    return sorted({label for labels in own.values() for label in labels})


def tagger_config(encoder: MatpacConfig, classes: int) -> MatpacConfig:
    """Returns an encoder's config with the head that it learns."""
    return replace(encoder, head=HeadConfig("audioset", classes, "sigmoid"))


def read_targets(config: TagConfig) -> dict[str, Int[np.ndarray, "classes"]]:
    """Returns which classes each recording has, by file name.

    Raises:
        InputError: a label that is no class, or two recordings of one name.
    """
    places = {name: number for number, name in enumerate(classes_of(config))}
    count = len(places)
    if config.data.classes is not None:
        places = read_places(config.data.classes)
    targets: dict[str, Any] = {}
    for file, labels in read_labels_by_file(config.data.labels).items():
        unknown = [label for label in labels if label not in places]
        if unknown:
            raise InputError(
                f"{config.data.labels}: {file} is {unknown[0]!r}, which is no class of "
                f"{config.data.classes}; name the list that belongs to it"
            )
        row = np.zeros(count, np.int32)
        row[[places[label] for label in labels]] = 1
        if Path(file).name in targets:
            raise InputError(
                f"{config.data.labels}: two recordings have the name {Path(file).name}, by which "
                "they are known; give each its own"
            )
        targets[Path(file).name] = row
    return targets


class Tagging(TrainTask):
    """A run in which an encoder learns to tag."""

    counted = "clips"

    def __init__(
        self,
        config: TagConfig,
        model: MatpacConfig,
        params: Tree,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Arguments and errors as `TrainTask`."""
        self.targets = read_targets(config)
        norm = params["head"]["norm"]
        self.statistics = Statistics(norm["mean"], norm["variance"], norm["count"])
        super().__init__(config, model, params, devices)

    def computed(self, model: MatpacConfig) -> MatpacConfig:
        """Returns the config with the products and the remat of training."""
        step = self.config.step
        return replace(model, compute_dtype=step.encoder_dtype, remat=step.remat)

    def axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Returns the logical axes of every weight."""
        return matpac.param_axes(self.model)

    def extra(self) -> Statistics:
        """Returns the running statistics before the first step."""
        return self.statistics

    def _whole(self) -> TinyMUConfig:
        """Returns what clips are read for."""
        return TinyMUConfig(encoder=self.model, max_seconds=self.config.data.seconds)

    def read(self, folder: str, epochs: int, validation: bool) -> LabelBatches:
        """Returns the batches of a data set."""
        step, data, dataset = self.config.step, self.config.data, Dataset(folder)
        if dataset.features.kind not in ("log_mel", "waveform"):
            raise InputError(
                f"{folder}: stores {dataset.features.kind}, which the encoder does not hear; "
                "prepare log_mel"
            )
        augment = NO_AUGMENT if validation else data.augment
        reader = ClipReader(dataset, self._whole(), augment, data.seed, data.seconds)
        own = local_block_ids(self.mesh, step.blocks, step.grad_accum_steps)
        steps = self.config.steps
        return LabelBatches(reader, self.targets, data.clips, step.blocks, own, epochs, steps)

    def check(self, trained: Tree) -> None:
        """Refuses to train the statistics, or the front end.

        Raises:
            InputError: they are not frozen.
        """
        if "head" not in trained:
            raise InputError(
                "optim.frozen-params leaves the head as it began, at random; narrow it"
            )
        if "log_mel" in trained or "norm" in trained["head"]:
            raise InputError(
                "optim.frozen-params lets log_mel or head/norm learn, which are no weights; freeze them: "
                "'pos_embed|log_mel/.*|head/norm/.*'"
            )

    def loss(self, validation: bool) -> Loss:
        """Returns the binary cross-entropy, a mean over classes, summed over clips."""
        folder = self.config.data.validation if validation else self.config.data.train
        store, config = Dataset(folder).features.kind, self.model
        mixup = 0.0 if validation else self.config.step.mixup
        key = jax.random.key(self.config.data.seed)

        def loss(params: Tree, frozen: Tree, batch: LabelBatch, at: StepContext) -> LossSum:
            whole = merge_trees(params, frozen)
            if mixup:
                batch = mixed(batch, mixup, key)
            lengths = batch.lengths.reshape(-1)
            features = batch.features.reshape(-1, *batch.features.shape[2:])
            vectors, count = encode_features(whole, features, lengths, store, config)
            valid = jnp.arange(vectors.shape[1]) < count[:, None]
            mean = heads.mean_of_rows(vectors, valid, config.rows)
            norm = at.extra if validation else moments(mean)
            mean = (mean - norm.mean) * jax.lax.rsqrt(norm.variance + heads.BATCH_NORM_EPS)
            linear = whole["head"]["linear"]
            scores = mean @ linear["kernel"] + linear["bias"]
            wanted = batch.labels.reshape(scores.shape)
            lost = optax.sigmoid_binary_cross_entropy(scores, wanted).mean(-1).sum()
            return LossSum(lost, jnp.float32(len(lengths)), jax.lax.stop_gradient(norm))

        return loss

    def after(
        self, state: TrainState, told: Moments, count: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Returns a state with the running statistics after a step: of variances the unbiased."""
        mean, variance, seen = state.extra
        unbiased = told.variance * (count / (count - 1))
        kept = 1 - MOMENTUM
        mean, variance = kept * mean + MOMENTUM * told.mean, kept * variance + MOMENTUM * unbiased
        return state._replace(extra=Statistics(mean, variance, seen + 1)), {}

    def work(self, step: int) -> StepCost:
        """Returns what a step computes: a tag is a token."""
        clips = self.batches.blocks * self.batches.size
        whole = replace(self._whole(), encoder=replace(self.model, head=None))
        flops = encoder_flops(whole, rf"encoder/(?:{self.config.optim.frozen_params})") * clips
        return StepCost(clips, clips * self.model.head.num_classes, flops)

    def clips(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""
        return self.batches.names(0 if self.config.overfit_batch else step)


def moments(x: Float[Array, "C D"]) -> Moments:
    """Returns a batch's mean and variance."""
    return Moments(x.mean(0), x.var(0))


def mixed(batch: LabelBatch, alpha: float, key: Array) -> LabelBatch:
    """Returns each clip with another one of its block in it, and the labels of both in its shares.

    Args:
        batch: N blocks.
        alpha: of the Beta distribution of a clip's share; the greater part is its own.
        key: what is drawn depends on it and on the block's number alone.
    """

    def mix(features: Array, lengths: Array, labels: Array, number: Array) -> tuple:
        share = jax.random.beta(jax.random.fold_in(key, number), alpha, alpha, (len(lengths),))
        share = jnp.maximum(share, 1 - share)

        def blend(x: Array) -> Array:
            x = x.astype(jnp.float32)
            own = share.reshape(-1, *[1] * (x.ndim - 1))
            return own * x + (1 - own) * jnp.roll(x, 1, axis=0)

        return blend(features), jnp.maximum(lengths, jnp.roll(lengths, 1)), blend(labels)

    features, lengths, labels = jax.vmap(mix)(
        batch.features, batch.lengths, batch.labels, batch.number
    )
    return batch._replace(features=features, lengths=lengths, labels=labels)
