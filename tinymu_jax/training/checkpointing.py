"""Checkpoints of a run: weights, averages, position in the data; saved while it goes on."""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tinymu_jax.data.remote import is_url
from tinymu_jax.errors import InputError, reason_of
from tinymu_jax.training.train_step import TrainState
from tinymu_jax.utils.tree import Tree

BEST_BY = "validation_loss"
"""The metric by which one checkpoint is kept beside the latest."""

COMMITTED = "commit_success.txt"
"""Orbax's mark of a checkpoint that is whole, on a bucket."""


class Checkpoints:
    """The latest checkpoints of a run and its best, by number of steps done.

    One is written beside the others and gets its name when it is whole: what a kill or a full
    disk leaves behind is never taken for a checkpoint.
    """

    def __init__(self, folder: str | Path, keep: int = 2, read_only: bool = False) -> None:
        """Opens the checkpoints of a folder, or makes room for them.

        Args:
            folder: that all processes see, or its address on a bucket.
            keep: latest ones that are kept.
            read_only: whether another process may be writing them.

        Raises:
            InputError: it cannot be opened.
        """
        # Orbax takes seconds to import, which only a run should wait for.
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

        def loss(metrics: Mapping[str, float]) -> float:
            return metrics[BEST_BY]

        # `max_to_keep` with `best_fn` would delete the latest one.
        best = policy.BestN(
            get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        # Compressed, weights are a twelfth smaller and take ten times as long.
        plain = ocp.PyTreeCheckpointHandler(use_compression=False)
        self.ocp, self.folder = ocp, place_of(folder)
        with self._told("opened"):
            self.manager = ocp.CheckpointManager(
                self.folder,
                item_handlers={
                    "params": plain,
                    "rest": plain,
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policy.AnyPreservationPolicy(
                        [policy.LatestN(n=keep), best]
                    ),
                    best_fn=loss,
                    best_mode="min",
                    read_only=read_only,
                ),
            )

    def latest(self) -> int | None:
        """Returns the steps done of the latest checkpoint."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """Returns the steps done of the best checkpoint, if there was a validation."""
        return self.manager.best_step()

    def save(self, state: TrainState, step: int, metrics: Mapping[str, float]) -> None:
        """Begins to save; the state may be donated at once.

        Args:
            state: after `step` steps.
            step: also the position in the data.
            metrics: of the validation, if there was one at this step.

        Raises:
            InputError: this or the save before cannot be written.
        """
        if step in self.manager.all_steps():
            return
        args = self.ocp.args
        rest = _rest(state)
        with self._told(f"saved at step {step}"):
            self.manager.save(
                step,
                args=args.Composite(
                    params=args.PyTreeSave(state.params),
                    rest=args.PyTreeSave(rest),
                ),
                metrics=dict(metrics) or None,
                force=True,
            )

    def restore(self, step: int, state: TrainState) -> TrainState:
        """Reads a checkpoint onto the devices.

        Args:
            step: of the checkpoint.
            state: shapes, types and shardings.

        Raises:
            InputError: it cannot be read, or is of another model.
        """
        args, utils = self.ocp.args, self.ocp.checkpoint_utils
        wanted = {"params": state.params, "rest": _rest(state)}
        with self._told(f"read at step {step}"):
            found = self.manager.restore(
                step,
                args=args.Composite(
                    **{
                        name: args.PyTreeRestore(
                            tree, restore_args=utils.construct_restore_args(tree)
                        )
                        for name, tree in wanted.items()
                    }
                ),
            )
        rest = found.rest
        extra = rest.get("extra", state.extra)
        return TrainState(rest["step"], found.params, rest["optimiser"], extra)

    def restore_params(self, step: int) -> Tree:
        """Reads the trained weights alone, as numpy arrays, whatever run they are of.

        Raises:
            InputError: it cannot be read.
        """
        return self._restore_arrays(step, "params", lambda tree: tree)

    def restore_extra(self, step: int) -> Tree:
        """Reads what the state held besides, by its names; {} where there was nothing.

        Raises:
            InputError: it cannot be read.
        """
        found = self._restore_arrays(
            step, "rest", lambda tree: {k: v for k, v in tree.items() if k == "extra"}
        )
        return found.get("extra", {})

    def _restore_arrays(self, step: int, item: str, wanted: Callable[[Tree], Tree]) -> Tree:
        """Reads a part of what was saved, as numpy arrays."""
        args, ocp = self.ocp.args, self.ocp
        with self._told(f"read at step {step}"):
            kept = wanted(self.manager.item_metadata(step)[item].tree)
            if not kept:
                return {}
            plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), kept)
            own = args.PyTreeRestore(item=kept, restore_args=plain, partial_restore=True)
            return self.manager.restore(step, args=args.Composite(**{item: own}))[item]

    def wait(self) -> None:
        """Waits until what was begun is saved.

        Raises:
            InputError: it cannot be written.
        """
        with self._told("saved"):
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets the folder go."""
        self.wait()
        self.manager.close()

    @contextmanager
    def _told(self, doing: str) -> Any:
        """Turns the errors of disks and of Orbax into a sentence."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            # tensorstore, Orbax and the operating system each have classes of their own for it.
            reason = reason_of(error, 300)
            last = getattr(self, "manager", None) and whole_steps(self.folder)
            good = f"the last whole one is of step {max(last)}" if last else "there is no whole one"
            raise InputError(
                f"{self.folder}: a checkpoint cannot be {doing} ({reason}); {good}: make room or "
                "repair the place, and go on with --resume"
            ) from error


def place_of(folder: str | Path) -> Any:
    """Returns a folder's path, also of one on a bucket, as Orbax takes it.

    Raises:
        InputError: an address of another kind than gs://.
    """
    # Light enough for what never opens a checkpoint.
    from etils import epath

    text = str(folder).removeprefix("file://")
    if not is_url(text):
        return epath.Path(text).absolute()
    if not text.startswith("gs://"):
        raise InputError(f"{folder}: checkpoints go to a folder or to gs://; name one of these")
    return epath.Path(text)


def whole_steps(folder: str | Path) -> list[int]:
    """Returns the steps of the checkpoints that are whole, without opening them.

    Raises:
        InputError: the bucket cannot be reached.
    """
    place = place_of(folder)
    try:
        found = [path for path in place.glob("*") if path.name.isdigit()]
        if is_url(str(place)):
            # A bucket has no folders to rename: Orbax marks what is whole with a file.
            found = [path for path in found if (path / COMMITTED).exists()]
    except Exception as error:
        raise InputError(
            f"{folder}: cannot be looked at ({reason_of(error)}); check the address, your rights "
            "to it, and that its package is installed (pip install -e '.[buckets]')"
        ) from error
    return sorted(int(path.name) for path in found)


def _rest(state: TrainState) -> dict[str, Any]:
    """Returns all of a state but its weights; what is extra only where there is something."""
    rest = {"optimiser": state.optimiser, "step": state.step}
    return rest | ({"extra": state.extra} if jax.tree.leaves(state.extra) else {})
