"""A training run's folder: begun, gone on with, handed over.

run.json        what its numbers depend on; another config is not mixed into it
start/          the weights it began with, as a checkpoint folder
checkpoints/    what it goes on from, unless another place is named for it
metrics.jsonl   a line for every logged step
tensorboard/    the same for TensorBoard
model/          the trained model at the end, as a checkpoint folder
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tinymu_jax.checkpoints.checkpoint import (
    MODEL_FOLDER,
    RUN_FILE,
    Checkpoint,
    in_half_precision,
    read_checkpoint,
    save_checkpoint,
)
from tinymu_jax.data.label_batches import HEAD
from tinymu_jax.data.remote import is_url, local_copy
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import LoraConfig, MatpacConfig, SelfSupervisedConfig
from tinymu_jax.models.lora import add_lora, merge_lora
from tinymu_jax.models.matpac_ssl.student_teacher import split_teacher
from tinymu_jax.training.checkpointing import Checkpoints, whole_steps
from tinymu_jax.training.config import PretrainConfig, RunConfig, TagConfig
from tinymu_jax.training.init_weights import open_init
from tinymu_jax.training.metrics import MetricsLog, need_wandb
from tinymu_jax.training.preemption import stopping_on_signals
from tinymu_jax.training.run_record import checkpoints_in, is_same_run, run_record
from tinymu_jax.training.tasks.base import TrainTask
from tinymu_jax.training.tasks.finetune import FineTuning
from tinymu_jax.training.tasks.labelling import Labelling, add_label_head
from tinymu_jax.training.tasks.pretrain import Pretraining
from tinymu_jax.training.tasks.tagger import Tagging
from tinymu_jax.training.trainer import Trainer
from tinymu_jax.utils.compilation_cache import enable_compilation_cache
from tinymu_jax.utils.files import folder_lock, make_folder, read_json_object, write_json
from tinymu_jax.utils.progress import show_progress
from tinymu_jax.utils.tree import Tree, flatten, unflatten

START = "start"


class Trained(NamedTuple):
    """What came of a run."""

    folder: Path
    steps: int
    """Steps done."""
    model: Path | None
    """The trained model; None where the run was asked to stop before its end."""


def train(config: RunConfig, resume: bool = False, devices: Sequence[Any] | None = None) -> Trained:
    """Fine-tunes or pre-trains, from the start or from the latest checkpoint.

    Every process calls it.

    Args:
        config: of the run.
        resume: go on with what is in the folder, if there is anything.
        devices: of the mesh; default all.

    Raises:
        InputError: what was given cannot be used, the folder belongs to another run, a loss is
            not finite, or a checkpoint cannot be written.
    """
    config.check()
    config = with_local_data(config)
    need_wandb(config.loop.wandb)
    enable_compilation_cache()
    folder = make_folder(config.output)
    first = jax.process_index() == 0
    with ExitStack() as stack:
        stopping = stack.enter_context(stopping_on_signals())
        begun = _begin(stack, folder, config, resume)
        start = read_checkpoint(folder / START) if begun else open_init(config)
        learning, params = _put_together(config, start, devices)
        task = learning.task()
        if not begun:
            with _first_process_first("start"):
                if first:
                    save_checkpoint(folder / START, start)
                    write_json(folder / RUN_FILE, run_record(config))
        place = checkpoints_in(folder, config.checkpoints)
        checkpoints = Checkpoints(place, config.loop.max_to_keep)
        done = checkpoints.latest() or 0
        state = checkpoints.restore(done, learning.abstract) if done else learning.begin(params)
        # They lie on the devices now; the start is read again at the end.
        del start, params
        progress = stack.enter_context(
            show_progress(
                "step", task.steps, done, note="compiling ...", first_line=True, quiet=not first
            )
        )
        log = stack.enter_context(_log(folder, done, config, first))
        loop = Trainer(task, config.loop, folder, checkpoints, log, progress, stopping)
        with _memory_told():
            end = loop.run(state, done)
        model_folder = None if end.asked else _export_final(folder, checkpoints, config)
        checkpoints.close()
    return Trained(folder, end.step, model_folder)


def with_local_data(config: RunConfig) -> RunConfig:
    """Returns a config whose data sets lie on this machine: those on buckets are copied."""
    places = {name: getattr(config.data, name) or "" for name in ("train", "validation")}
    copies = {name: str(local_copy(place)) for name, place in places.items() if is_url(place)}
    return replace(config, data=replace(config.data, **copies))


def _put_together(
    config: RunConfig, start: Checkpoint, devices: Sequence[Any] | None
) -> tuple[TrainTask, Tree]:
    """Returns what learns, and the weights that it begins with."""
    if isinstance(config, PretrainConfig):
        params, teaching = split_teacher(start.params)
        return Pretraining(config, start.config, params, teaching, devices), params
    if isinstance(config, TagConfig):
        return Tagging(config, start.config, start.params, devices), start.params
    params, model = start.params, start.config
    if config.lora is not None:
        params, model = add_lora(params, model, config.lora, config.init.seed)
    if config.data.labels is None:
        return FineTuning(config, model, params, start.tokenizer, devices), params
    params = add_label_head(params, model, config.data.labels)
    return Labelling(config, model, params, devices), params


def _begin(stack: ExitStack, folder: Path, config: RunConfig, resume: bool) -> bool:
    """Takes the folder, and returns whether it holds this run: as the first process finds it.

    Raises:
        InputError: the folder cannot be had; see `folder_lock` and `is_same_run`.
    """
    found, error = 0, None
    if jax.process_index() == 0:
        try:
            stack.enter_context(folder_lock(folder))
            found = int(is_same_run(folder, config, resume))
        except InputError as fault:
            found, error = 2, fault
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
    if error is not None:
        raise error
    if found == 2:
        raise InputError(f"{folder}: the first process cannot begin; its message says why")
    return bool(found)


@contextmanager
def _log(folder: Path, done: int, config: RunConfig, first: bool) -> Iterator[Any]:
    """Yields what writes metrics, on the first process."""
    if not first:
        yield None
        return
    loop = config.loop
    log = MetricsLog(folder, done, loop.tensorboard, loop.wandb, asdict(config))
    try:
        yield log
    finally:
        log.close()


@contextmanager
def _memory_told() -> Iterator[None]:
    """Says what to do where the devices have too little memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            "a device has too little memory for a step: raise step.grad-accum-steps, set step.remat to "
            "layers, or lower data.packing.rows and data.packing.max-clips; where the encoder alone "
            "learns, lower data.clips"
        ) from error


