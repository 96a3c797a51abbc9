"""The task of fine-tuning TinyMU on the questions of a prepared data set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinymu_jax.data.augment import max_columns
from tinymu_jax.data.config import NO_AUGMENT, FeatureKind
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.loader import Batch, PackedBatches
from tinymu_jax.data.sampler import make_groups, make_plan
from tinymu_jax.errors import InputError
from tinymu_jax.models import tinymu
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.training.compute import decoder_options, encoder_options
from tinymu_jax.training.config import StepConfig, TrainConfig
from tinymu_jax.training.encode_features import encode_features
from tinymu_jax.training.flops import training_flops
from tinymu_jax.training.losses import LossSum, sum_loss
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.training.tasks.base import StepCost, TrainTask
from tinymu_jax.training.train_step import LossFn, StepContext
from tinymu_jax.utils.tree import Tree


def with_step_config(model: TinyMUConfig, step: StepConfig, device: Any) -> TinyMUConfig:
    """Return `model` with the fields that a run's config and device decide."""
    return replace(
        model,
        ignore_pad_labels=step.ignore_pad_labels,
        encoder=replace(model.encoder, **encoder_options(step, device, model.encoder)),
        decoder=replace(model.decoder, **decoder_options(step, device, model.decoder)),
    )


def answer_loss(config: TinyMUConfig, store: FeatureKind) -> LossFn:
    """Return a loss function: the cross-entropy summed over a batch's answer tokens.

    Any part of the model may be frozen. `store` is the kind of features in the data set.
    """

    def loss(params: Tree, frozen: Tree, batch: Batch, context: StepContext) -> LossSum:
        merged, features = merge_trees(params, frozen), batch.features
        blocks, clips = batch.lengths.shape
        if store == "text":
            vectors, count = features, batch.lengths
        else:
            vectors, count = encode_features(
                merged.get("encoder"),
                features.reshape(blocks * clips, *features.shape[2:]),
                batch.lengths.reshape(-1),
                store,
                config.encoder,
            )
            vectors = vectors.reshape(blocks, clips, *vectors.shape[1:])
            count = count.reshape(blocks, clips)
        return sum_loss(merged, vectors, count, batch.blocks, config, context.key)

    return loss


class FinetuneTask(TrainTask):
    """Trains a TinyMU to answer the questions of a prepared data set."""

    def __init__(
        self,
        config: TrainConfig,
        model: TinyMUConfig,
        params: Tree,
        tokenizer: str,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Initialize the task; `tokenizer` is the text of tokenizer.json and must fit the data."""
        for folder in filter(None, (config.data.train, config.data.validation)):
            Dataset(folder).check_model(tokenizer, params["encoder"])
        super().__init__(config, model, params, devices)

    def with_compute_config(self, model: TinyMUConfig) -> TinyMUConfig:
        """Return a model's config with the fields that `config.step` and the device decide."""
        return with_step_config(model, self.config.step, self.device)

    def param_axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Return the logical axes of every parameter, by path."""
        return tinymu.param_axes(self.model)

    def make_batches(self, folder: str, epochs: int, validation: bool) -> PackedBatches:
        """Pack a data set's questions into fixed-size blocks; return this process's batches.

        Raises `InputError` if a question is too long, or if validation clips are longer than the
        crops that training takes from clips.
        """
        step, data = self.config.step, self.config.data
        dataset = Dataset(folder)
        augment = NO_AUGMENT if validation else data.augment
        crops = validation and data.augment.enabled and data.augment.crop
        if crops and dataset.features.max_seconds > self.model.max_seconds:
            raise InputError(
                f"{folder}: has longer clips than the crops of training; prepare it with "
                f"--max-seconds {self.model.max_seconds:g}"
            )
        lengths = dataset.lengths(self.model, max_columns(dataset, self.model, augment))
        groups = make_groups(lengths, data.packing, self.model)
        num_blocks = 0 if epochs else self.config.steps * step.blocks
        if num_blocks:
            per_epoch = make_plan(groups, data.packing, data.seed, 1).num_blocks
            epochs = -(-num_blocks // per_epoch) + 1
        plan = make_plan(groups, data.packing, data.seed, epochs)
        while plan.num_blocks < num_blocks:
            # Several epochs packed together fill fewer blocks than the same epochs one by one.
            epochs += max(1, epochs * (num_blocks - plan.num_blocks) // plan.num_blocks)
            plan = make_plan(groups, data.packing, data.seed, epochs)
        return PackedBatches(
            dataset,
            plan,
            data.packing,
            self.model,
            step.blocks,
            self.local_blocks(),
            augment,
            data.seed,
        )

    def check_trained(self, trained: Tree) -> None:
        """Raise an `InputError` if a trained part of the model is not run on the stored data."""
        bypassed = {"embeddings": ("encoder",), "text": ("encoder", "projector")}
        for folder in filter(None, (self.config.data.train, self.config.data.validation)):
            store = Dataset(folder).features.kind
            for part in bypassed.get(store, ()):
                if part in trained:
                    raise InputError(
                        f"{folder}: stores {store}, which bypasses the {part}, and "
                        f"optim.frozen-params trains the {part}; prepare log_mel instead, or "
                        f"freeze '({'|'.join(bypassed[store])})/.*'"
                    )

    def dropout_seed(self) -> int | None:
        """Return the seed of dropout; None disables dropout."""
        return self.config.init.seed if self.config.step.dropout else None

    def loss_fn(self, validation: bool) -> LossFn:
        """Return the loss function: the cross-entropy summed over a batch's answer tokens."""
        return answer_loss(self.model, Dataset(self.data_folder(validation)).features.kind)

    def cost(self, step: int) -> StepCost:
        """Return the amount of work of a step, in questions and decoder positions."""
        counts = self.batches.plan.counts(*self._blocks(step))
        flops = training_flops(
            self.model,
            counts.slots,
            counts.labels,
            counts.clips,
            self.batches.dataset.features.kind,
            frozen=self.config.optim.frozen_params,
        )
        return StepCost(counts.questions, counts.slots, flops)

    def clip_names(self, step: int) -> list[str]:
        """Return the names of the recordings in a step's batch."""
        records = self.batches.plan.records(*self._blocks(step))
        return [self.batches.dataset[record].clip for record in records]

    def _blocks(self, step: int) -> tuple[int, int]:
        """Return the index of a step's first block, and the index after its last block."""
        first = 0 if self.config.overfit_batch else step * self.batches.blocks
        return first, first + self.batches.blocks
