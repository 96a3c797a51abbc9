"""The one loop: steps, metrics, validation, checkpoints, stops; whatever is trained."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tinymu_jax.errors import InputError
from tinymu_jax.training.checkpointing import Checkpoints
from tinymu_jax.training.config import LoopConfig
from tinymu_jax.training.metrics import MetricsLog, summarize_metrics
from tinymu_jax.training.preemption import Stopping
from tinymu_jax.utils.files import write_json
from tinymu_jax.utils.progress import ProgressDisplay

FAULT_FILE = "not_finite.json"

WRONG_LINES = 3
"""Logged steps in a row that have something wrong before it is said: at the start much is."""


class StepCost(NamedTuple):
    """What one step computes, over all processes, padding left out."""

    counted: int
    """Questions, or what else the task counts."""
    tokens: int
    """Slots of the decoder that hold something; labels; masked patches."""
    flops: float
    """Operations that its numbers need; what is computed again does not count."""


class TrainerTask(NamedTuple):
    """What the loop runs."""

    steps: int
    """Of the whole run."""
    advance: Callable[[Any, Any], tuple[Any, Any]]
    """(state, batch) -> (state, metrics); gives its state's memory away."""
    batches: Callable[[int], Iterable[Any]]
    """The batches from a step on, on the devices."""
    work: Callable[[int], StepCost]
    """By step."""
    clips: Callable[[int], list[str]]
    """Names of the recordings of a step."""
    validate: Callable[[Any, Callable[[], bool]], Mapping[str, float]] | None = None
    """Measures a state, nothing if it is told to stop; None where there is nothing to measure."""
    peak_flops: float | None = None
    """Operations a second of all devices together, where they are known."""
    counted: str = "questions"
    """What `work` counts, in a word."""
    watch: Callable[[Mapping[str, float]], str | None] = lambda numbers: None
    """Says what is wrong by the numbers of a step, if anything is."""


class TrainResult(NamedTuple):
    """How a loop ended."""

    state: Any
    step: int
    """Steps done, all saved."""
    asked: bool
    """Whether it was asked to stop before its last step."""


