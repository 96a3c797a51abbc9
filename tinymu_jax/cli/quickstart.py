"""The `tinymu quickstart` and `tinymu ablate` commands."""

import logging
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from tinymu_jax.quickstart.config import AblationsConfig, TourConfig

Step = Literal["test", "train", "finetune", "export"]


@dataclass(frozen=True)
class Quickstart:
    """Test, train, fine-tune and export a small TinyMU, in minutes and without a download.

    Tests the small model of the package on synthetic music, trains one from scratch, fine-tunes
    the first one on a new instrument, and exports it to PyTorch and back.
    """

    tour: Annotated[TourConfig, tyro.conf.arg(name="")] = field(default_factory=TourConfig)
    only: tyro.conf.UseAppendAction[tuple[Step, ...]] = ()
    """Run a single step; repeat for several. Default all."""

    def run(self) -> int:
        """Runs the steps; returns the exit code."""
        from tinymu_jax.quickstart.summary import format_summary
        from tinymu_jax.quickstart.tour import Tour

        logging.getLogger("absl").setLevel(logging.ERROR)
        tour = Tour(self.tour)
        steps = {
            "test": tour.test,
            "train": tour.train,
            "finetune": tour.finetune,
            "export": tour.export,
        }
        results = {name: run() for name, run in steps.items() if not self.only or name in self.only}
        print(format_summary(results, self.tour))
        return 0


@dataclass(frozen=True)
class Ablate:
    """The paper's ablations with the small model: each trained from scratch and tested."""

    ablations: Annotated[AblationsConfig, tyro.conf.arg(name="")] = field(
        default_factory=AblationsConfig
    )
    only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run a single ablation (docs/nano.md); repeat for several. Default all."""

    def run(self) -> int:
        """Trains and tests; prints the table; returns the exit code."""
        from tinymu_jax.quickstart.ablations import ablate, as_table

        logging.getLogger("absl").setLevel(logging.ERROR)
        print(as_table(ablate(self.ablations, self.only)), end="")
        return 0
