"""What `tinymu quickstart` shows, as a frozen dataclass."""

from dataclasses import dataclass
from pathlib import Path

from tinymu_jax.config import NANO


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
