"""Pre-training the encoder on recordings alone: what the loop runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tinymu_jax.data.crops import CropBatch, CropBatches, open_corpus
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import local_block_ids
from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matpac_ssl import student_teacher
from tinymu_jax.models.matpac_ssl.losses import random_patch_orders
from tinymu_jax.models.matpac_ssl.metrics import collapse_warning, step_metrics
from tinymu_jax.models.matpac_ssl.student_teacher import MetricSums, ssl_loss
from tinymu_jax.models.matpac_ssl.teacher import TeacherState, ema_update, order_after_teacher
from tinymu_jax.training.config import UNUSED, OptimConfig, PretrainConfig
from tinymu_jax.training.flops import pretraining_flops
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import merge_trees
from tinymu_jax.training.tasks.base import TrainTask
from tinymu_jax.training.train_step import Loss, PostUpdate, StepContext, TrainState
from tinymu_jax.training.trainer import StepCost
from tinymu_jax.utils.tree import Tree, flatten

ALWAYS_FROZEN = r"encoder/log_mel/.*"
"""No log-mel is computed in a step."""


def frozen_too(optim: OptimConfig, model: SelfSupervisedConfig) -> OptimConfig:
    """Returns the optimiser's config with what never learns frozen."""
    unused = f"|{UNUSED}" if model.predictor.hypotheses > 1 else ""
    return replace(optim, frozen_params=f"{optim.frozen_params}|{ALWAYS_FROZEN}{unused}")


class Pretraining(TrainTask):
    """A run that learns from crops of recordings and from its own moving average."""

    counted = "crops"

    def __init__(
        self,
        config: PretrainConfig,
        model: SelfSupervisedConfig,
        params: Tree,
        teaching: TeacherState,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Arguments and errors as `TrainTask`; `teaching` is that before the first step."""
        self.teaching = teaching
        config = replace(config, optim=frozen_too(config.optim, model))
        super().__init__(config, model, params, devices)

    def computed(self, model: SelfSupervisedConfig) -> SelfSupervisedConfig:
        """Returns the config with the products and the remat of training."""
        step = self.config.step
        encoder = replace(model.encoder, compute_dtype=step.encoder_dtype, remat=step.remat)
        return replace(model, encoder=encoder)

    def axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Returns the logical axes of every weight."""
        return student_teacher.param_axes(self.model)

    def extra(self) -> TeacherState:
        """Returns what teaches at the first step."""
        return self.teaching

    def read(self, folder: str, epochs: int, validation: bool) -> CropBatches:
        """Returns the crops of a data set, or of a folder of recordings."""
        step, data, encoder = self.config.step, self.config.data, self.model.encoder
        corpus = open_corpus(folder, encoder.num_frames, encoder.patch_size)
        own = local_block_ids(self.mesh, step.blocks, step.grad_accum_steps)
        return CropBatches(
            corpus,
            encoder.num_frames,
            data.clips,
            step.blocks,
            own,
            epochs,
            self.config.steps,
            data.seed,
        )

    def check(self, trained: Tree) -> None:
        """Refuses to freeze what teaches.

        Raises:
            InputError: some of it is frozen.
        """
        learns = {path for path, _ in flatten(trained)}
        for path, _ in flatten(self.teaching.teacher):
            if path not in learns:
                raise InputError(
                    f"optim.frozen-params {self.config.optim.frozen_params!r} freezes {path}, of which the "
                    "teacher is a moving average; narrow it"
                )

    def loss(self, validation: bool) -> Loss:
        """Returns what is made smaller; masks depend on the block alone."""
        return loss_of_crops(self.model, self.config.data.seed)

    def after(
        self, state: TrainState, told: MetricSums, count: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Returns a state with what teaches after a step, and what is told of it."""
        return teach(self.model, self.steps)(state, told, count)

    def watch(self, numbers: Mapping[str, float]) -> str | None:
        """Returns what is wrong by the numbers of a step, if anything is."""
        return collapse_warning(dict(numbers))

    def work(self, step: int) -> StepCost:
        """Returns what a step computes."""
        crops = self.batches.blocks * self.config.data.clips
        patches = crops * (self.model.patches - self.model.visible)
        return StepCost(crops, patches, pretraining_flops(self.model) * crops)

    def clips(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""
        return self.batches.names(0 if self.config.overfit_batch else step)


def loss_of_crops(config: SelfSupervisedConfig, seed: int) -> Loss:
    """Returns both losses' weighed sum over the masked patches of a batch.

    Args:
        config: of all.
        seed: of the masks.
    """
    key = jax.random.key(seed)

    def orders_of(number: Array, clips: int) -> Array:
        return random_patch_orders(jax.random.fold_in(key, number), clips, config.patches)

    def loss(params: Tree, frozen: Tree, batch: CropBatch, at: StepContext) -> LossSum:
        blocks, clips, frames, bands = batch.log_mel.shape
        orders = jax.vmap(partial(orders_of, clips=clips))(batch.number)
        log_mel = batch.log_mel.reshape(-1, frames, bands).astype(jnp.float32)
        orders = orders.reshape(-1, config.patches)
        seen = ssl_loss(merge_trees(params, frozen), at.extra, log_mel, orders, at.step, config)
        share = config.class_loss_weight
        total = (1 - share) * seen.prediction.sum() + share * seen.classes.sum()
        masked = blocks * clips * (config.patches - config.visible)
        return LossSum(total, jnp.float32(masked), seen.sums)

    return loss


def teach(config: SelfSupervisedConfig, steps: int) -> PostUpdate:
    """Returns what becomes of what teaches, in a run of so many steps."""

    def after(
        state: TrainState, told: MetricSums, count: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        of = told.teacher[0] if config.centre == "probabilities" else told.logits
        teaching = ema_update(state.extra, state.params, of / count, state.step, steps, config)
        params = order_after_teacher(state.params, teaching)
        others = step_metrics(told, count, state.step, steps, config)
        return state._replace(params=params, extra=teaching), others

    return after