class Trainer:
    """Runs a task from a step on until its end, or until it is asked to stop."""

    def __init__(
        self,
        task: TrainerTask,
        config: LoopConfig,
        folder: Path,
        checkpoints: Checkpoints,
        log: MetricsLog | None,
        progress: ProgressDisplay,
        stopping: Stopping,
    ) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.checkpoints, self.log, self.progress, self.stopping = (
            checkpoints,
            log,
            progress,
            stopping,
        )
        self.pace = _Pace(task)
        self.profiling, self.wrong_lines = False, 0

    def run(self, state: Any, start: int) -> TrainResult:
        """Runs.

        Args:
            state: after `start` steps.
            start: steps done.

        Raises:
            InputError: a loss is not finite, or a checkpoint cannot be written.
        """
        last = min(self.task.steps, self.config.stop_after or self.task.steps)
        waiting, step = None, start
        try:
            for step, batch in zip(
                range(start + 1, last + 1), self.task.batches(start), strict=False
            ):
                self._profile(step)
                state, metrics = self.task.advance(state, batch)
                # The numbers of the step before are fetched while this one is computed.
                if waiting is not None:
                    self._report(*waiting)
                waiting = (step, metrics)
                asked = self.stopping.reached(step)
                if asked or step == last or self._due(step):
                    # Nothing is saved before its loss is known to be a number.
                    self._report(*waiting)
                    waiting = None
                    self._keep(state, step, asked)
                    if asked or step == last or self.stopping.asked_by is not None:
                        break
        finally:
            self._end_profile()
        self.checkpoints.wait()
        return TrainResult(state, step, step < self.task.steps)

    def _due(self, step: int) -> bool:
        """Returns whether a step is validated or saved."""
        return self._validates(step) or step % self.config.save_every == 0

    def _validates(self, step: int) -> bool:
        every = step % self.config.validate_every == 0 or step == self.task.steps
        return self.task.validate is not None and every

    def _keep(self, state: Any, step: int, asked: bool) -> None:
        """Validates if it is time, and saves; who was asked to stop saves without."""
        with self.pace.paused():
            found: Mapping[str, float] = {}
            if self._validates(step) and not asked:
                found = self.task.validate(state, lambda: self.stopping.asked_by is not None)
            wrong = [name for name, value in found.items() if not math.isfinite(value)]
            if wrong:
                # It would be compared with the others, and be neither better nor worse.
                self.progress.print(f"step {step}: {wrong[0]} is no number; not counted")
                found = {}
            if found:
                self._write(step, found)
                self.progress.print(
                    f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items())
                )
            self.checkpoints.save(state, step, found)

    def _report(self, step: int, metrics: Any) -> None:
        """Fetches a step's numbers, shows and writes them; stops where one is not finite."""
        numbers = {name: float(value) for name, value in metrics.by_name().items()}
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        if wrong:
            self._give_up(step, wrong[0], numbers[wrong[0]])
        speed = self.pace.measure(step, step % self.config.log_every == 0)
        self.progress(step, self.task.steps, summarize_metrics(numbers | speed))
        if step % self.config.log_every == 0 or step == self.task.steps:
            self._write(step, numbers | speed)
            self._warn(step, self.task.watch(numbers))

    def _warn(self, step: int, wrong: str | None) -> None:
        """Says what is wrong where several lines in a row have it, once until it is right again."""
        self.wrong_lines = 0 if wrong is None else self.wrong_lines + 1
        if self.wrong_lines == WRONG_LINES:
            self.progress.print(f"step {step}: warning: {wrong}")

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes numbers, on the one process that has a log."""
        if self.log is not None:
            self.log.write(step, numbers)

    def _give_up(self, step: int, name: str, value: float) -> None:
        clips = self.task.clips(step - 1)
        self.checkpoints.wait()
        good = self.checkpoints.latest()
        fault = {"step": step, name: str(value), "clips": clips, "last_good_checkpoint": good}
        if jax.process_index() == 0:
            write_json(self.folder / FAULT_FILE, fault)
        some = ", ".join(clips[:3]) + (f" and {len(clips) - 3} more" if len(clips) > 3 else "")
        saved = "there is no checkpoint yet" if good is None else f"last good checkpoint: {good}"
        raise InputError(
            f"step {step}: {name} is {value}; {saved}; its clips: {some} (all in "
            f"{self.folder / FAULT_FILE}); look at them, or lower optim.learning-rate in a new run"
        )

    def _profile(self, step: int) -> None:
        """Begins and ends the profile around its steps."""
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
            self.progress.print(f"profile in {self.folder / 'profile'}; look at it with xprof")


class _Pace:
    """How fast steps are, since the last logged one; the first one is compiled and not counted."""

    def __init__(self, task: TrainerTask) -> None:
        self.task = task
        self.speed: dict[str, float] = {}
        self.counting = False

    def begin(self, step: int) -> None:
        """Counts the steps after this one."""
        self.first = self.step = step
        self.total, self.since = StepCost(0, 0, 0.0), time.perf_counter()

    def measure(self, step: int, new: bool) -> dict[str, float]:
        """Returns the speed until a step; the steps after it are measured anew if `new`."""
        if not self.counting:
            self.counting = True
            self.begin(step)
            return {}
        for number in range(self.step, step):
            self.total = StepCost(*map(sum, zip(self.total, self.task.work(number), strict=True)))
        self.step = step
        seconds = time.perf_counter() - self.since
        if step > self.first and seconds > 0:
            self.speed = {
                "seconds_per_step": seconds / (step - self.first),
                "tokens_per_second": self.total.tokens / seconds,
                f"{self.task.counted}_per_second": self.total.counted / seconds,
            }
            if self.task.peak_flops:
                self.speed["mfu"] = self.total.flops / seconds / self.task.peak_flops
        if new:
            self.begin(step)
        return self.speed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time that is spent meanwhile."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began
