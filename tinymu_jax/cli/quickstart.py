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

    Tests the package's small model on synthetic music, trains a model from scratch, fine-tunes the
    package's model on a new instrument, exports it to PyTorch and reads it back.
    """

    tour: Annotated[TourConfig, tyro.conf.arg(name="")] = field(default_factory=TourConfig)
    only: tyro.conf.UseAppendAction[tuple[Step, ...]] = ()
    """Run only this step; repeat the option for several steps. Default: all steps."""

    def run(self) -> int:
        """Run the steps and print a summary; return the exit code."""
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
    """Repeat the paper's ablations with a small TinyMU: train each from scratch and test it."""

    ablations: Annotated[AblationsConfig, tyro.conf.arg(name="")] = field(
        default_factory=AblationsConfig
    )
    only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run only this ablation (see docs/nano.md); repeat the option for several. Default: all."""

    def run(self) -> int:
        """Train and test the models, and print a table of results; return the exit code."""
        from tinymu_jax.quickstart.ablations import ablate, as_table

        logging.getLogger("absl").setLevel(logging.ERROR)
        print(as_table(ablate(self.ablations, self.only)), end="")
        return 0
