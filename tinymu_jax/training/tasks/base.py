"""Base class of training tasks: mesh, parameters, optimizer, train step and validation."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from tinymu_jax.data.loader import iterate
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import (
    batch_sharding,
    device_put_tree,
    local_block_ids,
    make_global_batch,
    make_mesh,
    tree_shardings,
    weight_shardings,
)
from tinymu_jax.training.accelerators import chip_of
from tinymu_jax.training.compute import compiler_options
from tinymu_jax.training.config import RunConfig
from tinymu_jax.training.optim import check_muon, make_optimizer, partition_frozen
from tinymu_jax.training.train_step import (
    LossFn,
    StepContext,
    StepMetrics,
    TrainState,
    compile_step,
    init_state,
    make_train_step,
)
from tinymu_jax.utils.tree import Tree, has_arrays


class StepCost(NamedTuple):
    """Amount of work of one step, summed over all processes, without padding."""

    units: int
    """Number of questions, crops or clips; see `TrainTask.unit`."""
    tokens: int
    """Number of decoder positions, labels or masked patches."""
    flops: float
    """FLOPs, without recomputation."""


class TrainTask(ABC):
    """A training run that is ready to start; subclasses define its batches and its loss.

    Attributes:
        steps: number of steps of the whole run.
        batches: this process's batches as a sequence, one per step.
        abstract_state: shapes, dtypes and shardings of the training state.
        validate: function (state, stopped) that returns validation metrics; None without validation
            data. It breaks off and returns {} once the function `stopped` returns True.
        peak_flops: peak FLOP/s of all devices together; None for an unknown kind of device.
    """

    unit = "questions"
    """What `StepCost.units` counts."""

    def __init__(
        self, config: RunConfig, model: Any, params: Tree, devices: Sequence[Any] | None = None
    ) -> None:
        """Open the data, build the step and put the frozen parameters on the devices.

        `model` is the model's config; `params` are all initial parameters, with layers stacked. If
        they are shapes and dtypes, the task only checks what a run needs, and cannot be run. Raises
        `InputError` if data, mesh, batch size and model do not fit together.
        """
        self.config = config
        self.mesh = make_mesh(config.mesh, devices)
        self.device = self.mesh.devices.flat[0]
        self.model = self.with_compute_config(model)
        self.batches = self.make_batches(config.data.train, config.data.epochs, validation=False)
        self.steps = self._count_steps()
        self.optimizer = make_optimizer(config.optim, self.steps)
        trained, frozen = partition_frozen(params, config.optim)
        self.check_trained(trained)
        self._place(trained, frozen)
        self.validate = None if config.data.validation is None else self._make_validate()
        chip = chip_of(self.device.device_kind)
        self.peak_flops = None if chip is None else chip.flops * self.mesh.size

    @abstractmethod
    def with_compute_config(self, model: Any) -> Any:
        """Return a model's config with the fields that `config.step` and the device decide."""

    @abstractmethod
    def param_axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Return the logical axes of every parameter, by path."""

    @abstractmethod
    def make_batches(self, folder: str, epochs: int, validation: bool) -> Any:
        """Return this process's batches of the data set `folder`, as a sequence with one per step.

        `epochs` is the number of passes over the data; 0: as many as the run's steps need.
        """

    def describe_attention(self) -> str:
        """Return a line about how attention is computed, for the run's output."""
        parts = {name: getattr(self.model, name, None) for name in ("encoder", "decoder")}
        kinds = [f"{part.attention} ({name})" for name, part in parts.items() if part is not None]
        # A tagger's model is an encoder.
        return f"attention: {', '.join(kinds) or self.model.attention}"

    def report_data(self) -> None:  # noqa: B027 - most tasks leave nothing out
        """Report and list what the run leaves out of its data, once the run's folder exists."""

    @abstractmethod
    def check_trained(self, trained: Tree) -> None:
        """Raise an `InputError` if the trained parameters do not suit the data or the loss."""

    @abstractmethod
    def loss_fn(self, validation: bool) -> LossFn:
        """Return the loss function of training, or of validation."""

    @abstractmethod
    def cost(self, step: int) -> StepCost:
        """Return the amount of work of step `step`; the first step is 0."""

    @abstractmethod
    def clip_names(self, step: int) -> list[str]:
        """Return the names of the recordings in the batch of step `step`; the first step is 0."""

    def dropout_seed(self) -> int | None:
        """Return the seed of dropout; None disables dropout."""
        return None

    def diagnose(self, metrics: Mapping[str, float]) -> str | None:
        """Return a description of a problem that a step's metrics reveal, or None."""
        return None

    def init_aux_state(self) -> Any:
        """Return `TrainState.aux_state` before the first step."""
        return ()

    def post_update(
        self, state: TrainState, aux: Any, num_targets: Array
    ) -> tuple[TrainState, Mapping[str, Array]]:
        """Return `state` with a new `aux_state`, and more metrics. Arguments: see `PostUpdate`."""
        return state, {}

    def local_blocks(self) -> Sequence[int]:
        """Return the indices of the blocks that this process reads from every batch."""
        step = self.config.step
        return local_block_ids(self.mesh, step.blocks, step.grad_accum_steps)

    def data_folder(self, validation: bool) -> str:
        """Return the folder of the training data set, or of the validation data set."""
        return self.config.data.validation if validation else self.config.data.train

    def _count_steps(self) -> int:
        """Return the run's number of steps; raise an `InputError` if the data has too few."""
        requested, available = self.config.steps, len(self.batches)
        if requested > available and not self.config.overfit_batch:
            raise InputError(
                f"steps is {requested}, but the data gives {available} in "
                f"{self.config.data.epochs} epochs; raise data.epochs, or lower steps"
            )
        return requested or available

    def _place(self, trained: Tree, frozen: Tree) -> None:
        """Set the shardings, put the frozen parameters on the devices and jit the step."""
        mesh, axes = self.mesh, self.param_axes()
        check_muon(self.config.optim, trained, axes)
        self.start_aux_state = self.init_aux_state()
        shapes = jax.eval_shape(self._init_state, trained, self.start_aux_state)
        self.state_sharding = tree_shardings(shapes, weight_shardings(trained, axes, mesh), mesh)
        self.abstract_state = jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            shapes,
            self.state_sharding,
        )
        frozen_sharding = tree_shardings(frozen, weight_shardings(frozen, axes, mesh), mesh)
        self.frozen = device_put_tree(frozen, frozen_sharding) if has_arrays(frozen) else None
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.compiled: Callable[..., Any] | None = None
        self.step = jax.jit(
            make_train_step(
                self.loss_fn(validation=False),
                self.optimizer,
                self.config.step.grad_accum_steps,
                self.dropout_seed(),
                self.post_update,
            ),
            in_shardings=(self.state_sharding, frozen_sharding, batch_sharding(mesh)),
            out_shardings=(self.state_sharding, self.replicated),
            donate_argnums=0,
            compiler_options=compiler_options(self.device),
        )

    def _init_state(self, trained: Tree, aux_state: Any) -> TrainState:
        loss_scaling = "float16" in self.config.step.dtypes.values()
        return init_state(trained, self.optimizer, aux_state, loss_scaling)

    def init(self, params: Tree) -> TrainState:
        """Return the initial state on the devices, from the `params` given to the constructor."""
        trained, _ = partition_frozen(params, self.config.optim)
        placed = (
            device_put_tree(trained, self.state_sharding.params),
            device_put_tree(self.start_aux_state, self.state_sharding.aux_state),
        )
        return jax.jit(self._init_state, out_shardings=self.state_sharding)(*placed)

    def run_step(self, state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        """Run one training step, compiling it on the first call; the state is donated."""
        with jax.set_mesh(self.mesh):
            if self.compiled is None:
                self.compiled = compile_step(self.step, state, self.frozen, batch)
            return self.compiled(state, self.frozen, batch)

    def load_batches(self, start: int) -> Iterator[Any]:
        """Yield the global batches of steps `start`, `start + 1`, ..., placed on the devices."""
        data = self.config.data
        if self.config.overfit_batch:
            batch = make_global_batch(self.batches[0], self.mesh)
            yield from itertools.repeat(batch, self.steps - start)
            return
        for batch in iterate(self.batches, start, data.threads, data.prefetch):
            yield make_global_batch(batch, self.mesh)

    def _make_validate(self) -> Callable[[TrainState, Callable[[], bool]], dict[str, float]]:
        """Return the function `validate`, which averages the loss over the validation data."""
        data = self.config.data
        batches = self.make_batches(data.validation, epochs=1, validation=True)
        loss_fn = self.loss_fn(validation=True)

        def measure(state: TrainState, frozen: Tree, batch: Any) -> tuple[Array, Array]:
            loss = loss_fn(state.params, frozen, batch, StepContext(state.step, state.aux_state))
            return loss.loss_sum, loss.num_targets

        compiled = jax.jit(measure, out_shardings=self.replicated)

        def validate(state: TrainState, stopped: Callable[[], bool]) -> dict[str, float]:
            total = count = 0.0
            with jax.set_mesh(self.mesh):
                for batch in iterate(batches, 0, data.threads, data.prefetch):
                    sums = compiled(state, self.frozen, make_global_batch(batch, self.mesh))
                    total, count = total + float(sums[0]), count + float(sums[1])
                    if stopped():
                        return {}
            return {"validation_loss": total / count if count else math.nan}

        return validate
