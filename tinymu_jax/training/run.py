"""Start and resume training runs, and export the trained models.

Files in the folder of a run:

run.json        config and hashes of the data, checked when the run resumes
start/          initial model, as a checkpoint folder
checkpoints/    training states, unless the config names another folder
metrics.jsonl   metrics of logged steps; tensorboard/ holds the same
model/          trained model, as a checkpoint folder, once the run is complete
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from tinymu_jax.checkpoints.checkpoint import (
    MODEL_FOLDER,
    RUN_FILE,
    Checkpoint,
    read_checkpoint,
    save_checkpoint,
    to_float16,
)
from tinymu_jax.data.crops import Corpus
from tinymu_jax.data.label_batches import HEAD
from tinymu_jax.data.remote import is_url, local_copy
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import make_mesh
from tinymu_jax.models.config import LoraConfig, MatpacConfig, SelfSupervisedConfig
from tinymu_jax.models.lora import add_lora, merge_lora
from tinymu_jax.models.matpac_ssl.student_teacher import split_teacher
from tinymu_jax.training.checkpointing import Checkpoints, checkpoint_path, complete_steps
from tinymu_jax.training.config import PretrainConfig, RunConfig, TagConfig
from tinymu_jax.training.init_weights import open_init
from tinymu_jax.training.metrics import MetricsLog, need_wandb
from tinymu_jax.training.preemption import stop_on_signals
from tinymu_jax.training.run_record import check_tables, checkpoints_in, is_same_run, run_record
from tinymu_jax.training.tasks.base import TrainTask
from tinymu_jax.training.tasks.finetune import FinetuneTask
from tinymu_jax.training.tasks.pretrain import PretrainTask
from tinymu_jax.training.tasks.tagger import LabelTask, TagTask, add_label_head
from tinymu_jax.training.trainer import Trainer
from tinymu_jax.utils.backend import start_backend
from tinymu_jax.utils.compilation_cache import enable_compilation_cache
from tinymu_jax.utils.files import (
    check_library_path,
    folder_lock,
    new_folder,
    read_json_object,
    write_json,
)
from tinymu_jax.utils.progress import show_progress
from tinymu_jax.utils.tree import Tree, flatten, unflatten

START = "start"


class Trained(NamedTuple):
    """Result of `train`."""

    folder: Path
    steps: int
    """Number of steps done."""
    model: Path | None
    """Folder of the trained model; None if the run was stopped before its last step."""


def train(config: RunConfig, resume: bool = False, devices: Sequence[Any] | None = None) -> Trained:
    """Start or resume a run and train to its end; every process must call it.

    Args:
        config: config of the run.
        resume: continue the run in `config.output`, if there is one, at its latest checkpoint.
        devices: devices to train on; default: all.

    Raises:
        InputError: config or data are invalid, the folder belongs to another run, a loss is not
            finite, or a checkpoint cannot be written.
    """
    _check_surroundings(config, devices)
    check_tables(config)
    config = with_local_data(config)
    corpora: dict[str, Corpus] = {}
    if not is_same_run(Path(config.output), config, resume):
        # Only to find errors before the folder is made and weights are read.
        _make_task(config, open_init(config, weights=False), devices, corpora)
    enable_compilation_cache()
    first_process = jax.process_index() == 0
    with ExitStack() as stack:
        folder = stack.enter_context(new_folder(config.output))
        if config.checkpoints and not is_url(place := str(checkpoint_path(config.checkpoints))):
            stack.enter_context(new_folder(place))
        stop = stack.enter_context(stop_on_signals())
        resuming = _claim_folder(stack, folder, config, resume)
        start = read_checkpoint(folder / START) if resuming else open_init(config)
        task, params = _make_task(config, start, devices, corpora)
        task.report_data()
        if first_process:
            print(task.describe_attention(), file=sys.stderr)
        if not resuming:
            if first_process:
                save_checkpoint(folder / START, start)
                write_json(folder / RUN_FILE, run_record(config))
            _sync_processes("start")
        place = checkpoints_in(folder, config.checkpoints)
        checkpoints = Checkpoints(place, config.loop.max_to_keep)
        done = checkpoints.latest() or 0
        state = checkpoints.restore(done, task.abstract_state) if done else task.init(params)
        # Frees host memory: the devices have the parameters, and the export reads them again.
        del start, params
        progress = stack.enter_context(
            show_progress(
                "step",
                task.steps,
                done,
                note="compiling ...",
                first_line=True,
                quiet=not first_process,
            )
        )
        log = stack.enter_context(_metrics_log(folder, done, config)) if first_process else None
        trainer = Trainer(task, config.loop, folder, checkpoints, log, progress, stop)
        with _explain_out_of_memory():
            result = trainer.run(state, done)
        model = None if result.stopped else export_final(folder, checkpoints, config)
        checkpoints.close()
    return Trained(folder, result.step, model)


def _check_surroundings(config: RunConfig, devices: Sequence[Any] | None) -> None:
    """Raise `InputError` if a run's config, its paths or this machine's devices cannot work."""
    config.check()
    for place in filter(None, (config.output, config.checkpoints)):
        check_library_path(Path(place).absolute())
    need_wandb(config.loop.wandb)
    start_backend()
    make_mesh(config.mesh, devices)


def with_local_data(config: RunConfig) -> RunConfig:
    """Copy data sets on buckets to local disk, and return a config with the local paths."""
    folders = {name: getattr(config.data, name) or "" for name in ("train", "validation")}
    copies = {name: str(local_copy(url)) for name, url in folders.items() if is_url(url)}
    return replace(config, data=replace(config.data, **copies))


def _make_task(
    config: RunConfig, start: Checkpoint, devices: Sequence[Any] | None, corpora: dict[str, Corpus]
) -> tuple[TrainTask, Tree]:
    """Return the training task of a config, and the parameters to pass to the task's `init`.

    `corpora` keeps the recordings of pre-training that are open; see `PretrainTask`.
    """
    if isinstance(config, PretrainConfig):
        params, teacher_state = split_teacher(start.params)
        return PretrainTask(config, start.config, params, teacher_state, devices, corpora), params
    if isinstance(config, TagConfig):
        return TagTask(config, start.config, start.params, devices), start.params
    params, model = start.params, start.config
    if config.lora is not None:
        params, model = add_lora(params, model, config.lora, config.init.seed)
    if config.data.labels is None:
        return FinetuneTask(config, model, params, start.tokenizer, devices), params
    params = add_label_head(params, model, config.data.labels)
    return LabelTask(config, model, params, devices), params


def _claim_folder(stack: ExitStack, folder: Path, config: RunConfig, resume: bool) -> bool:
    """Lock a run's folder until `stack` closes; return whether it already holds this run.

    Process 0 locks and checks the folder. All processes return its answer, or raise `InputError`.
    """
    outcome, error = 0, None
    if jax.process_index() == 0:
        try:
            stack.enter_context(folder_lock(folder))
            outcome = int(is_same_run(folder, config, resume))
        except InputError as fault:
            outcome, error = 2, fault
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        outcome = int(multihost_utils.broadcast_one_to_all(np.int32(outcome)))
    if error is not None:
        raise error
    if outcome == 2:
        raise InputError(f"{folder}: process 0 cannot start; see its message")
    return bool(outcome)


@contextmanager
def _metrics_log(folder: Path, done: int, config: RunConfig) -> Iterator[MetricsLog]:
    """Yield the metrics log of a run with `done` steps, and close it afterwards."""
    loop = config.loop
    log = MetricsLog(folder, done, loop.tensorboard, loop.wandb, asdict(config))
    try:
        yield log
    finally:
        log.close()


@contextmanager
def _explain_out_of_memory() -> Iterator[None]:
    """Convert jax's out-of-memory error to an `InputError` that names remedies."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            "out of device memory: raise step.grad-accum-steps, set step.remat to full, or lower "
            "data.packing.rows and data.packing.max-clips; where only the encoder is trained, "
            "lower data.clips"
        ) from error


