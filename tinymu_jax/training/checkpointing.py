"""Save and restore the training states of a run as Orbax checkpoints."""

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
"""Metric whose lowest value marks the best checkpoint."""
COMMITTED = "commit_success.txt"
"""File that Orbax adds to a checkpoint on a cloud bucket when the checkpoint is complete."""


class Checkpoints:
    """Checkpoints of a run, saved in the background: the latest ones and the best one.

    A checkpoint that a killed process or a full disk left incomplete is never restored.
    """

    def __init__(self, folder: str | Path, max_to_keep: int = 2, read_only: bool = False) -> None:
        """Open a folder of checkpoints, creating it unless `read_only`.

        Args:
            folder: folder visible to all processes, or a gs:// address.
            max_to_keep: number of latest checkpoints to keep, in addition to the best checkpoint.
            read_only: write nothing, because another process may be saving to the folder.

        Raises:
            InputError: the folder cannot be opened.
        """
        # Orbax takes seconds to import.
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
        """Return the step of the latest checkpoint, or None if there is none."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """Return the saved step with the lowest validation loss, or None if none was validated."""
        return self.manager.best_step()

    def save(self, state: TrainState, step: int, metrics: Mapping[str, float]) -> None:
        """Start saving the state after `step` steps, unless this step is already saved.

        The caller may donate `state` after the call. `metrics` are the validation metrics, if any.
        Raises `InputError` if this checkpoint or the previous one cannot be written.
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
        """Read the training state of a checkpoint onto the devices.

        `state` gives shapes, dtypes and shardings as `jax.ShapeDtypeStruct` leaves. Raises
        `InputError` if the checkpoint cannot be read or belongs to another model.
        """
        args, utils = self.ocp.args, self.ocp.checkpoint_utils
        items = {
            name: args.PyTreeRestore(tree, restore_args=utils.construct_restore_args(tree))
            for name, tree in _items(state).items()
        }
        with self._translate(f"read at step {step}"):
            restored = self.manager.restore(step, args=args.Composite(**items))
        rest = restored.rest
        # Orbax leaves empty trees out.
        aux_state = rest.get("aux_state", state.aux_state)
        loss_scale = rest.get("loss_scale", state.loss_scale)
        return TrainState(rest["step"], restored.params, rest["opt_state"], aux_state, loss_scale)

    def restore_params(self, step: int) -> Tree:
        """Read a checkpoint's trained parameters as numpy arrays, or raise `InputError`."""
        return self._restore_arrays(step, "params", lambda tree: tree)

    def restore_aux_state(self, step: int) -> Tree:
        """Read a checkpoint's `aux_state` as numpy arrays ({} if empty), or raise `InputError`."""
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
        """Wait until all checkpoints are saved; raise `InputError` if one cannot be written."""
        with self._translate("saved"):
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Wait until all checkpoints are saved (see `wait`), then close the folder."""
        self.wait()
        self.manager.close()

    def _translate(self, action: str) -> AbstractContextManager[None]:
        """Convert any error in the context to an `InputError` that names the failed `action`."""

        def message(error: Exception) -> str:
            steps = complete_steps(self.folder) if hasattr(self, "manager") else []
            good = f"the last complete one is of step {max(steps)}" if steps else "none is complete"
            return (
                f"{self.folder}: a checkpoint cannot be {action} ({reason_of(error, 300)}); "
                f"{good}: make room or repair the folder, and continue with --resume"
            )

        return translate(message)


def checkpoint_path(folder: str | Path) -> Any:
    """Return a folder or gs:// address as an `epath.Path`; raise `InputError` for other URLs."""
    # Imported here so that other commands start faster.
    from etils import epath

    text = str(folder).removeprefix("file://")
    if not is_url(text):
        return epath.Path(text).absolute()
    if not text.startswith("gs://"):
        raise InputError(f"{folder}: checkpoints go to a folder or to gs://; name one of these")
    return epath.Path(text)


def complete_steps(folder: str | Path) -> list[int]:
    """List the sorted steps of a folder's complete checkpoints; raise `InputError` on failure."""
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
    """Return a state as the two trees of a checkpoint: "params", and "rest" for everything else."""
    rest = {"opt_state": state.opt_state, "step": state.step}
    for name in ("aux_state", "loss_scale"):
        if jax.tree.leaves(part := getattr(state, name)):
            rest[name] = part
    return {"params": state.params, "rest": rest}
