"""Settings of `tinymu quickstart` and `tinymu ablate`."""

import math
from dataclasses import dataclass
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import NANO

RESULTS, TEST_CLIPS = "results", "test_clips"
TEST_SEED = 1000
"""Seed of the test clips. Seeds of training clips must be smaller, so that the clips differ."""
MIN_CLIPS = 64
"""Minimum number of training clips: one batch of the encoder's training stage."""


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
    """Output folder; a second run with the same folder continues where the first one stopped."""
    checkpoint: str = NANO
    """Model to test, fine-tune and export."""
    minutes: float = 4.0
    """Minutes to train from scratch on two CPU cores; sets the number of training steps."""
    test_clips: int = 120
    """Number of test clips."""
    seed: int = 0
    """Seed of the training data, the initial weights and the data order."""

    def check(self) -> None:
        """Raise `InputError` if a setting is out of its range."""
        _check(self.minutes, self.test_clips, self.seed)


@dataclass(frozen=True)
class AblationsConfig:
    """Settings of `tinymu ablate`."""

    output: Path = Path("ablations")
    """Output folder; a second run with the same folder continues where the first one stopped."""
    minutes: float = 8.0
    """Minutes to train the full recipe on two CPU cores; sets the number of training steps."""
    clips: int = 6000
    """Number of training clips."""
    test_clips: int = 200
    """Number of test clips."""
    seed: int = 0
    """Seed of the training data, the initial weights and the data order."""

    def check(self) -> None:
        """Raise `InputError` if a setting is out of its range."""
        _check(self.minutes, self.test_clips, self.seed)
        if self.clips < MIN_CLIPS:
            raise InputError(f"clips {self.clips}: give {MIN_CLIPS} or more")