def _sync_processes(name: str) -> None:
    """Wait until all processes have called this function with the same name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def export_final(folder: Path, checkpoints: Checkpoints, config: RunConfig) -> Path:
    """Write the model of a run's best checkpoint, and return the model's folder.

    The latest checkpoint is written instead in pre-training, with `overfit_batch`, or without
    validation. Every process must call this function.
    """
    # Losses of pre-training are not comparable between steps, because the teacher changes.
    use_last = config.overfit_batch or isinstance(config, PretrainConfig)
    best = None if use_last else checkpoints.best()
    step = best or checkpoints.latest()
    start = read_checkpoint(folder / START)
    model = merge_into_model(start, checkpoints, step, getattr(config, "lora", None))
    if jax.process_index() == 0:
        save_checkpoint(folder / MODEL_FOLDER, model)
    return folder / MODEL_FOLDER


def merge_into_model(
    start: Checkpoint, checkpoints: Checkpoints, step: int, lora: LoraConfig | None
) -> Checkpoint:
    """Return the model `start` with the trained parameters of the checkpoint at `step`.

    `lora` is the run's LoRA config, if any; the trained adapters are merged into the weights.
    """
    params, model, trained = start.params, start.config, checkpoints.restore_params(step)
    if isinstance(model, SelfSupervisedConfig):
        trained = {**trained, **checkpoints.restore_aux_state(step)}
    elif isinstance(model, MatpacConfig):
        head = {**trained["head"], "norm": checkpoints.restore_aux_state(step)}
        trained = {**trained, "head": head}
    if lora is not None:
        params, model = add_lora(params, model, lora, seed=0)
    # The head of `LabelTask` is not part of the model.
    trained = {name: tree for name, tree in trained.items() if name != HEAD}
    params = unflatten(dict(flatten(params)) | dict(flatten(trained)))
    if lora is not None:
        params, model = merge_lora(params, model)
    return start._replace(config=model, params=params)


def export(
    folder: Path,
    output: Path,
    which: str = "best",
    dtype: Literal["float32", "float16"] = "float32",
) -> int:
    """Write the model of one of a run's checkpoints to a checkpoint folder; return the step.

    Args:
        folder: the run's folder; the run may still be training.
        output: folder to write to, which must be new or empty.
        which: "best" (lowest validation loss), "latest", or a step. "best" is the latest for runs
            without validation and for pre-training.
        dtype: dtype of the written parameters.

    Raises:
        InputError: the run or the checkpoint does not exist, or `output` cannot be written to.
    """
    record = read_json_object(folder / RUN_FILE, "name the folder of a run")
    place = checkpoints_in(folder, record["config"].get("checkpoints"))
    steps = complete_steps(place)
    if not steps:
        raise InputError(f"{folder}: has no checkpoint yet; wait for the first")
    checkpoints = Checkpoints(place, read_only=True)
    start = read_checkpoint(folder / START)
    # As in `export_final`, pre-training has no best checkpoint.
    best = None if isinstance(start.config, SelfSupervisedConfig) else checkpoints.best()
    choices = {"latest": max(steps), "best": best or max(steps)}
    choices |= {str(step): step for step in steps}
    if which not in choices:
        raise InputError(f"{folder}: has no checkpoint {which!r}; there are {', '.join(choices)}")
    lora = record["config"].get("lora")
    lora = None if lora is None else LoraConfig.from_dict(lora, str(folder / RUN_FILE))
    model = merge_into_model(start, checkpoints, choices[which], lora)
    checkpoints.close()
    save_checkpoint(output, to_float16(model) if dtype == "float16" else model)
    return choices[which]
