"""The `tinymu quickstart` and `tinymu ablate` commands."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.quickstart.config import AblationsConfig, TourConfig

Step = Literal["shipped", "nothing", "timbre", "export"]


@dataclass(frozen=True)
class Quickstart:
    """From nothing to a small TinyMU that listens, in minutes and without a download.

    Tests the small model that comes with the package on music made for it, trains one from
    nothing, teaches the first one a new instrument, and carries it to PyTorch and back.
    """

    tour: Annotated[TourConfig, tyro.conf.arg(name="")] = field(default_factory=TourConfig)
    only: tyro.conf.UseAppendAction[tuple[Step, ...]] = ()
    """A single step; give it again for each. Default all."""

    def run(self) -> int:
        """Runs the steps; returns the exit code."""
        from tinymu_jax.quickstart.summary import screen
        from tinymu_jax.quickstart.tour import Tour

        logging.getLogger("absl").setLevel(logging.ERROR)
        tour = Tour(self.tour, _say, _progress)
        steps = {
            "shipped": tour.listen,
            "nothing": tour.learn,
            "timbre": tour.teach,
            "export": tour.carry,
        }
        found = {name: do() for name, do in steps.items() if not self.only or name in self.only}
        print(screen(found, self.tour))
        return 0


@dataclass(frozen=True)
class Ablate:
    """The paper's ablations with the small model: each trained from nothing and tested."""

    ablations: Annotated[AblationsConfig, tyro.conf.arg(name="")] = field(
        default_factory=AblationsConfig
    )
    only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """One of configs/ablations.py; give it again for each. Default all."""

    def run(self) -> int:
        """Trains and tests; prints the table; returns the exit code."""
        from tinymu_jax.quickstart.ablations import ablate, as_table

        logging.getLogger("absl").setLevel(logging.ERROR)
        print(as_table(ablate(self.ablations, self.only, _say, _progress)), end="")
        return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(doing: str) -> Callable[[int, int], Any]:
    """Returns what shows how far something is: a line that changes, on a terminal."""
    if not sys.stderr.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\r{doing}: {done} of {total}  ", end=end, file=sys.stderr, flush=True)

    return show
