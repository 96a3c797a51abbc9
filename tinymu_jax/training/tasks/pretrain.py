"""The task of pre-training an encoder (MATPAC, MATPAC++) on recordings without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tinymu_jax.data.crops import Corpus, CropBatch, CropBatches, open_corpus
from tinymu_jax.data.dataset import BAD_FILE
from tinymu_jax.data.unusable import check_bad_fraction, write_bad_list
from tinymu_jax.errors import InputError, note
from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matpac_ssl import student_teacher
from tinymu_jax.models.matpac_ssl.losses import random_patch_orders
from tinymu_jax.models.matpac_ssl.metrics import collapse_warning, step_metrics
from tinymu_jax.models.matpac_ssl.student_teacher import MetricSums, ssl_loss
from tinymu_jax.models.matpac_ssl.teacher import TeacherState, ema_update, order_after_teacher
from tinymu_jax.training.compute import encoder_options
from tinymu_jax.training.config import UNUSED, OptimConfig, PretrainConfig
from tinymu_jax.training.flops import pretraining_flops
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.training.tasks.base import StepCost, TrainTask
from tinymu_jax.training.train_step import LossFn, PostUpdate, StepContext, TrainState
from tinymu_jax.utils.tree import Tree, flatten

ALWAYS_FROZEN = r"encoder/log_mel/.*"
"""Paths of the log-mel front end, unused in pre-training because batches hold log-mels."""

VALIDATION_BAD_FILE = "bad_validation.jsonl"
"""Name of the list of the validation data's unusable recordings in the run's folder."""


def freeze_unused(optim: OptimConfig, model: SelfSupervisedConfig) -> OptimConfig:
    """Add all parameters that get no gradient to `optim.frozen_params`; return the new config."""
    unused = f"|{UNUSED}" if model.predictor.hypotheses > 1 else ""
    return replace(optim, frozen_params=f"{optim.frozen_params}|{ALWAYS_FROZEN}{unused}")


class PretrainTask(TrainTask):
    """Trains a student encoder to predict the outputs of its moving average, the teacher."""

    unit = "crops"

    def __init__(
        self,
        config: PretrainConfig,
        model: SelfSupervisedConfig,
        params: Tree,
        teacher_state: TeacherState,
        devices: Sequence[Any] | None = None,
        corpora: dict[str, Corpus] | None = None,
    ) -> None:
        """Initialize the task.

        `teacher_state` is the teacher before the first step. `corpora` holds opened recordings by
        folder; those that the task opens are added, for another task of the same run.
        """
        self.teacher_state = teacher_state
        self.corpora = {} if corpora is None else corpora
        config = replace(config, optim=freeze_unused(config.optim, model))
        super().__init__(config, model, params, devices)

    def with_compute_config(self, model: SelfSupervisedConfig) -> SelfSupervisedConfig:
        """Return a model's config with the fields that `config.step` and the device decide."""
        options = encoder_options(self.config.step, self.device, model.encoder)
        return replace(model, encoder=replace(model.encoder, **options))

    def param_axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Return the logical axes of every parameter, by path."""
        return student_teacher.param_axes(self.model)

    def init_aux_state(self) -> TeacherState:
        """Return the state of the teacher before the first step."""
        return self.teacher_state

    def make_batches(self, folder: str, epochs: int, validation: bool) -> CropBatches:
        """Return this process's batches of crops from a data set or a folder of recordings.

        Raises `InputError` if more recordings are unusable than `data.max_bad_fraction`.
        """
        data, encoder = self.config.data, self.model.encoder
        if folder not in self.corpora:
            self.corpora[folder] = open_corpus(
                folder, encoder.num_frames, encoder.patch_size, data.keep_damaged
            )
        corpus = self.corpora[folder]
        check_bad_fraction(corpus.bad, corpus.total, data.max_bad_fraction)
        return CropBatches(
            corpus,
            encoder.num_frames,
            data.clips,
            self.config.step.blocks,
            self.local_blocks(),
            epochs,
            self.config.steps,
            data.seed,
        )

    def report_data(self) -> None:
        """Print how many recordings are skipped; list the unusable ones in the run's folder."""
        if jax.process_index() == 0:
            output, data = Path(self.config.output), self.config.data
            report_skipped(self.corpora[data.train], output / BAD_FILE)
            if data.validation is not None:
                report_skipped(self.corpora[data.validation], output / VALIDATION_BAD_FILE)

    def check_trained(self, trained: Tree) -> None:
        """Raise an `InputError` if a student parameter that the teacher averages is frozen."""
        trained_paths = {path for path, _ in flatten(trained)}
        for path, _ in flatten(self.teacher_state.teacher):
            if path not in trained_paths:
                raise InputError(
                    f"optim.frozen-params {self.config.optim.frozen_params!r} freezes {path}, of "
                    "which the teacher is a moving average; narrow it"
                )

    def loss_fn(self, validation: bool) -> LossFn:
        """Return the loss function; random masks depend on the seed and the block's index."""
        return pretraining_loss(self.model, self.config.data.seed)

    def post_update(
        self, state: TrainState, aux: MetricSums, num_targets: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Return the state with an updated teacher, and the step's metrics."""
        return update_teacher(self.model, self.steps)(state, aux, num_targets)

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Return a warning if a step's metrics show that predictions or classes have collapsed."""
        return collapse_warning(dict(metrics))

    def cost(self, step: int) -> StepCost:
        """Return the amount of work of a step, in crops and masked patches."""
        crops = self.batches.blocks * self.config.data.clips
        patches = crops * (self.model.patches - self.model.visible)
        return StepCost(crops, patches, pretraining_flops(self.model) * crops)

    def clip_names(self, step: int) -> list[str]:
        """Return the names of the recordings in a step's batch."""
        return self.batches.names(0 if self.config.overfit_batch else step)


def report_skipped(corpus: Corpus, listing: Path) -> None:
    """Print how many recordings a run skips, if any; list the unusable ones in a file."""
    if not (corpus.bad or corpus.num_short):
        return
    where = ""
    if corpus.bad:
        write_bad_list(listing, corpus.bad)
        where = f" (listed in {listing})"
    note(
        f"{corpus.folder}: of {corpus.total:,} recordings, {len(corpus.bad):,} cannot be used"
        f"{where}, and {corpus.num_short:,} are shorter than a crop"
    )


def pretraining_loss(config: SelfSupervisedConfig, seed: int) -> LossFn:
    """Return a loss function: a weighted sum of prediction and class loss over masked patches.

    `config` sets the weight of the class loss; `seed` is the seed of the random masks.
    """
    key = jax.random.key(seed)

    def orders_of(number: Array, clips: int) -> Array:
        return random_patch_orders(jax.random.fold_in(key, number), clips, config.patches)

    def loss(params: Tree, frozen: Tree, batch: CropBatch, context: StepContext) -> LossSum:
        blocks, clips, frames, bands = batch.log_mel.shape
        orders = jax.vmap(partial(orders_of, clips=clips))(batch.number)
        log_mel = batch.log_mel.reshape(-1, frames, bands).astype(jnp.float32)
        orders = orders.reshape(-1, config.patches)
        merged = merge_trees(params, frozen)
        output = ssl_loss(merged, context.aux_state, log_mel, orders, context.step, config)
        share = config.class_loss_weight
        loss_sum = (1 - share) * output.prediction_loss.sum() + share * output.class_loss.sum()
        masked = blocks * clips * (config.patches - config.visible)
        return LossSum(loss_sum, jnp.float32(masked), output.sums)

    return loss


def update_teacher(config: SelfSupervisedConfig, steps: int) -> PostUpdate:
    """Return the `PostUpdate` that updates the teacher in a run of `steps` steps."""

    def post_update(
        state: TrainState, aux: MetricSums, num_targets: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        probs, logits = aux.teacher_probs[0], aux.teacher_logits
        outputs = probs if config.centre == "probabilities" else logits
        mean = outputs / num_targets
        teacher = ema_update(state.aux_state, state.params, mean, state.step, steps, config)
        params = order_after_teacher(state.params, teacher)
        metrics = step_metrics(aux, num_targets, state.step, steps, config)
        return state._replace(params=params, aux_state=teacher), metrics

    return post_update
