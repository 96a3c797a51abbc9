"""Train an encoder with a linear head on the mean of the encoder's output vectors.

`LabelTask` predicts one value per category with a softmax. `TagTask` predicts tags with one sigmoid
per tag and the published AudioSet head: mean over patch rows and time, BatchNorm without weights,
linear layer.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32

from tinymu_jax.audio.files import canonical_name
from tinymu_jax.data.annotations.labelled import read_labels_by_file, read_unknown_by_file
from tinymu_jax.data.config import NO_AUGMENT
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.label_batches import HEAD, LabelBatch, LabelBatches, read_label_table
from tinymu_jax.data.loader import ClipReader
from tinymu_jax.errors import InputError
from tinymu_jax.inference.class_names import read_class_indices, read_labels
from tinymu_jax.models import heads, matpac, tinymu
from tinymu_jax.models.config import HeadConfig, MatpacConfig, TinyMUConfig
from tinymu_jax.models.matmul import matmul
from tinymu_jax.training.compute import encoder_options
from tinymu_jax.training.config import RunConfig, TagConfig, TrainConfig
from tinymu_jax.training.encode_features import encode_features
from tinymu_jax.training.flops import encoder_flops
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.training.tasks.base import StepCost, TrainTask
from tinymu_jax.training.tasks.finetune import with_step_config
from tinymu_jax.training.train_step import LossFn, StepContext, TrainState
from tinymu_jax.utils.tree import Tree

MOMENTUM = 0.1
"""Weight of a batch in BatchNorm's running statistics, as in torch."""


class LinearHeadTask(TrainTask):
    """Base class of tasks that train an encoder with a linear head on clip labels.

    Attributes:
        encoder: encoder config.
        reader_model: TinyMU config by which clips are read: patch size and maximum clip length.
        max_seconds: maximum clip length in seconds; if None, `reader_model.max_seconds` applies.
    """

    encoder: MatpacConfig
    reader_model: TinyMUConfig
    max_seconds: float | None = None

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        params: Tree,
        targets: Mapping[str, np.ndarray],
        clips_per_block: int,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Initialize the task; `targets` holds each recording's labels by file name."""
        self.targets, self.clips_per_block = targets, clips_per_block
        super().__init__(config, model, params, devices)

    @abstractmethod
    def pool(self, vectors: Float[Array, "C A E"], valid: Bool[Array, "C A"]) -> Array:
        """Return the head's input: the mean over each clip's vectors for which `valid` is True."""

    @abstractmethod
    def head_loss(self, params: Tree, mean: Array, labels: Array, running: Any) -> LossSum:
        """Return the loss of the head's predictions, summed over the clips of a batch.

        `mean` is the output of `pool`. `labels` is the field `labels` of a `LabelBatch`. `running`
        is the task's `aux_state` in validation (running statistics, if any), and None in training.
        """

    def augment_batch(self, batch: LabelBatch) -> LabelBatch:
        """Return a training batch augmented on the device; by default unchanged."""
        return batch

    def make_batches(self, folder: str, epochs: int, validation: bool) -> LabelBatches:
        """Return this process's batches of a data set's clips and their labels.

        Raises `InputError` if the data set stores neither log-mels nor waveforms.
        """
        data, dataset = self.config.data, Dataset(folder)
        if dataset.features.kind not in ("log_mel", "waveform"):
            raise InputError(
                f"{folder}: stores {dataset.features.kind}, which bypasses the encoder; prepare "
                "log_mel"
            )
        augment = NO_AUGMENT if validation else data.augment
        return LabelBatches(
            ClipReader(dataset, self.reader_model, augment, data.seed, self.max_seconds),
            self.targets,
            self.clips_per_block,
            self.config.step.blocks,
            self.local_blocks(),
            epochs,
            self.config.steps,
        )

    def loss_fn(self, validation: bool) -> LossFn:
        """Return the loss function, which encodes a batch's clips and calls `head_loss`."""
        kind, encoder = Dataset(self.data_folder(validation)).features.kind, self.encoder

        def loss(params: Tree, frozen: Tree, batch: LabelBatch, context: StepContext) -> LossSum:
            merged = merge_trees(params, frozen)
            if not validation:
                batch = self.augment_batch(batch)
            lengths = batch.lengths.reshape(-1)
            features = batch.features.reshape(-1, *batch.features.shape[2:])
            # If the model is only an encoder, its parameters are not below "encoder".
            encoder_params = merged.get("encoder", merged)
            vectors, count = encode_features(encoder_params, features, lengths, kind, encoder)
            mean = self.pool(vectors, jnp.arange(vectors.shape[1]) < count[:, None])
            running = context.aux_state if validation else None
            return self.head_loss(merged, mean, batch.labels, running)

        return loss

    def clips_per_step(self) -> int:
        """Return the number of clips of a step, over all processes."""
        return self.batches.blocks * self.batches.size

    def clip_names(self, step: int) -> list[str]:
        """Return the names of the recordings in a step's batch."""
        return self.batches.names(0 if self.config.overfit_batch else step)


