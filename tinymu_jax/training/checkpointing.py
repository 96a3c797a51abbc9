"""Orbax checkpoints of a training run: parameters, optimizer state, auxiliary state and step."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tinymu_jax.data.remote import is_url
from tinymu_jax.errors import InputError, reason_of, translate
from tinymu_jax.training.train_step import TrainState
from tinymu_jax.utils.tree import Tree

BEST_METRIC = "validation_loss"
"""Metric that selects the best checkpoint, which has the lowest value."""
COMMITTED = "commit_success.txt"
"""File with which Orbax marks a checkpoint on a bucket as complete."""


class Checkpoints:
    """Saves and restores the latest checkpoints and the best checkpoint of a run, by step.

    A checkpoint is written under a temporary name and renamed when it is complete. A checkpoint
    that a killed process or a full disk left incomplete is never restored. Saving is asynchronous.
    """

    def __init__(self, folder: str | Path, max_to_keep: int = 2, read_only: bool = False) -> None:
        """Opens a folder of checkpoints, and creates the folder if it does not exist.

        Args:
            folder: a folder visible to all processes, or a gs:// address.
            max_to_keep: number of latest checkpoints to keep, in addition to the best one.
            read_only: open without writing, because another process may be saving to the folder.

        Raises:
            InputError: the folder cannot be opened.
        """
        # Imported here because Orbax takes seconds to import and only training runs need it.
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

        def loss(metrics: Mapping[str, float]) -> float:
            return metrics[BEST_METRIC]

        # Orbax's options `max_to_keep` and `best_fn` together would delete the latest checkpoint.
        best = policy.BestN(
            get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        keep = policy.AnyPreservationPolicy([policy.LatestN(n=max_to_keep), best])
        # Compression makes a checkpoint only a twelfth smaller and takes ten times as long.
        handler = ocp.PyTreeCheckpointHandler(use_compression=False)
        self.ocp, self.folder = ocp, checkpoint_path(folder)
        with self._translate("opened"):
            self.manager = ocp.CheckpointManager(
                self.folder,
                item_handlers={"params": handler, "rest": handler},
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=keep, best_fn=loss, best_mode="min", read_only=read_only
                ),
            )

    def latest(self) -> int | None:
        """Returns the step of the latest checkpoint; None if there is none."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """Returns the step of the checkpoint with the lowest `BEST_METRIC`; None if none."""
        return self.manager.best_step()

    def save(self, state: TrainState, step: int, metrics: Mapping[str, float]) -> None:
        """Starts saving a checkpoint, unless it exists; the caller may then donate `state`.

        Args:
            state: the training state after `step` steps.
            step: the number of steps done, which is also the position in the data.
            metrics: the validation metrics at this step, {} without a validation.

        Raises:
            InputError: this checkpoint or the previous one cannot be written.
        """
        if step in self.manager.all_steps():
            return
        args = self.ocp.args
        items = {name: args.PyTreeSave(tree) for name, tree in _items(state).items()}
        with self._translate(f"saved at step {step}"):
            self.manager.save(
                step, args=args.Composite(**items), metrics=dict(metrics) or None, force=True
            )

    def restore(self, step: int, state: TrainState) -> TrainState:
        """Reads the training state of a checkpoint onto the devices.

        Args:
            step: the checkpoint's step.
            state: the shapes, dtypes and shardings of the state, as `jax.ShapeDtypeStruct` leaves.

        Raises:
            InputError: the checkpoint cannot be read, or belongs to another model.
        """
        args, utils = self.ocp.args, self.ocp.checkpoint_utils
        items = {
            name: args.PyTreeRestore(tree, restore_args=utils.construct_restore_args(tree))
            for name, tree in _items(state).items()
        }
        with self._translate(f"read at step {step}"):
            restored = self.manager.restore(step, args=args.Composite(**items))
        rest = restored.rest
        aux_state = rest.get("aux_state", state.aux_state)
        return TrainState(rest["step"], restored.params, rest["opt_state"], aux_state)

    def restore_params(self, step: int) -> Tree:
        """Reads only the trained parameters of a checkpoint, as a tree of numpy arrays.

        Raises:
            InputError: the parameters cannot be read.
        """
        return self._restore_arrays(step, "params", lambda tree: tree)

    def restore_aux_state(self, step: int) -> Tree:
        """Reads only the `aux_state` of a checkpoint, as a tree of numpy arrays; {} if empty.

        Raises:
            InputError: the checkpoint cannot be read.
        """
        rest = self._restore_arrays(
            step, "rest", lambda tree: {k: v for k, v in tree.items() if k == "aux_state"}
        )
        return rest.get("aux_state", {})

    def _restore_arrays(self, step: int, item: str, select: Callable[[Tree], Tree]) -> Tree:
        args, ocp = self.ocp.args, self.ocp
        with self._translate(f"read at step {step}"):
            tree = select(self.manager.item_metadata(step)[item].tree)
            if not tree:
                return {}
            numpy_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restore = args.PyTreeRestore(item=tree, restore_args=numpy_args, partial_restore=True)
            return self.manager.restore(step, args=args.Composite(**{item: restore}))[item]

    def wait(self) -> None:
        """Waits until all checkpoints are saved.

        Raises:
            InputError: a checkpoint cannot be written.
        """
        with self._translate("saved"):
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits until all checkpoints are saved, and closes the folder."""
        self.wait()
        self.manager.close()

    def _translate(self, action: str) -> AbstractContextManager[None]:
        """Returns a context that turns errors into `InputError`s that name the failed `action`."""

        def message(error: Exception) -> str:
            steps = complete_steps(self.folder) if hasattr(self, "manager") else []
            good = f"the last complete one is of step {max(steps)}" if steps else "none is complete"
            return (
                f"{self.folder}: a checkpoint cannot be {action} ({reason_of(error, 300)}); "
                f"{good}: make room or repair the folder, and continue with --resume"
            )

        return translate(message)


def checkpoint_path(folder: str | Path) -> Any:
    """Returns the `epath.Path` that Orbax needs for a local folder or a gs:// address.

    Raises:
        InputError: the folder is a URL that is neither file:// nor gs://.
    """
    # Imported here so that commands without checkpoints start faster.
    from etils import epath

    text = str(folder).removeprefix("file://")
    if not is_url(text):
        return epath.Path(text).absolute()
    if not text.startswith("gs://"):
        raise InputError(f"{folder}: checkpoints go to a folder or to gs://; name one of these")
    return epath.Path(text)


def complete_steps(folder: str | Path) -> list[int]:
    """Returns the sorted steps of the complete checkpoints in a folder, without opening any.

    Raises:
        InputError: the bucket cannot be reached.
    """
    place = checkpoint_path(folder)
    with translate(
        f"{folder}: cannot be listed ({{reason}}); check the address, your rights to it, and that "
        "its package is installed (pip install -e '.[buckets]')"
    ):
        paths = [path for path in place.glob("*") if path.name.isdigit()]
        if is_url(str(place)):
            # Folders on a bucket cannot be renamed: Orbax marks complete checkpoints with a file.
            paths = [path for path in paths if (path / COMMITTED).exists()]
        return sorted(int(path.name) for path in paths)


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the trees to save: "params", and "rest" (`opt_state`, `step`, any `aux_state`)."""
    rest = {"opt_state": state.opt_state, "step": state.step}
    if jax.tree.leaves(state.aux_state):
        rest["aux_state"] = state.aux_state
    return {"params": state.params, "rest": rest}