@contextmanager
def _first_process_first(name: str) -> Iterator[None]:
    """Lets the other processes wait until the first one has done what stands inside."""
    yield
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _export_final(folder: Path, checkpoints: Checkpoints, config: RunConfig) -> Path:
    """Writes the best model, or the last one where nothing was validated.

    Of a batch learnt by heart it is always the last; and of pre-training, whose loss is against a
    teacher that changes: that of one step says nothing beside that of another.
    """
    last = config.overfit_batch or isinstance(config, PretrainConfig)
    best = None if last else checkpoints.best()
    step = best or checkpoints.latest()
    start = read_checkpoint(folder / START)
    trained = merge_into_model(start, checkpoints, step, getattr(config, "lora", None))
    if jax.process_index() == 0:
        save_checkpoint(folder / MODEL_FOLDER, trained)
    return folder / MODEL_FOLDER


def merge_into_model(
    start: Checkpoint, checkpoints: Checkpoints, step: int, lora: LoraConfig | None
) -> Checkpoint:
    """Returns the whole model: trained weights in place of those that it began with."""
    params, model, trained = start.params, start.config, checkpoints.restore_params(step)
    if isinstance(model, SelfSupervisedConfig):
        trained = {**trained, **checkpoints.restore_extra(step)}
    elif isinstance(model, MatpacConfig):
        head = {**trained["head"], "norm": checkpoints.restore_extra(step)}
        trained = {**trained, "head": head}
    if lora is not None:
        params, model = add_lora(params, model, lora, seed=0)
    # What told labels while the encoder learnt is not part of the model.
    kept = {name: tree for name, tree in trained.items() if name != HEAD}
    leaves = dict(flatten(params)) | dict(flatten(kept))
    params = unflatten(leaves)
    if lora is not None:
        params, model = merge_lora(params, model)
    return start._replace(config=model, params=params)


def export(folder: Path, output: Path, which: str = "best", half: bool = False) -> int:
    """Writes the model of one of a run's checkpoints as a checkpoint folder.

    Args:
        folder: of the run; it may still be going on.
        output: a new or empty folder.
        which: "best", "latest", or the number of a step that was kept.
        half: round the weights to float16.

    Returns:
        The steps after which it was saved.

    Raises:
        InputError: there is no such run or checkpoint.
    """
    page = read_json_object(folder / RUN_FILE, "name the folder of a run")
    place = checkpoints_in(folder, page["config"].get("checkpoints"))
    steps = whole_steps(place)
    if not steps:
        raise InputError(f"{folder}: has no checkpoint yet; wait for the first")
    checkpoints = Checkpoints(place, read_only=True)
    start = read_checkpoint(folder / START)
    # As in `_export_final`.
    best = None if isinstance(start.config, SelfSupervisedConfig) else checkpoints.best()
    known = {"latest": max(steps), "best": best or max(steps)}
    known |= {str(step): step for step in steps}
    if which not in known:
        raise InputError(f"{folder}: has no checkpoint {which!r}; there are {', '.join(known)}")
    lora = page["config"].get("lora")
    lora = None if lora is None else LoraConfig.from_dict(lora, str(folder / RUN_FILE))
    whole = merge_into_model(start, checkpoints, known[which], lora)
    checkpoints.close()
    save_checkpoint(output, in_half_precision(whole) if half else whole)
    return known[which]
