"""Fine-tuning TinyMU on prepared questions: what the loop runs."""

from collections.abc import Sequence
from typing import Any

from tinymu_jax.data.augment import max_columns
from tinymu_jax.data.config import NO_AUGMENT
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.loader import Batch, PackedBatches
from tinymu_jax.data.sampler import make_groups, make_plan
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import local_block_ids
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.training.config import TrainConfig
from tinymu_jax.training.flops import training_flops
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.tasks.base import TrainTask
from tinymu_jax.training.train_step import Loss, StepContext, loss_of_batch
from tinymu_jax.training.trainer import StepCost
from tinymu_jax.utils.tree import Tree


class FineTuning(TrainTask):
    """A run that learns answers."""

    def __init__(
        self,
        config: TrainConfig,
        model: TinyMUConfig,
        params: Tree,
        tokenizer: str,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Arguments and errors as `TrainTask`; `tokenizer` is the text of `tokenizer.json`."""
        for name in filter(None, (config.data.train, config.data.validation)):
            Dataset(name).check_model(tokenizer, params["encoder"])
        super().__init__(config, model, params, devices)

    def read(self, folder: str, epochs: int, validation: bool) -> PackedBatches:
        """Plans all epochs of a data set; this process reads its own part of each step."""
        step, data = self.config.step, self.config.data
        dataset = Dataset(folder)
        augment = NO_AUGMENT if validation else data.augment
        crops = validation and data.augment.enabled and data.augment.crop
        if crops and dataset.features.max_seconds > self.model.max_seconds:
            raise InputError(
                f"{folder}: holds longer clips than the crops that are learnt; prepare it with "
                f"--max-seconds {self.model.max_seconds:g}"
            )
        own = local_block_ids(self.mesh, step.blocks, step.grad_accum_steps)
        lengths = dataset.lengths(self.model, max_columns(dataset, self.model, augment))
        groups = make_groups(lengths, data.packing, self.model)
        wanted = 0 if epochs else self.config.steps * step.blocks
        if wanted:
            once = make_plan(groups, data.packing, data.seed, 1).num_blocks
            epochs = -(-wanted // once) + 1
        plan = make_plan(groups, data.packing, data.seed, epochs)
        while plan.num_blocks < wanted:
            # Several epochs are packed together, into fewer blocks than each by itself.
            epochs += max(1, epochs * (wanted - plan.num_blocks) // plan.num_blocks)
            plan = make_plan(groups, data.packing, data.seed, epochs)
        return PackedBatches(
            dataset, plan, data.packing, self.model, step.blocks, own, augment, data.seed
        )

    def check(self, trained: Tree) -> None:
        """Refuses to train parts of a model that the stored features do not pass through.

        Raises:
            InputError: there are such; the message says what to freeze.
        """
        unused = {"embeddings": ("encoder",), "text": ("encoder", "projector")}
        for name in filter(None, (self.config.data.train, self.config.data.validation)):
            store = Dataset(name).features.kind
            for part in unused.get(store, ()):
                if part in trained:
                    raise InputError(
                        f"{name}: stores {store}, which the {part} does not hear, and optim.frozen-params "
                        f"lets the {part} learn; prepare log_mel instead, or freeze "
                        f"'({'|'.join(unused[store])})/.*'"
                    )

    def dropout_seed(self) -> int | None:
        """Returns the seed of dropout."""
        return self.config.init.seed if self.config.step.dropout else None

    def loss(self, validation: bool) -> Loss:
        """Returns the cross-entropy of the answers."""
        folder = self.config.data.validation if validation else self.config.data.train
        store, model = Dataset(folder).features.kind, self.model

        def loss(params: Tree, frozen: Tree, batch: Batch, at: StepContext) -> LossSum:
            return loss_of_batch(params, frozen, batch, model, store, at.key)

        return loss

    def work(self, step: int) -> StepCost:
        """Returns what a step computes."""
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

    def clips(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""
        records = self.batches.plan.records(*self._blocks(step))
        return [self.batches.dataset[record].clip for record in records]

    def _blocks(self, step: int) -> tuple[int, int]:
        """Returns the first block of a step, and the first of the next."""
        first = 0 if self.config.overfit_batch else step * self.batches.blocks
        return first, first + self.batches.blocks
