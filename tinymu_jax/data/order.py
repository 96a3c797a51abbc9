"""The order of clips where a step takes a fixed number of them: drawn anew for each epoch."""

import numpy as np
from jaxtyping import Int


class EpochOrder:
    """Which clips a step takes; what an epoch has left over when no step can be filled is not
    heard in it."""

    def __init__(self, total: int, clips: int, blocks: int, seed: int) -> None:
        """Takes the numbers.

        Args:
            total: clips that there are.
            clips: C, of one block.
            blocks: N, of one step.
            seed: of the order.
        """
        self.total, self.clips, self.blocks, self.seed = total, clips, blocks, seed
        self.each = total // (clips * blocks)
        """Steps of an epoch."""

    def numbers(self, step: int) -> Int[np.ndarray, "N C"]:
        """Returns the clips of a step."""
        epoch, place = divmod(step, self.each)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.total)
        count = self.blocks * self.clips
        return order[place * count : (place + 1) * count].reshape(self.blocks, self.clips)
