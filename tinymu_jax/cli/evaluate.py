"""The `tinymu evaluate` commands that ask a TinyMU: muchomusic, captions, classification, list."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from tinymu_jax.cli.options import Model, showing_progress
from tinymu_jax.data.annotations.labelled import LabelledSet, validate
from tinymu_jax.data.annotations.labelled_archives import read_labelled_sets
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.probe.probe import ProbeConfig, ProbeResult
from tinymu_jax.evaluation.synthetic.scores import as_text
from tinymu_jax.models.config import NANO


@dataclass(frozen=True)
class Asked:
    """Which model is asked, and where answers and report go."""

    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    output: Path = Path("evaluation")
    """Folder for report.html, report.md, report.json and all replies (responses.jsonl); a run that
    was stopped goes on with those."""
    max_new_tokens: int = 64
    """Longest answer."""

    def evaluate(self, evaluate: Callable[[Any, Callable, dict[str, str]], Any]) -> int:
        """Loads the model, lets `evaluate` ask it, and writes the report; returns the exit code.

        Args:
            evaluate: gets the model, what puts questions to it, and the settings; returns findings.
        """
        from tinymu_jax.evaluation.report.build import write_report
        from tinymu_jax.evaluation.responses import cached_engine

        model = self.model.load_assistant()
        settings = {name: str(value) for name, value in vars(self.model).items()}
        settings["max_new_tokens"] = str(self.max_new_tokens)
        with showing_progress("asking") as progress:
            put = cached_engine(model, self.output, self.max_new_tokens, progress)
            findings = evaluate(model, put, settings)
        page = write_report([findings], self.output)
        for notice in findings.notices:
            print(f"note: {notice}", file=sys.stderr)
        for name, measure in findings.headline.items():
            print(f"{name}: {shown(measure)}")
        print(f"the report is {page}, all replies are beside it", file=sys.stderr)
        return 3 if findings.missing else 0


def shown(measure: Any) -> str:
    """Returns a measure in words: in percent where it is a share."""
    if measure.value is None:
        return measure.note
    scale = 100 if measure.is_fraction else 1
    interval = ""
    if measure.low is not None and measure.high is not None:
        interval = f" [{scale * measure.low:.1f}, {scale * measure.high:.1f}]"
    return f"{scale * measure.value:.1f}{' %' if measure.is_fraction else ''}{interval}"


@dataclass(frozen=True)
class MuchomusicCommand:
    """Ask MuChoMusic's questions, and score the answers by three rules beside each other.

    Ends with exit code 3 where recordings were missing: the report then says so first.
    """

    questions: Path
    """Its csv, or a jsonl of audio, question, choices and answer."""
    audio: Path
    """Folder of the recordings; their names hold the identifiers."""
    example: bool = False
    """Put a worked example before each question, as the official configuration does."""
    generate: bool = True
    """Let the model say its answers; else only the options' likelihoods are compared."""
    blind: bool = True
    """Also ask without audio, for the baseline of who does not listen."""
    seed: int = 0
    """Of the order of the options, and of the intervals."""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(default_factory=Asked)

    def run(self) -> int:
        """Evaluates; returns the exit code."""
        from tinymu_jax.evaluation.multiple_choice.muchomusic import (
            ChoiceConfig,
            evaluate_muchomusic,
        )
        from tinymu_jax.evaluation.multiple_choice.questions import read_choices

        questions = read_choices(self.questions, self.audio, self.seed)

        def evaluate(model: Any, put: Any, settings: dict[str, str]) -> Any:
            config = ChoiceConfig(
                self.example,
                self.generate,
                self.blind,
                model.config.max_text_tokens,
                self.seed,
            )
            return evaluate_muchomusic(
                put,
                questions,
                self.asked.model.checkpoint,
                lambda text: len(model.encode_prompt(text)),
                config,
                settings,
                self.asked.output / "answers.jsonl",
            )

        return self.asked.evaluate(evaluate)


@dataclass(frozen=True)
class CaptionsCommand:
    """Let a model describe recordings, and score what it says against captions.

    BLEU, ROUGE-L, METEOR (where WordNet is installed: python -m nltk.downloader wordnet) and
    BERTScore (where package and model are there).
    """

    captions: Path
    """musiccaps-public.csv, or a list in MusicSkills' format."""
    audio: Path
    """Folder of the recordings."""
    rows: Literal["eval", "balanced", "all"] = "eval"
    """Of MusicCaps: AudioSet's evaluation set, the balanced part of it, or all."""
    prompt: str = "Describe the music you hear."
    """What is asked."""
    seed: int = 0
    """Of the intervals."""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(
        default_factory=lambda: Asked(max_new_tokens=128)
    )

    def run(self) -> int:
        """Evaluates; returns the exit code."""
        from tinymu_jax.evaluation import captioning

        if self.captions.suffix.lower() == ".csv":
            found = captioning.read_musiccaps_captions(self.captions, self.audio, self.rows)
        else:
            found = captioning.read_list_captions(self.captions, self.audio)
        config = captioning.CaptionConfig(self.prompt, self.seed)
        name = self.asked.model.checkpoint
        return self.asked.evaluate(
            lambda _, put, settings: captioning.evaluate_captions(
                put, found, name, config, settings
            )
        )


