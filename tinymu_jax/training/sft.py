"""Fine-tuning TinyMU on prepared questions: what the loop runs."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from tinymu_jax.config import TinyMUConfig
from tinymu_jax.data.augment import max_columns
from tinymu_jax.data.config import UNCHANGED, AugmentConfig
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.loader import Batch, Batches, iterate
from tinymu_jax.data.plan import make_groups, make_plan
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import (
    batch_sharding,
    make_mesh,
    own_parts,
    put,
    to_global,
    tree_shardings,
    weight_shardings,
)
from tinymu_jax.models import tinymu
from tinymu_jax.sharding import Tree
from tinymu_jax.training.chips import chip_of
from tinymu_jax.training.config import StepConfig, TrainConfig
from tinymu_jax.training.flops import training_flops
from tinymu_jax.training.loop import Task, Work
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.optim import make_optimiser, split_frozen
from tinymu_jax.training.step import Metrics, TrainState, init_state, loss_of_batch, make_step


def computed_as(model: TinyMUConfig, step: StepConfig) -> TinyMUConfig:
    """Returns a model's config with the products and the remat of training."""
    return replace(
        model,
        ignore_pad_labels=step.ignore_pad_labels,
        encoder=replace(model.encoder, products=step.encoder),
        decoder=replace(model.decoder, products=step.decoder, remat=step.remat),
    )


