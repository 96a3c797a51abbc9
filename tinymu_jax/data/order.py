"""The order of clips where a step takes a fixed number of them: drawn anew for each epoch."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from tinymu_jax.errors import InputError


class EpochOrder:
    """Which clips a step takes; what an epoch has left over when no step can be filled is not
    heard in it."""

    def __init__(
        self, place: Path, total: int, clips: int, blocks: int, seed: int, epochs: int, steps: int
    ) -> None:
        """Takes the numbers.

        Args:
            place: of the clips, for messages.
            total: clips that there are.
            clips: C, of one block.
            blocks: N, of one step, over all processes.
            seed: of the order.
            epochs: how often each clip comes; 0 means as often as `steps` needs.
            steps: of the run, where `epochs` does not say.

        Raises:
            InputError: there are fewer clips than a step takes.
        """
        self.total, self.clips, self.blocks, self.seed = total, clips, blocks, seed
        self.each = total // (clips * blocks)
        """Steps of an epoch."""
        if not self.each:
            raise InputError(
                f"{place}: has {total} clips that can be used, and a step takes {clips * blocks}; "
                "lower the clips of a block, or step.blocks"
            )
        self.steps = self.each * epochs or steps
        """Of the run."""

    def numbers(self, step: int) -> Int[np.ndarray, "N C"]:
        """Returns the clips of a step."""
        epoch, place = divmod(step, self.each)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.total)
        count = self.blocks * self.clips
        return order[place * count : (place + 1) * count].reshape(self.blocks, self.clips)