@dataclass(frozen=True)
class ClassificationCommand:
    """Classify recordings without having learnt to: by the likelihood of each label as the answer.

    What a label is worth without audio is taken off, and both are scored. DATA is a csv of file,
    label and split, with --audio; or the folder of a data set as it unpacks, with --set.
    """

    data: tyro.conf.Positional[Path]
    """The csv, or the data set's folder."""
    audio: Path = Path(".")
    """Folder of the recordings that a csv names."""
    set: str | None = None
    """Which data set lies in the folder: gtzan, nsynth, medleysolos, esc50, urbansound8k."""
    label: str | None = None
    """The csv's column of labels, where it is another."""
    prompt: str | None = None
    """What is asked; default by data set."""
    words: str | None = None
    """A csv of label and text: how labels are called."""
    every_part: bool = False
    """Classify all recordings, not only those of the test part."""
    bins: int = 15
    """Of confidence, for the calibration error."""
    seed: int = 0
    """Of the intervals."""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(default_factory=Asked)

    def run(self) -> int:
        """Evaluates; returns the exit code."""
        from tinymu_jax.evaluation.zero_shot import (
            ClassificationConfig,
            evaluate_classification,
            read_recordings,
        )

        found = read_recordings(self.data, self.audio, self.set, self.label)
        config = ClassificationConfig(
            self.prompt, self.words, self.every_part, self.bins, self.seed
        )
        name = self.asked.model.checkpoint
        return self.asked.evaluate(
            lambda _, put, settings: evaluate_classification(put, found, name, config, settings)
        )


@dataclass(frozen=True)
class ListCommand:
    """Ask the questions of lists in MusicSkills' format, and mark the answers by their formats."""

    lists: tyro.conf.Positional[tuple[Path, ...]]
    """Json files of records."""
    audio: tuple[Path, ...]
    """Folders of the recordings: one for all lists, or one for each, in their order."""
    seed: int = 0
    """Of the intervals."""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(
        default_factory=lambda: Asked(max_new_tokens=128)
    )

    def run(self) -> int:
        """Evaluates; returns the exit code."""
        from tinymu_jax.evaluation.question_lists import ListConfig, evaluate_list, read_questions

        questions = read_questions(self.lists, self.audio)
        name = self.asked.model.checkpoint

        def evaluate(model: Any, put: Any, settings: dict[str, str]) -> Any:
            config = ListConfig(model.config.max_text_tokens, self.seed)
            return evaluate_list(
                put, questions, name, lambda text: len(model.encode_prompt(text)), config, settings
            )

        return self.asked.evaluate(evaluate)


@dataclass(frozen=True)
class ReportCommand:
    """Set reports of several checkpoints beside each other."""

    reports: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of earlier evaluations, or their report.json."""
    output: Path = Path("comparison")
    """Folder for the report."""

    def run(self) -> int:
        """Compares; returns the exit code."""
        from tinymu_jax.evaluation.report.build import compare_reports

        if len(self.reports) < 2:
            raise InputError("less than two reports: name the folders of two evaluations or more")
        print(f"the report is {compare_reports(self.reports, self.output)}")
        return 0


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
        from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of, init_params
        from tinymu_jax.checkpoints.open import open_checkpoint
        from tinymu_jax.utils.files import make_folder

        self.probe.check()
        sets = read_labelled_sets(self.data, self.audio, self.set, self.label)
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
        from tinymu_jax.evaluation.probe.probe import run_probe
        from tinymu_jax.evaluation.probe.vectors import mean_vectors

        paths = [item.path for item in sets[0].clips]
        with showing_progress("listening") as progress:
            heard = mean_vectors(encoder, paths, vectors, progress, self.max_bad)
        usable, found = np.flatnonzero(~np.isnan(heard[:, 0])), {}
        heard = heard[usable]
        for data in sets:
            data = validate(data._replace(clips=[data.clips[number] for number in usable]))
            found[data.name] = run_probe(heard, data, self.probe)
            if output is not None:
                self._keep(data, encoder, found[data.name], output)
        return found

    def _keep(self, data: LabelledSet, encoder: Any, result: ProbeResult, output: Path) -> None:
        """Writes encoder and probe as a checkpoint, and the names of its classes."""
        from dataclasses import replace

        from tinymu_jax.checkpoints.checkpoint import Checkpoint, save_checkpoint
        from tinymu_jax.models.config import HeadConfig

        name = data.name.replace(", ", "_").replace("/", "_")
        shares = "sigmoid" if data.multi_label else "softmax"
        head = HeadConfig("probe", len(data.classes), shares)
        linear = {"kernel": result.probe.kernel, "bias": result.probe.bias}
        params = {**encoder.params, "head": {"linear": linear}}
        config = replace(encoder.config, head=head)
        source = {"labels": data.classes}
        save_checkpoint(output / name, Checkpoint(config, params, source=source))

    def _tell(self, results: dict[str, dict[str, ProbeResult]], output: Path) -> None:
        """Prints the table and writes it."""
        from tinymu_jax.utils.files import write_json

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
        from tinymu_jax.quickstart.evaluate import examine

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
