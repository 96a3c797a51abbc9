"""The training loop: run steps, log metrics, validate, save, and stop on request."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

from tinymu_jax.errors import InputError
from tinymu_jax.training.checkpointing import Checkpoints
from tinymu_jax.training.config import LoopConfig
from tinymu_jax.training.metrics import MetricsLog, summarize_metrics
from tinymu_jax.training.preemption import StopRequest
from tinymu_jax.training.tasks.base import StepCost, TrainTask
from tinymu_jax.training.train_step import StepMetrics, TrainState
from tinymu_jax.utils.files import write_json
from tinymu_jax.utils.progress import ProgressDisplay

FAULT_FILE = "not_finite.json"
UNHEALTHY_LOGS = 3
"""Number of consecutive logged steps with a problem after which a warning is printed."""


class TrainResult(NamedTuple):
    """Result of `Trainer.run`."""

    state: TrainState
    step: int
    """Number of steps done; the state after this step is saved."""
    stopped: bool
    """Whether the loop ended before the task's last step."""


class Trainer:
    """Runs the steps of a task until its last step, or until a stop is requested."""

    def __init__(
        self,
        task: TrainTask,
        config: LoopConfig,
        folder: Path,
        checkpoints: Checkpoints,
        log: MetricsLog | None,
        progress: ProgressDisplay,
        stop: StopRequest,
    ) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.checkpoints, self.log, self.progress, self.stop = checkpoints, log, progress, stop
        self.speed = _Speed(task)
        self.profiling, self.unhealthy_logs = False, 0

    def run(self, state: TrainState, start: int) -> TrainResult:
        """Run the training loop; `state` is the state after `start` steps and is donated.

        Raises `InputError` if a loss is not finite, or if a checkpoint cannot be written.
        """
        last = min(self.task.steps, self.config.stop_after or self.task.steps)
        pending, step = None, start
        try:
            for step, batch in zip(
                range(start + 1, last + 1), self.task.load_batches(start), strict=False
            ):
                self._profile(step)
                state, metrics = self.task.run_step(state, batch)
                # The previous step's metrics are fetched while the devices compute this step.
                if pending is not None:
                    self._report(*pending)
                pending = (step, metrics)
                stopping = self.stop.reached(step)
                if stopping or step == last or self._saves(step):
                    # Checks that the loss is finite before the state is saved.
                    self._report(*pending)
                    pending = None
                    self._validate_and_save(state, step, stopping)
                    if stopping or step == last or self.stop.signal is not None:
                        break
        finally:
            self._end_profile()
        self.checkpoints.wait()
        return TrainResult(state, step, step < self.task.steps)

    def _saves(self, step: int) -> bool:
        """Return whether to save a checkpoint after a step; every validated step is saved."""
        return self._validates(step) or step % self.config.save_every == 0

    def _validates(self, step: int) -> bool:
        """Return whether a validation is due after a step."""
        due = step % self.config.validate_every == 0 or step == self.task.steps
        return self.task.validate is not None and due

    def _validate_and_save(self, state: TrainState, step: int, stopping: bool) -> None:
        """Validate the state, if due and not `stopping`; then save it."""
        with self.speed.paused():
            metrics: Mapping[str, float] = {}
            if self._validates(step) and not stopping:
                metrics = self.task.validate(state, lambda: self.stop.signal is not None)
            bad = [name for name, value in metrics.items() if not math.isfinite(value)]
            if bad:
                # A NaN cannot be compared with the losses of other checkpoints.
                self.progress.print(f"step {step}: {bad[0]} is not finite; ignored")
                metrics = {}
            if metrics:
                self._log(step, metrics)
                values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                self.progress.print(f"step {step}: {values}")
            self.checkpoints.save(state, step, metrics)

    def _report(self, step: int, step_metrics: StepMetrics) -> None:
        """Show and log a step's metrics; raise an `InputError` if one is not finite."""
        metrics = {name: float(value) for name, value in step_metrics.by_name().items()}
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            self._fail(step, bad[0], metrics[bad[0]])
        logged = step % self.config.log_every == 0
        speed = self.speed.measure(step, restart=logged)
        self.progress(step, self.task.steps, summarize_metrics(metrics | speed))
        if logged or step == self.task.steps:
            self._log(step, metrics | speed)
            self._warn(step, self.task.diagnose(metrics))

    def _warn(self, step: int, problem: str | None) -> None:
        """Print `problem` when `UNHEALTHY_LOGS` logged steps in a row have had one."""
        self.unhealthy_logs = 0 if problem is None else self.unhealthy_logs + 1
        if self.unhealthy_logs == UNHEALTHY_LOGS:
            self.progress.print(f"step {step}: warning: {problem}")

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write metrics to the log, which only process 0 has."""
        if self.log is not None:
            self.log.write(step, metrics)

    def _fail(self, step: int, name: str, value: float) -> None:
        """Write the step's clips to `FAULT_FILE`, then raise an `InputError` about the metric."""
        clips = self.task.clip_names(step - 1)
        self.checkpoints.wait()
        good = self.checkpoints.latest()
        fault = {"step": step, name: str(value), "clips": clips, "last_good_checkpoint": good}
        if jax.process_index() == 0:
            write_json(self.folder / FAULT_FILE, fault)
        some = ", ".join(clips[:3]) + (f" and {len(clips) - 3} more" if len(clips) > 3 else "")
        half = "float16" in self.task.config.step.dtypes.values()
        precision = ", or compute in float32," if half else ""
        saved = "there is no checkpoint yet" if good is None else f"last good checkpoint: {good}"
        raise InputError(
            f"step {step}: {name} is {value}; {saved}; its clips: {some} (all in "
            f"{self.folder / FAULT_FILE}); check them, or lower optim.learning-rate{precision} in "
            "a new run"
        )

    def _profile(self, step: int) -> None:
        """Start or stop jax's profiler at the steps that the config sets."""
        first = self.config.profile_start
        if first is not None and step == first:
            jax.profiler.start_trace(str(self.folder / "profile"))
            self.profiling = True
        elif first is not None and step >= first + self.config.profile_steps:
            self._end_profile()

    def _end_profile(self) -> None:
        if self.profiling:
            jax.profiler.stop_trace()
            self.profiling = False
            self.progress.print(f"profile in {self.folder / 'profile'}; open it with xprof")


class _Speed:
    """Speed of a run since the last logged step. The first step, which compiles, is excluded."""

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.metrics: dict[str, float] = {}
        self.started = False

    def _restart(self, step: int) -> None:
        self.first = self.step = step
        self.total, self.since = StepCost(0, 0, 0.0), time.perf_counter()

    def measure(self, step: int, restart: bool) -> dict[str, float]:
        """Return speed metrics, by name, of the steps since the last restart; {} on the first call.

        `step` steps of the run are done. With `restart`, the next measurement starts here.
        """
        if not self.started:
            self.started = True
            self._restart(step)
            return {}
        for number in range(self.step, step):
            self.total = StepCost(*map(sum, zip(self.total, self.task.cost(number), strict=True)))
        self.step = step
        seconds = time.perf_counter() - self.since
        if step > self.first and seconds > 0:
            self.metrics = {
                "seconds_per_step": seconds / (step - self.first),
                "tokens_per_second": self.total.tokens / seconds,
                f"{self.task.unit}_per_second": self.total.units / seconds,
            }
            if self.task.peak_flops:
                self.metrics["mfu"] = self.total.flops / seconds / self.task.peak_flops
        if restart:
            self._restart(step)
        return self.metrics

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent inside the context from the measurement."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began
