"""What `tinymu quickstart` shows and `tinymu ablate` compares, as frozen dataclasses."""

import math
from dataclasses import dataclass
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import NANO

TEST_SEED = 1000
"""Of the clips that are tested with; training has smaller ones."""


def _check(minutes: float, test_clips: int, seed: int) -> None:
    """Raises `InputError` for what cannot be done."""
    rules = [
        (0 < minutes < math.inf, f"minutes {minutes:g}: give more than 0"),
        (test_clips >= 1, f"test_clips {test_clips}: give 1 or more"),
        (0 <= seed < TEST_SEED, f"seed {seed}: give 0 to {TEST_SEED - 1}"),
    ]
    for holds, message in rules:
        if not holds:
            raise InputError(message)


@dataclass(frozen=True)
class TourConfig:
    """What is shown."""

    output: Path = Path("quickstart")
    """Folder of everything; a second run picks up what is there."""
    checkpoint: str = NANO
    """The model that is tested, taught and exported."""
    minutes: float = 4.0
    """Training from nothing, as long as it takes on two cores; other machines do the same steps."""
    test_clips: int = 120
    """Clips that models are tested with."""
    seed: int = 0
    """Of training data, weights and order."""

    def check(self) -> None:
        """Raises `InputError` for what cannot be done."""
        _check(self.minutes, self.test_clips, self.seed)


LEAST_CLIPS = 64
"""Fewer are less than a step learns labels from."""


@dataclass(frozen=True)
class AblationsConfig:
    """What is compared."""

    output: Path = Path("ablations")
    """Folder of everything; a second run picks up what is there."""
    minutes: float = 8.0
    """Of nano's whole recipe on two cores; other machines do the same steps."""
    clips: int = 6000
    """Clips that all learn from."""
    test_clips: int = 200
    """Clips that all are tested with."""
    seed: int = 0
    """Of training data, weights and order."""

    def check(self) -> None:
        """Raises `InputError` for what cannot be done."""
        _check(self.minutes, self.test_clips, self.seed)
        if self.clips < LEAST_CLIPS:
            raise InputError(f"clips {self.clips}: give {LEAST_CLIPS} or more")