class FineTuning:
    """A run put together: data, mesh, weights and step."""

    def __init__(
        self,
        config: TrainConfig,
        model: TinyMUConfig,
        params: Tree,
        tokenizer: str,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Holds all parts against each other and puts the frozen weights on the devices.

        Args:
            config: of the run.
            model: of the weights.
            params: all of them, before the first step, stacked; anything that can be cut.
            tokenizer: the text of the model's `tokenizer.json`.
            devices: of the mesh; default all.

        Raises:
            InputError: data, mesh, batch and model do not go together.
        """
        self.config, self.model = config, computed_as(model, config.step)
        self.mesh = make_mesh(config.mesh, devices)
        self.batches = self._plan(config.data.train, config.data.augment, config.data.epochs)
        self.steps = self._steps()
        self.optimiser = make_optimiser(config.optim, self.steps)
        trained, frozen = split_frozen(params, config.optim)
        self.store = self.batches.dataset.features.store
        for name in filter(None, (config.data.train, config.data.validation)):
            dataset = Dataset(name)
            dataset.check_model(tokenizer, params["encoder"])
            if "encoder" in trained and dataset.features.store == "embeddings":
                raise InputError(
                    f"{name}: stores the encoder's vectors, and optim.frozen lets the encoder "
                    "learn; prepare log_mel instead, or freeze it"
                )
        self._place(trained, frozen)

    def _plan(self, folder: str, augment: AugmentConfig, epochs: int) -> Batches:
        """Plans all epochs of a data set; this process reads its own part of each step."""
        step, data = self.config.step, self.config.data
        dataset = Dataset(folder)
        own = own_parts(self.mesh, step.blocks, step.accumulate)
        lengths = dataset.index.lengths(self.model, max_columns(dataset, self.model, augment))
        groups = make_groups(lengths, data.packing, self.model)
        plan = make_plan(groups, data.packing, data.seed, epochs)
        return Batches(
            dataset, plan, data.packing, self.model, step.blocks, own, augment, data.seed
        )

    def _steps(self) -> int:
        given, there = self.config.steps, len(self.batches)
        if given > there and not self.config.overfit_batch:
            raise InputError(
                f"steps is {given}, but the data gives {there} in {self.config.data.epochs} "
                "epochs; raise data.epochs, or lower steps"
            )
        return given or there

    def _place(self, trained: Tree, frozen: Tree) -> None:
        """Says where everything lies, and compiles nothing yet."""
        mesh, axes = self.mesh, tinymu.param_axes(self.model)
        shapes = jax.eval_shape(lambda p: init_state(p, self.optimiser), trained)
        weights = weight_shardings(trained, axes, mesh)
        self.state_at = tree_shardings(shapes, weights, mesh)
        self.abstract = jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            shapes,
            self.state_at,
        )
        frozen_at = tree_shardings(frozen, weight_shardings(frozen, axes, mesh), mesh)
        self.frozen = put(frozen, frozen_at)
        self.whole = NamedSharding(mesh, PartitionSpec())
        seed = self.config.start.seed if self.config.step.dropout else None
        accumulate = self.config.step.accumulate
        self.step = jax.jit(
            make_step(self.model, self.store, self.optimiser, accumulate, seed),
            in_shardings=(self.state_at, frozen_at, batch_sharding(mesh)),
            out_shardings=(self.state_at, self.whole),
            donate_argnums=0,
        )

    def begin(self, params: Tree) -> TrainState:
        """Returns the state before the first step, on the devices.

        Args:
            params: as the task was made with; they are not kept here.
        """
        trained, _ = split_frozen(params, self.config.optim)
        on = put(trained, self.state_at.params)
        start = jax.jit(lambda p: init_state(p, self.optimiser), out_shardings=self.state_at)
        return start(on)

    def task(self) -> Task:
        """Returns what the loop runs."""
        validate = None if self.config.data.validation is None else self._validation()
        chip = chip_of(self.mesh.devices.flat[0].device_kind)
        peak = None if chip is None else chip.flops * self.mesh.size
        parts = (self._advance, self._batches, self._work, self._clips, validate, peak)
        return Task(self.steps, *parts)

    def _advance(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.set_mesh(self.mesh):
            return self.step(state, self.frozen, batch)

    def _batches(self, start: int) -> Iterator[Batch]:
        """Yields batches from a step on, on the devices."""
        data = self.config.data
        if self.config.overfit_batch:
            batch = to_global(self.batches[0], self.mesh)
            yield from itertools.repeat(batch, self.steps - start)
            return
        for batch in iterate(self.batches, start, data.threads, data.ahead):
            yield to_global(batch, self.mesh)

    def _blocks(self, step: int) -> tuple[int, int]:
        """Returns the first block of a step, and the first of the next."""
        first = 0 if self.config.overfit_batch else step * self.batches.blocks
        return first, first + self.batches.blocks

    def _work(self, step: int) -> Work:
        counts = self.batches.plan.work(*self._blocks(step))
        flops = training_flops(
            self.model,
            counts.slots,
            counts.labels,
            counts.clips,
            self.store,
            frozen=self.config.optim.frozen,
        )
        return Work(counts.questions, counts.slots, flops)

    def _clips(self, step: int) -> list[str]:
        records = self.batches.plan.records(*self._blocks(step))
        return [self.batches.dataset[record].clip for record in records]

    def _validation(self) -> Any:
        """Returns what measures the loss on the validation set."""
        batches = self._plan(self.config.data.validation, UNCHANGED, epochs=1)
        crops = self.config.data.augment.enabled and self.config.data.augment.crop
        if crops and batches.dataset.features.max_seconds > self.model.max_seconds:
            raise InputError(
                f"{self.config.data.validation}: holds longer clips than the crops that are "
                f"learnt; prepare it with --max-seconds {self.model.max_seconds:g}"
            )
        store, data = batches.dataset.features.store, self.config.data

        def measure(params: Tree, frozen: Tree, batch: Batch) -> LossSum:
            return loss_of_batch(params, frozen, batch, self.model, store)

        compiled = jax.jit(measure, out_shardings=self.whole)

        def validate(state: TrainState, stopped: Callable[[], bool]) -> dict[str, float]:
            total = count = 0.0
            with jax.set_mesh(self.mesh):
                for batch in iterate(batches, 0, data.threads, data.ahead):
                    found = compiled(state.params, self.frozen, to_global(batch, self.mesh))
                    total, count = total + float(found.total), count + float(found.count)
                    if stopped():
                        return {}
            return {"validation_loss": total / count if count else math.nan}

        return validate
