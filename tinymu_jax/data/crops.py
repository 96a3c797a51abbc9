"""Crops of log-mels for pre-training, found by the number of the step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tinymu_jax.data.augment import generator
from tinymu_jax.data.corpus import Corpus
from tinymu_jax.data.order import EpochOrder
from tinymu_jax.errors import InputError, report

MISSES = 10
"""Recordings in a row that may be unusable."""


class CropBatch(NamedTuple):
    """N blocks of C crops."""

    log_mel: Float[np.ndarray, "N C frames F"]
    """float16, normalised."""
    number: Int[np.ndarray, "N"]
    """Of each block in the run: its masks are drawn by it."""


class CropBatches:
    """All steps of a run, found by their number."""

    def __init__(
        self,
        corpus: Corpus,
        frames: int,
        clips: int,
        blocks: int,
        own: Sequence[int],
        epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        """Takes the recordings, and how many crops there are at once.

        Args:
            corpus: of recordings with as many frames or more.
            frames: of a crop.
            clips: C, of one block.
            blocks: of one step, over all processes.
            own: which of a step's blocks this process reads.
            epochs: how often each recording comes; 0 means as often as `steps` needs.
            steps: of the run, where `epochs` does not say.
            seed: of the order and the crops.

        Raises:
            InputError: there are fewer recordings than a step takes.
        """
        self.corpus, self.frames, self.own, self.seed = corpus, frames, own, seed
        self._unusable: set[int] = set()
        self.order = EpochOrder(corpus.place, len(corpus), clips, blocks, seed, epochs, steps)

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, step: int) -> CropBatch:
        """Reads this process's blocks of a step."""
        numbers = self.order.numbers(step)
        blocks = [step * self.order.blocks + block for block in self.own]
        crops = [
            [self._crop(int(clip), block, place) for place, clip in enumerate(numbers[own])]
            for own, block in zip(self.own, blocks, strict=True)
        ]
        return CropBatch(np.array(crops), np.array(blocks, np.int32))

    def _crop(self, clip: int, block: int, place: int) -> Float[np.ndarray, "frames F"]:
        """Returns a random stretch, the same again in the same place of a run.

        Of a recording that turns out unusable it is one of the next recording's: what a folder
        holds must not change while a run goes on.
        """
        for number in range(MISSES):
            log_mel = self._whole((clip + number) % len(self.corpus))
            if log_mel is not None:
                break
        else:
            raise InputError(
                f"{self.corpus.name(clip)}: cannot be used, nor can the {MISSES - 1} recordings "
                f"after it; sort them out: tinymu data prepare --audio {self.corpus.place}"
            )
        start = generator(self.seed, block, place).integers(len(log_mel) - self.frames + 1)
        return log_mel[start : start + self.frames]

    def _whole(self, clip: int) -> Float[np.ndarray, "frames F"] | None:
        """Returns a recording, or None if it cannot be used, which is said once."""
        try:
            log_mel = self.corpus.log_mel(clip)
            if len(log_mel) >= self.frames:
                return log_mel
            fault = InputError(
                f"{self.corpus.name(clip)}: has {len(log_mel)} frames and not as many as its "
                "header says; another is heard in its place"
            )
        except InputError as error:
            fault = error
        if clip not in self._unusable:
            self._unusable.add(clip)
            report(fault)
        return None

    def names(self, step: int) -> list[str]:
        """Returns what a step's recordings are called."""
        return [self.corpus.name(int(i)) for i in self.order.numbers(step).reshape(-1)]