def add_label_head(params: Mapping[str, Any], model: TinyMUConfig, labels: str | Path) -> Tree:
    """Return `params` with a zero-initialized head.

    `labels` is the path of a csv of clip labels, with a column per category. The head has one
    output per value of each category.
    """
    outputs = sum(map(len, read_label_table(labels).categories.values()))
    head = {
        "kernel": np.zeros((model.encoder.output_width, outputs), np.float32),
        "bias": np.zeros(outputs, np.float32),
    }
    return {**params, HEAD: head}


class LabelTask(LinearHeadTask):
    """Trains a TinyMU's encoder to predict a clip's value in each label category (softmax)."""

    def __init__(
        self,
        config: TrainConfig,
        model: TinyMUConfig,
        params: Tree,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Initialize the task; `params` must include the head of `add_label_head`."""
        table = read_label_table(config.data.labels)
        self.num_values = [len(values) for values in table.categories.values()]
        clips = config.data.packing.max_clips
        super().__init__(config, model, params, table.of, clips, devices)

    def with_compute_config(self, model: TinyMUConfig) -> TinyMUConfig:
        """Return a model's config with the fields that `config.step` and the device decide."""
        self.reader_model = with_step_config(model, self.config.step, self.device)
        self.encoder = self.reader_model.encoder
        return self.reader_model

    def param_axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Return the logical axes of every parameter, by path."""
        head = {f"{HEAD}/kernel": (None, None), f"{HEAD}/bias": (None,)}
        return {**tinymu.param_axes(self.model), **head}

    def check_trained(self, trained: Tree) -> None:
        """Raise an `InputError` if the projector or the decoder is trained."""
        if {"projector", "decoder"} & set(trained):
            raise InputError(
                "data.labels trains the encoder alone; freeze the rest: optim.frozen-params "
                "'(projector|decoder)/.*'"
            )

    def pool(self, vectors: Float[Array, "C A E"], valid: Bool[Array, "C A"]) -> Array:
        """Return the mean of each clip's valid vectors over time."""
        return heads.mean_over_time(vectors, valid)

    def head_loss(self, params: Tree, mean: Array, labels: Array, running: Any) -> LossSum:
        """Return the cross-entropy, averaged over categories and summed over clips."""
        logits = matmul(mean, params[HEAD]["kernel"]) + params[HEAD]["bias"]
        parts = jnp.split(logits, np.cumsum(self.num_values)[:-1].tolist(), axis=-1)
        labels = labels.reshape(-1, len(self.num_values))
        losses = [
            optax.softmax_cross_entropy_with_integer_labels(part, labels[:, i]).sum()
            for i, part in enumerate(parts)
        ]
        return LossSum(sum(losses) / len(losses), jnp.float32(len(mean)))

    def cost(self, step: int) -> StepCost:
        """Return the amount of work of a step; both `units` and `tokens` count clip labels."""
        clips = self.clips_per_step()
        flops = encoder_flops(self.model, self.config.optim.frozen_params) * clips
        labels = clips * len(self.num_values)
        return StepCost(labels, labels, flops)


class NormStats(NamedTuple):
    """Means and variances of BatchNorm's D inputs, over one batch or as running averages."""

    mean: Float[Array, "D"]
    variance: Float[Array, "D"]
    count: Array | None = None
    """Number of batches in the running averages; None for a single batch's statistics."""


def read_class_names(config: TagConfig) -> list[str]:
    """Return the names of all classes of a tagging run, in the order of the model's outputs.

    Raises `InputError` if the list of classes or the labels cannot be read.
    """
    if config.data.classes is not None:
        return read_labels(config.data.classes)
    tags = read_labels_by_file(config.data.labels)
    return sorted({label for labels in tags.values() for label in labels})


def tagger_config(encoder: MatpacConfig, num_classes: int) -> MatpacConfig:
    """Return an encoder's config with a sigmoid head for `num_classes` classes."""
    return replace(encoder, head=HeadConfig("audioset", num_classes, "sigmoid"))


def read_targets(config: TagConfig) -> dict[str, Float32[np.ndarray, "classes"]]:
    """Return a multi-hot vector of classes for each recording, by file name; NaN for unknown.

    Raises `InputError` if a label is not a class, or if two recordings have the same name.
    """
    index = {name: number for number, name in enumerate(read_class_names(config))}
    num_classes = len(index)
    if config.data.classes is not None:
        index = read_class_indices(config.data.classes)
    targets: dict[str, Any] = {}
    files: dict[str, str] = {}
    unknown_by_file = read_unknown_by_file(config.data.labels)
    for file, labels in read_labels_by_file(config.data.labels).items():
        unknown = unknown_by_file.get(canonical_name(Path(file).name), ())
        if config.data.classes is None:
            # What holds nowhere is no class.
            unknown = tuple(label for label in unknown if label in index)
        strange = [label for label in (*labels, *unknown) if label not in index]
        if strange:
            raise InputError(
                f"{config.data.labels}: {file} is {strange[0]!r}, which is no class of "
                f"{config.data.classes}; name the list that belongs to it"
            )
        row = np.zeros(num_classes, np.float32)
        row[[index[name] for name in unknown]] = np.nan
        row[[index[label] for label in labels]] = 1
        name = canonical_name(Path(file).name)
        if files.setdefault(name, file) != file:
            raise InputError(
                f"{config.data.labels}: {files[name]} and {file} have the same name, {name}; give "
                "each a name of its own, or keep one line of the recording"
            )
        targets[name] = row
    return targets


class TagTask(LinearHeadTask):
    """Trains an encoder to predict a recording's tags, with one sigmoid per class."""

    unit = "clips"

    def __init__(
        self,
        config: TagConfig,
        model: MatpacConfig,
        params: Tree,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Initialize the task; `params` must include the head."""
        self.max_seconds = config.data.seconds
        norm = params["head"]["norm"]
        self.norm_stats = NormStats(norm["mean"], norm["variance"], norm["count"])
        targets, clips = read_targets(config), config.data.clips
        super().__init__(config, model, params, targets, clips, devices)

    def with_compute_config(self, model: MatpacConfig) -> MatpacConfig:
        """Return a model's config with the fields that `config.step` and the device decide."""
        self.encoder = replace(model, **encoder_options(self.config.step, self.device, model))
        self.reader_model = TinyMUConfig(encoder=self.encoder, max_seconds=self.max_seconds)
        return self.encoder

    def param_axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Return the logical axes of every parameter, by path."""
        return matpac.param_axes(self.model)

    def init_aux_state(self) -> NormStats:
        """Return BatchNorm's running statistics before the first step."""
        return self.norm_stats

    def check_trained(self, trained: Tree) -> None:
        """Raise an `InputError` if the head is frozen, or log-mel or BatchNorm are trained."""
        if "head" not in trained:
            raise InputError("optim.frozen-params freezes the head, which is random; narrow it")
        if "log_mel" in trained or "norm" in trained["head"]:
            raise InputError(
                "optim.frozen-params trains log_mel or head/norm, which are not weights; freeze "
                "them: 'pos_embed|log_mel/.*|head/norm/.*'"
            )

    def augment_batch(self, batch: LabelBatch) -> LabelBatch:
        """Return a training batch with clips and labels mixed by mixup, if configured."""
        alpha, seed = self.config.step.mixup, self.config.data.seed
        return mixup(batch, alpha, jax.random.key(seed)) if alpha else batch

    def pool(self, vectors: Float[Array, "C A E"], valid: Bool[Array, "C A"]) -> Array:
        """Return the mean of each clip's valid vectors over time and patch rows."""
        return heads.mean_of_rows(vectors, valid, self.encoder.rows)

    def head_loss(self, params: Tree, mean: Array, labels: Array, running: Any) -> LossSum:
        """Return the binary cross-entropy, averaged over classes and summed over clips.

        Labels that are NaN are unknown, and count as predicted.
        """
        norm = NormStats(mean.mean(0), mean.var(0)) if running is None else running
        mean = (mean - norm.mean) * jax.lax.rsqrt(norm.variance + heads.BATCH_NORM_EPS)
        linear = params["head"]["linear"]
        logits = matmul(mean, linear["kernel"]) + linear["bias"]
        labels = labels.reshape(logits.shape)
        known = ~jnp.isnan(labels)
        losses = optax.sigmoid_binary_cross_entropy(logits, jnp.where(known, labels, 0))
        loss = jnp.where(known, losses, 0).mean(-1).sum()
        return LossSum(loss, jnp.float32(len(mean)), jax.lax.stop_gradient(norm))

    def post_update(
        self, state: TrainState, aux: NormStats, num_targets: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Update BatchNorm's running statistics, with unbiased variances as in torch."""
        mean, variance, steps = state.aux_state
        unbiased = aux.variance * (num_targets / (num_targets - 1))
        keep = 1 - MOMENTUM
        mean = keep * mean + MOMENTUM * aux.mean
        variance = keep * variance + MOMENTUM * unbiased
        return state._replace(aux_state=NormStats(mean, variance, steps + 1)), {}

    def cost(self, step: int) -> StepCost:
        """Return the amount of work of a step; each class of a clip counts as a token."""
        clips = self.clips_per_step()
        model = replace(self.reader_model, encoder=replace(self.model, head=None))
        flops = encoder_flops(model, rf"encoder/(?:{self.config.optim.frozen_params})") * clips
        return StepCost(clips, clips * self.model.head.num_classes, flops)


def mixup(batch: LabelBatch, alpha: float, key: Array) -> LabelBatch:
    """Mix each clip and its labels with the previous clip in its block (arXiv 1710.09412).

    Mixing weights are drawn from Beta(alpha, alpha); a clip's own weight is at least 1/2. `key` is
    combined with each block's index.
    """

    def mix(features: Array, lengths: Array, labels: Array, number: Array) -> tuple:
        weight = jax.random.beta(jax.random.fold_in(key, number), alpha, alpha, (len(lengths),))
        weight = jnp.maximum(weight, 1 - weight)

        def blend(x: Array) -> Array:
            x = x.astype(jnp.float32)
            w = weight.reshape(-1, *[1] * (x.ndim - 1))
            return w * x + (1 - w) * jnp.roll(x, 1, axis=0)

        return blend(features), jnp.maximum(lengths, jnp.roll(lengths, 1)), blend(labels)

    features, lengths, labels = jax.vmap(mix)(
        batch.features, batch.lengths, batch.labels, batch.number
    )
    return batch._replace(features=features, lengths=lengths, labels=labels)
