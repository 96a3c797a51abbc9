"""The `tinymu evaluate` commands: probe, synthetic; those that ask are in `.cli_questions`."""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from tinymu_jax.cli_options import showing_progress
from tinymu_jax.cli_questions import (
    CaptionsCommand,
    ClassificationCommand,
    ListCommand,
    MuchomusicCommand,
    ReportCommand,
)
from tinymu_jax.config import NANO
from tinymu_jax.data.labelled import LabelledSet, checked
from tinymu_jax.evaluation.probe import ProbeConfig, ProbeResult
from tinymu_jax.evaluation.probe_readers import read_set_or_tables
from tinymu_jax.evaluation.synthetic.table import as_text

RESULTS_FILE = "probe.json"


@dataclass(frozen=True)
class ProbeCommand:
    """Learn a linear layer over a frozen encoder's vectors, and test it.

    DATA is a csv of file, label (or labels, several by ";") and split, with --audio; or the folder
    of a data set as it unpacks, with --set.
    """

    data: tyro.conf.Positional[Path]
    """The csv, or the data set's folder."""
    checkpoint: str
    """Whose encoder it is: of a MATPAC, of pre-training, or of a TinyMU."""
    audio: Path = Path(".")
    """Folder of the recordings that a csv names."""
    set: str | None = None
    """Which data set lies there: gtzan, nsynth, medleysolos, openmic, magnatagatune, fsd50k,
    esc50, urbansound8k."""
    label: tuple[str, ...] = ()
    """Columns of the csv to learn, one probe each; default label or labels."""
    output: Path = Path("probes")
    """Folder for results, probes and vectors; vectors that are there are not made again."""
    untrained: bool = False
    """Probe the same encoder at random too."""
    max_bad: float = 0.001
    """Share of recordings that may be missing or unusable; they are left out."""
    probe: Annotated[ProbeConfig, tyro.conf.arg(name="")] = field(default_factory=ProbeConfig)

    def run(self) -> int:
        """Probes; returns the exit code."""
        from tinymu_jax.checkpoint import Checkpoint, encoder_of, init_params
        from tinymu_jax.files import make_folder
        from tinymu_jax.pretrained import open_checkpoint

        self.probe.check()
        sets = read_set_or_tables(self.data, self.audio, self.set, self.label)
        encoder = encoder_of(open_checkpoint(self.checkpoint))
        output, results = make_folder(self.output), {}
        results["trained"] = self._probe(sets, encoder, output / "vectors", output)
        if self.untrained:
            random = Checkpoint(encoder.config, init_params(encoder.config, 0))
            results["untrained"] = self._probe(sets, random, output / "untrained", None)
        self._tell(results, output)
        return 0

    def _probe(
        self, sets: list[LabelledSet], encoder: Any, vectors: Path, output: Path | None
    ) -> dict[str, ProbeResult]:
        """Learns a probe of each set over one encoder; keeps them where `output` says."""
        from tinymu_jax.evaluation.probe import run_probe
        from tinymu_jax.evaluation.probe_vectors import mean_vectors

        paths = [item.path for item in sets[0].items]
        with showing_progress("listening") as progress:
            heard = mean_vectors(encoder, paths, vectors, progress, self.max_bad)
        usable, found = np.flatnonzero(~np.isnan(heard[:, 0])), {}
        heard = heard[usable]
        for data in sets:
            data = checked(data._replace(items=[data.items[number] for number in usable]))
            found[data.name] = run_probe(heard, data, self.probe)
            if output is not None:
                self._keep(data, encoder, found[data.name], output)
        return found

    def _keep(self, data: LabelledSet, encoder: Any, result: ProbeResult, output: Path) -> None:
        """Writes encoder and probe as a checkpoint, and the names of its classes."""
        from dataclasses import replace

        from tinymu_jax.checkpoint import Checkpoint, save_checkpoint
        from tinymu_jax.config import HeadConfig

        name = data.name.replace(", ", "_").replace("/", "_")
        shares = "sigmoid" if data.several else "softmax"
        head = HeadConfig("probe", len(data.classes), shares)
        linear = {"kernel": result.probe.kernel, "bias": result.probe.bias}
        params = {**encoder.params, "head": {"linear": linear}}
        config = replace(encoder.config, head=head)
        source = {"labels": data.classes}
        save_checkpoint(output / name, Checkpoint(config, params, source=source))

    def _tell(self, results: dict[str, dict[str, ProbeResult]], output: Path) -> None:
        """Prints the table and writes it."""
        from tinymu_jax.files import write_json

        page: dict[str, Any] = {"checkpoint": self.checkpoint, "data": str(self.data)}
        for encoder, own in results.items():
            page[encoder] = {
                name: {
                    "metric": result.metric,
                    "mean": result.mean,
                    "interval": None if math.isnan(result.interval) else result.interval,
                    "values": result.values,
                    "chance": result.chance,
                }
                for name, result in own.items()
            }
        write_json(output / RESULTS_FILE, page)
        for name, result in results["trained"].items():
            line = f"{name}: {result.metric} {_percent(result)}, chance {100 * result.chance:.1f}"
            if "untrained" in results:
                line += f", the encoder untrained {_percent(results['untrained'][name])}"
            print(line)
        print(f"probes and numbers are in {output} ({RESULTS_FILE})", file=sys.stderr)


def _percent(result: ProbeResult) -> str:
    """Returns the mean, and half of its 95 % interval where there are several seeds."""
    interval = "" if math.isnan(result.interval) else f" ± {100 * result.interval:.1f}"
    return f"{100 * result.mean:.1f}{interval}"


@dataclass(frozen=True)
class SyntheticCommand:
    """Ask a TinyMU about synthetic clips, whose facts are known, and mark its answers."""

    folder: tyro.conf.Positional[Path]
    """Of `tinymu data synthesize`."""
    checkpoint: str = NANO
    """Which model; nano comes with the package."""
    output: Path = Path("scores")
    """Folder for the table, the scores and all answers."""
    blind: bool = False
    """Also score the options of multiple choice, and ask without audio and of other clips."""

    def run(self) -> int:
        """Asks; returns the exit code."""
        from tinymu_jax.quickstart.testing import examine

        with showing_progress("asking") as progress:
            results = examine(self.checkpoint, self.folder, self.output, progress, self.blind)
        print(as_text(results.scores))
        print(f"scores and answers are in {self.output}", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Measure what was learnt."""

    command: Annotated[
        Annotated[ProbeCommand, tyro.conf.subcommand("probe")]
        | Annotated[MuchomusicCommand, tyro.conf.subcommand("muchomusic")]
        | Annotated[CaptionsCommand, tyro.conf.subcommand("captions")]
        | Annotated[ClassificationCommand, tyro.conf.subcommand("classification")]
        | Annotated[ListCommand, tyro.conf.subcommand("list")]
        | Annotated[SyntheticCommand, tyro.conf.subcommand("synthetic")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Runs the command; returns the exit code."""
        return self.command.run()
