"""Orbax checkpoints of a run: parameters, optimizer state and position in the data."""

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
"""The checkpoint with the lowest value is kept beside the latest."""

COMMITTED = "commit_success.txt"
"""Orbax's mark of a complete checkpoint on a bucket."""


class Checkpoints:
    """The latest checkpoints of a run and its best one, by steps done.

    A checkpoint is written under another name and renamed when it is complete, so that what a kill
    or a full disk leaves behind is never taken for one. Saving is asynchronous.
    """

    def __init__(self, folder: str | Path, max_to_keep: int = 2, read_only: bool = False) -> None:
        """Opens the checkpoints of a folder, or creates it.

        Args:
            folder: that all processes see, or its gs:// address.
            max_to_keep: latest checkpoints to keep.
            read_only: whether another process may be writing them.

        Raises:
            InputError: the folder cannot be opened.
        """
        # Orbax takes seconds to import; only runs should wait for it.
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

        def loss(metrics: Mapping[str, float]) -> float:
            return metrics[BEST_METRIC]

        # `max_to_keep` together with `best_fn` would delete the latest one.
        best = policy.BestN(
            get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        keep = policy.AnyPreservationPolicy([policy.LatestN(n=max_to_keep), best])
        # Compression saves a twelfth of the size and takes ten times as long.
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
        """Returns the step of the latest checkpoint."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """Returns the step of the best checkpoint; None without a validation."""
        return self.manager.best_step()

    def save(self, state: TrainState, step: int, metrics: Mapping[str, float]) -> None:
        """Starts saving; the state may be donated right after.

        Args:
            state: after `step` steps.
            step: also the position in the data.
            metrics: of the validation at this step, {} if there was none.

        Raises:
            InputError: this checkpoint or the one before cannot be written.
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
        """Reads a checkpoint onto the devices.

        Args:
            step: of the checkpoint.
            state: shapes, dtypes and shardings.

        Raises:
            InputError: it cannot be read, or belongs to another model.
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
        """Reads the trained parameters alone, as numpy arrays.

        Raises:
            InputError: they cannot be read.
        """
        return self._restore_arrays(step, "params", lambda tree: tree)

    def restore_aux_state(self, step: int) -> Tree:
        """Reads `aux_state` alone as a tree of numpy arrays; {} if there is none.

        Raises:
            InputError: it cannot be read.
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
        """Waits until everything is saved.

        Raises:
            InputError: a checkpoint cannot be written.
        """
        with self._translate("saved"):
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the folder."""
        self.wait()
        self.manager.close()

    def _translate(self, action: str) -> AbstractContextManager[None]:
        """Turns the errors of disks and of Orbax into an `InputError`."""

        def message(error: Exception) -> str:
            steps = complete_steps(self.folder) if hasattr(self, "manager") else []
            good = f"the last complete one is of step {max(steps)}" if steps else "none is complete"
            return (
                f"{self.folder}: a checkpoint cannot be {action} ({reason_of(error, 300)}); "
                f"{good}: make room or repair the folder, and continue with --resume"
            )

        return translate(message)


def checkpoint_path(folder: str | Path) -> Any:
    """Returns the path of a folder, or of one on a bucket, as Orbax takes it.

    Raises:
        InputError: a URL that is not gs://.
    """
    # Imported here to keep orbax-less commands light.
    from etils import epath

    text = str(folder).removeprefix("file://")
    if not is_url(text):
        return epath.Path(text).absolute()
    if not text.startswith("gs://"):
        raise InputError(f"{folder}: checkpoints go to a folder or to gs://; name one of these")
    return epath.Path(text)


def complete_steps(folder: str | Path) -> list[int]:
    """Returns the steps of complete checkpoints, sorted, without opening them.

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
            # A bucket has no folders to rename: Orbax marks complete checkpoints with a file.
            paths = [path for path in paths if (path / COMMITTED).exists()]
        return sorted(int(path.name) for path in paths)


def _items(state: TrainState) -> dict[str, Any]:
    """Returns what is saved of a state; `aux_state` only if it is not empty."""
    rest = {"opt_state": state.opt_state, "step": state.step}
    if jax.tree.leaves(state.aux_state):
        rest["aux_state"] = state.aux_state
    return {"params": state.params, "rest": rest}
