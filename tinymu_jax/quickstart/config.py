"""Settings of `tinymu quickstart` and `tinymu ablate`."""

import math
from dataclasses import dataclass
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import NANO

RESULTS, TEST_CLIPS = "results", "test_clips"
"""Folders in the output folder."""

TEST_SEED = 1000
"""Seed of the test clips; training uses smaller ones."""

MIN_CLIPS = 64
"""Fewest training clips: one batch of the encoder's stage."""


def _check(minutes: float, test_clips: int, seed: int) -> None:
    rules = [
        (0 < minutes < math.inf, f"minutes {minutes:g}: give more than 0"),
        (test_clips >= 1, f"test_clips {test_clips}: give 1 or more"),
        (0 <= seed < TEST_SEED, f"seed {seed}: give 0 to {TEST_SEED - 1}"),
    ]
    for valid, message in rules:
        if not valid:
            raise InputError(message)


@dataclass(frozen=True)
class TourConfig:
    """Settings of `tinymu quickstart`."""

    output: Path = Path("quickstart")
    """Output folder; a second run resumes in it."""
    checkpoint: str = NANO
    """The model to test, fine-tune and export."""
    minutes: float = 4.0
    """Training time from scratch on two cores; other machines run the same number of steps."""
    test_clips: int = 120
    """Number of test clips."""
    seed: int = 0
    """Seed of training data, weights and order."""

    def check(self) -> None:
        """Raises `InputError` for values out of range."""
        _check(self.minutes, self.test_clips, self.seed)


@dataclass(frozen=True)
class AblationsConfig:
    """Settings of `tinymu ablate`."""

    output: Path = Path("ablations")
    """Output folder; a second run resumes in it."""
    minutes: float = 8.0
    """Training time of nano's full recipe on two cores; other machines run the same steps."""
    clips: int = 6000
    """Number of training clips."""
    test_clips: int = 200
    """Number of test clips."""
    seed: int = 0
    """Seed of training data, weights and order."""

    def check(self) -> None:
        """Raises `InputError` for values out of range."""
        _check(self.minutes, self.test_clips, self.seed)
        if self.clips < MIN_CLIPS:
            raise InputError(f"clips {self.clips}: give {MIN_CLIPS} or more")
