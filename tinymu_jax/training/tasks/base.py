"""What all learning has in common: mesh, weights, optimiser, step, the task for the loop."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from tinymu_jax.data.loader import iterate
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import (
    batch_sharding,
    device_put_tree,
    make_global_batch,
    make_mesh,
    tree_shardings,
    weight_shardings,
)
from tinymu_jax.models import tinymu
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.training.accelerators import chip_of
from tinymu_jax.training.config import RunConfig, StepConfig
from tinymu_jax.training.optim import check_muon, make_optimizer, partition_frozen
from tinymu_jax.training.train_step import (
    Loss,
    Metrics,
    StepContext,
    TrainState,
    compile_step,
    init_state,
    step_of,
)
from tinymu_jax.training.trainer import StepCost, TrainerTask
from tinymu_jax.utils.tree import Tree


def computed_as(model: TinyMUConfig, step: StepConfig) -> TinyMUConfig:
    """Returns a model's config with the products and the remat of training."""
    return replace(
        model,
        ignore_pad_labels=step.ignore_pad_labels,
        encoder=replace(model.encoder, compute_dtype=step.encoder_dtype, remat=step.remat),
        decoder=replace(model.decoder, compute_dtype=step.decoder_dtype, remat=step.remat),
    )


class TrainTask(ABC):
    """A run put together; subclasses say what its batches are and what is made smaller."""

    extra_axes: Mapping[str, tuple[str | None, ...]] = {}
    """Logical axes of trained weights that are not the model's."""
    counted = "questions"
    """What `work` counts, in a word."""

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        params: Tree,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Holds all parts against each other and puts the frozen weights on the devices.

        Args:
            config: of the run.
            model: of the weights.
            params: all of them, before the first step, stacked; anything that can be cut.
            devices: of the mesh; default all.

        Raises:
            InputError: data, mesh, batch and model do not go together.
        """
        self.config = config
        self.model = self.computed(model)
        self.mesh = make_mesh(config.mesh, devices)
        self.batches = self.read(config.data.train, config.data.epochs, validation=False)
        self.steps = self._steps()
        self.optimiser = make_optimizer(config.optim, self.steps)
        trained, frozen = partition_frozen(params, config.optim)
        self.check(trained)
        self._place(trained, frozen)

    @abstractmethod
    def read(self, folder: str, epochs: int, validation: bool) -> Any:
        """Returns the batches of a data set: all steps of this process, by their number."""

    @abstractmethod
    def check(self, trained: Tree) -> None:
        """Holds data and weights against each other.

        Raises:
            InputError: they do not go together.
        """

    @abstractmethod
    def loss(self, validation: bool) -> Loss:
        """Returns what is made smaller, or measured."""

    @abstractmethod
    def work(self, step: int) -> StepCost:
        """Returns what a step computes."""

    @abstractmethod
    def clips(self, step: int) -> list[str]:
        """Returns the names of a step's recordings."""

    def computed(self, model: Any) -> Any:
        """Returns the model's config with the products of training."""
        return computed_as(model, self.config.step)

    def axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Returns the logical axes of every weight."""
        return {**tinymu.param_axes(self.model), **self.extra_axes}

    def dropout_seed(self) -> int | None:
        """Returns the seed of what a step draws; None where it draws nothing."""
        return None

    def watch(self, numbers: Mapping[str, float]) -> str | None:
        """Returns what is wrong by the numbers of a step, if anything is."""
        return None

    def extra(self) -> Any:
        """Returns what the state holds besides before the first step; see `TrainState`."""
        return ()

    def after(
        self, state: TrainState, told: Any, count: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Returns a state with what it holds after a step; see `step.PostUpdate`."""
        return state, {}

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
        mesh, axes = self.mesh, self.axes()
        check_muon(self.config.optim, trained, axes)
        self.start_extra = self.extra()
        shapes = jax.eval_shape(self._init_state, trained, self.start_extra)
        weights = weight_shardings(trained, axes, mesh)
        self.state_at = tree_shardings(shapes, weights, mesh)
        self.abstract = jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            shapes,
            self.state_at,
        )
        frozen_at = tree_shardings(frozen, weight_shardings(frozen, axes, mesh), mesh)
        self.frozen = device_put_tree(frozen, frozen_at)
        self.whole = NamedSharding(mesh, PartitionSpec())
        accumulate, seed = self.config.step.grad_accum_steps, self.dropout_seed()
        self.compiled: Callable[..., Any] | None = None
        self.step = jax.jit(
            step_of(self.loss(False), self.optimiser, accumulate, seed, self.after),
            in_shardings=(self.state_at, frozen_at, batch_sharding(mesh)),
            out_shardings=(self.state_at, self.whole),
            donate_argnums=0,
        )

    def begin(self, params: Tree) -> TrainState:
        """Returns the state before the first step, on the devices.

        Args:
            params: as the task was made with; they are not kept here.
        """
        trained, _ = partition_frozen(params, self.config.optim)
        on = (
            device_put_tree(trained, self.state_at.params),
            device_put_tree(self.start_extra, self.state_at.extra),
        )
        return jax.jit(self._init_state, out_shardings=self.state_at)(*on)

    def _init_state(self, trained: Tree, extra: Any) -> TrainState:
        return init_state(trained, self.optimiser, extra)

    def task(self) -> TrainerTask:
        """Returns what the loop runs."""
        validate = None if self.config.data.validation is None else self._validation()
        chip = chip_of(self.mesh.devices.flat[0].device_kind)
        peak = None if chip is None else chip.flops * self.mesh.size
        parts = (self._advance, self._batches, self.work, self.clips, validate, peak)
        return TrainerTask(self.steps, *parts, self.counted, self.watch)

    def _advance(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        with jax.set_mesh(self.mesh):
            if self.compiled is None:
                self.compiled = compile_step(self.step, state, self.frozen, batch)
            return self.compiled(state, self.frozen, batch)

    def _batches(self, start: int) -> Iterator[Any]:
        """Yields batches from a step on, on the devices."""
        data = self.config.data
        if self.config.overfit_batch:
            batch = make_global_batch(self.batches[0], self.mesh)
            yield from itertools.repeat(batch, self.steps - start)
            return
        for batch in iterate(self.batches, start, data.threads, data.prefetch):
            yield make_global_batch(batch, self.mesh)

    def _validation(self) -> Any:
        """Returns what measures the loss on the validation set."""
        data = self.config.data
        batches = self.read(data.validation, epochs=1, validation=True)
        loss = self.loss(True)

        def measure(state: TrainState, frozen: Tree, batch: Any) -> tuple[Any, Any]:
            found = loss(state.params, frozen, batch, StepContext(state.step, state.extra))
            return found.total, found.count

        compiled = jax.jit(measure, out_shardings=self.whole)

        def validate(state: TrainState, stopped: Callable[[], bool]) -> dict[str, float]:
            total = count = 0.0
            with jax.set_mesh(self.mesh):
                for batch in iterate(batches, 0, data.threads, data.prefetch):
                    found = compiled(state, self.frozen, make_global_batch(batch, self.mesh))
                    total, count = total + float(found[0]), count + float(found[1])
                    if stopped():
                        return {}
            return {"validation_loss": total / count if count else math.nan}

        return validate
