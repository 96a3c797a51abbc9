"""The `tinymu evaluate` commands: benchmarks of a TinyMU, and linear probes of an encoder."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of, init_params, save_checkpoint
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.cli.options import Model
from tinymu_jax.data.annotations.labelled import LabelledSet, validate
from tinymu_jax.data.annotations.labelled_archives import read_labelled_sets
from tinymu_jax.data.unusable import check_max_fraction
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.captioning import (
    CaptionConfig,
    evaluate_captions,
    read_list_captions,
    read_musiccaps_captions,
)
from tinymu_jax.evaluation.multiple_choice.muchomusic import ChoiceConfig, evaluate_muchomusic
from tinymu_jax.evaluation.multiple_choice.questions import read_choices
from tinymu_jax.evaluation.probe.probe import ProbeConfig, ProbeResult, run_probe
from tinymu_jax.evaluation.probe.vectors import mean_vectors
from tinymu_jax.evaluation.question_lists import evaluate_list, read_questions
from tinymu_jax.evaluation.report.build import compare_reports, write_report
from tinymu_jax.evaluation.responses import EvalModel, cached_engine
from tinymu_jax.evaluation.results import SPLIT, EvalResult, Metric
from tinymu_jax.evaluation.synthetic.items import read_items
from tinymu_jax.evaluation.synthetic.scores import as_text
from tinymu_jax.evaluation.zero_shot import (
    ClassificationConfig,
    evaluate_classification,
    read_recordings,
)
from tinymu_jax.inference.engine import check_max_new_tokens
from tinymu_jax.models.config import NANO, HeadConfig
from tinymu_jax.quickstart.evaluate import evaluate_model
from tinymu_jax.utils.files import check_folder, new_folder, write_json
from tinymu_jax.utils.numbers import percent
from tinymu_jax.utils.progress import show_progress
from tinymu_jax.utils.tables import TABLE_SUFFIXES


@dataclass(frozen=True)
class EvalOptions:
    """Options of all benchmarks: the model to evaluate and the output folder."""

    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    output: Path = Path("evaluation")
    """Folder for reports and all responses (responses.jsonl), from which a stopped run resumes."""
    max_new_tokens: int = 64
    """Maximum number of tokens of an answer."""

    def run(self, evaluate: Callable[[EvalModel], EvalResult]) -> int:
        """Evaluate the model and write a report; return 3 if recordings are missing, else 0."""
        check_max_new_tokens(self.max_new_tokens)
        check_folder(self.output)
        model = self.model.load_assistant()
        settings = {name: str(value) for name, value in vars(self.model).items()}
        with new_folder(self.output), show_progress("asking") as progress:
            result = evaluate(
                EvalModel(
                    self.model.checkpoint,
                    cached_engine(model, self.output, self.max_new_tokens, progress),
                    lambda text: len(model.engine.prompts.encode_text(text, "the text")),
                    model.config.max_text_tokens,
                    settings | {"max_new_tokens": str(self.max_new_tokens)},
                )
            )
        page = write_report([result], self.output)
        for notice in result.notices:
            print(f"note: {notice}", file=sys.stderr)
        if SPLIT in result.settings:
            print(f"{SPLIT}: {result.settings[SPLIT]}")
        for name, metric in result.headline.items():
            print(f"{name}: {format_metric(metric)}")
        print(f"the report is {page}, with all responses beside it", file=sys.stderr)
        return 3 if result.missing else 0


def format_metric(metric: Metric) -> str:
    """Format a metric and its confidence interval, in percent if the metric is a fraction."""
    if metric.value is None:
        return metric.note
    text = percent if metric.is_fraction else "{:.1f}".format
    interval = ""
    if metric.low is not None and metric.high is not None:
        interval = f" [{text(metric.low)}, {text(metric.high)}]"
    return f"{text(metric.value)}{' %' if metric.is_fraction else ''}{interval}"


@dataclass(frozen=True)
class MuchomusicCommand:
    """Ask MuChoMusic's multiple-choice questions, and grade the answers.

    Each question is graded by three rules: by MuChoMusic's official rule, by the letter that the
    answer gives, and by the option with the highest likelihood. If recordings are missing, the exit
    code is 3.
    """

    questions: Path
    """MuChoMusic's csv, or a JSON or JSONL list of audio, question, choices and answer."""
    audio: Path
    """Folder of the recordings, whose file names contain MuChoMusic's identifiers."""
    config: Annotated[ChoiceConfig, tyro.conf.arg(name="")] = field(default_factory=ChoiceConfig)
    options: Annotated[EvalOptions, tyro.conf.arg(name="")] = field(default_factory=EvalOptions)

    def run(self) -> int:
        """Evaluate the model and write a report; return the exit code."""
        questions = read_choices(self.questions, self.audio, self.config.seed)
        answers = self.options.output / "answers.jsonl"
        return self.options.run(
            lambda model: evaluate_muchomusic(model, questions, self.config, answers)
        )


@dataclass(frozen=True)
class CaptionsCommand:
    """Caption recordings, and score the captions against reference captions.

    The scores are BLEU, ROUGE-L, METEOR (needs WordNet: python -m nltk.downloader wordnet) and
    BERTScore (needs its package and model).
    """

    captions: Path
    """Reference captions: musiccaps-public.csv, or a list in MusicSkills' format."""
    audio: Path
    """Folder of the recordings."""
    split: Literal["eval", "balanced", "all"] = "eval"
    """Part of MusicCaps: AudioSet's evaluation clips, a balanced subset of these, or all clips."""
    config: Annotated[CaptionConfig, tyro.conf.arg(name="")] = field(default_factory=CaptionConfig)
    options: Annotated[EvalOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EvalOptions(max_new_tokens=128)
    )

    def run(self) -> int:
        """Evaluate the model and write a report; return the exit code."""
        if self.captions.suffix.lower() in TABLE_SUFFIXES:
            captions = read_musiccaps_captions(self.captions, self.audio, self.split)
        else:
            captions = read_list_captions(self.captions, self.audio)
        return self.options.run(lambda model: evaluate_captions(model, captions, self.config))


@dataclass(frozen=True)
class ClassificationCommand:
    """Classify recordings zero-shot: choose the label that is the likeliest answer.

    Two rankings of the labels are reported: by log-likelihood, and by log-likelihood with audio
    minus log-likelihood without audio. DATA is a csv with the columns file, label and split (give
    --audio), or the unpacked folder of a data set (give --dataset).
    """

    data: tyro.conf.Positional[Path]
    """The csv, or the data set's folder."""
    audio: Path = Path(".")
    """Folder of the recordings that a csv names."""
    dataset: str | None = None
    """Name of the data set in the folder: gtzan, nsynth, medleysolos, esc50, urbansound8k."""
    label_column: str | None = None
    """Name of the csv's column of labels; default: label."""
    config: Annotated[ClassificationConfig, tyro.conf.arg(name="")] = field(
        default_factory=ClassificationConfig
    )
    options: Annotated[EvalOptions, tyro.conf.arg(name="")] = field(default_factory=EvalOptions)

    def run(self) -> int:
        """Evaluate the model and write a report; return the exit code."""
        dataset = read_recordings(self.data, self.audio, self.dataset, self.label_column)
        return self.options.run(lambda model: evaluate_classification(model, dataset, self.config))


@dataclass(frozen=True)
class QuestionsCommand:
    """Ask questions from lists in MusicSkills' format, and grade the answers by task."""

    lists: tyro.conf.Positional[tuple[Path, ...]]
    """JSON or JSONL files of questions in MusicSkills' format."""
    audio: tuple[Path, ...]
    """Folders of the recordings: one for all lists, or one per list in the same order."""
    seed: int = 0
    """Random seed of the bootstrap for confidence intervals."""
    options: Annotated[EvalOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EvalOptions(max_new_tokens=128)
    )

    def run(self) -> int:
        """Evaluate the model and write a report; return the exit code."""
        questions = read_questions(self.lists, self.audio)
        return self.options.run(lambda model: evaluate_list(model, questions, self.seed))


@dataclass(frozen=True)
class ReportCommand:
    """Write a report that compares the evaluations of several checkpoints."""

    reports: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of earlier evaluations, or their report.json files; two or more."""
    output: Path = Path("comparison")
    """Folder for the new report."""

    def run(self) -> int:
        """Write the comparison; return the exit code."""
        if len(self.reports) < 2:
            raise InputError("less than two reports: name the folders of two evaluations or more")
        print(f"the report is {compare_reports(self.reports, self.output)}")
        return 0


PROBE_FILE = "probe.json"


@dataclass(frozen=True)
class ProbeCommand:
    """Train and test a linear layer on a frozen encoder's embeddings.

    DATA is a csv with the columns file, label (or labels, separated by ";" or "|") and split (give
    --audio), or the unpacked folder of a data set (give --dataset).
    """

    data: tyro.conf.Positional[Path]
    """The csv, or the data set's folder."""
    checkpoint: str
    """Checkpoint with the encoder: a MATPAC, a pre-training checkpoint, or a TinyMU."""
    audio: Path = Path(".")
    """Folder of the recordings that a csv names."""
    dataset: str | None = None
    """Name of the data set in the folder: gtzan, nsynth, medleysolos, openmic, magnatagatune,
    fsd50k, esc50, urbansound8k."""
    label_column: tuple[str, ...] = ()
    """Columns of the csv with labels; one probe is trained per column. Default: label or labels."""
    output: Path = Path("probes")
    """Folder for results, probes and embeddings; existing embeddings are reused."""
    random_baseline: bool = False
    """Also probe the same encoder with random weights."""
    max_bad_fraction: float = 0.001
    """Largest fraction of recordings that may be missing or unusable, and are then skipped."""
    keep_damaged: bool = False
    """Use what can be read of a damaged recording, instead of refusing it."""
    probe: Annotated[ProbeConfig, tyro.conf.arg(name="")] = field(default_factory=ProbeConfig)

    def run(self) -> int:
        """Train and test the probes, save and print the results; return the exit code."""
        self.probe.check()
        check_max_fraction(self.max_bad_fraction)
        check_folder(self.output)
        datasets = read_labelled_sets(self.data, self.audio, self.dataset, self.label_column)
        encoder = encoder_of(open_checkpoint(self.checkpoint))
        results = {}
        with new_folder(self.output) as output:
            results["trained"] = self._probe(datasets, encoder, output / "vectors", output)
            if self.random_baseline:
                random = Checkpoint(encoder.config, init_params(encoder.config, 0))
                results["random"] = self._probe(datasets, random, output / "random_vectors", None)
        self._report(results, output)
        return 0

    def _probe(
        self, datasets: list[LabelledSet], encoder: Any, vectors: Path, output: Path | None
    ) -> dict[str, ProbeResult]:
        """Train and test a probe on each data set; return the results by the data sets' names.

        All data sets list the same recordings, whose embeddings are cached in the folder `vectors`.
        Probes are saved in the folder `output`, if given.
        """
        paths = [clip.path for clip in datasets[0].clips]
        with show_progress("encoding") as progress:
            means = mean_vectors(
                encoder, paths, vectors, progress, self.max_bad_fraction, self.keep_damaged
            )
        usable, results = np.flatnonzero(~np.isnan(means[:, 0])), {}
        means = means[usable]
        for data in datasets:
            data = validate(data._replace(clips=[data.clips[number] for number in usable]))
            results[data.name] = run_probe(means, data, self.probe)
            if output is not None:
                self._save(data, encoder, results[data.name], output)
        return results

    def _save(self, data: LabelledSet, encoder: Any, result: ProbeResult, output: Path) -> None:
        """Save the encoder as a checkpoint, with the probe as head and the names of the classes."""
        name = data.name.replace(", ", "_").replace("/", "_")
        activation = "sigmoid" if data.multi_label else "softmax"
        head = HeadConfig("probe", len(data.classes), activation)
        linear = {"kernel": result.probe.kernel, "bias": result.probe.bias}
        params = {**encoder.params, "head": {"linear": linear}}
        config = replace(encoder.config, head=head)
        source = {"labels": data.classes}
        save_checkpoint(output / name, Checkpoint(config, params, source=source))

    def _report(self, results: dict[str, dict[str, ProbeResult]], output: Path) -> None:
        page: dict[str, Any] = {"checkpoint": self.checkpoint, "data": str(self.data)}
        for encoder, by_name in results.items():
            page[encoder] = {
                name: {
                    "metric": result.metric,
                    "mean": result.mean,
                    "interval": None if math.isnan(result.interval) else result.interval,
                    "values": result.values,
                    "chance": result.chance,
                    SPLIT: result.split,
                }
                for name, result in by_name.items()
            }
        write_json(output / PROBE_FILE, page)
        for name, result in results["trained"].items():
            line = f"{name}: {result.metric} {_percent(result)}, chance {percent(result.chance)}"
            if "random" in results:
                line += f", random encoder {_percent(results['random'][name])}"
            print(f"{line}, {SPLIT} {result.split}")
        print(f"probes and results are in {output} ({PROBE_FILE})", file=sys.stderr)


def _percent(result: ProbeResult) -> str:
    interval = "" if math.isnan(result.interval) else f" ± {percent(result.interval)}"
    return f"{percent(result.mean)}{interval}"


@dataclass(frozen=True)
class SyntheticCommand:
    """Ask a TinyMU about synthetic clips with known properties, and grade its answers."""

    folder: tyro.conf.Positional[Path]
    """Folder of clips and questions that `tinymu data synthesize` wrote."""
    checkpoint: str = NANO
    """Model to evaluate; nano is part of the package."""
    output: Path = Path("scores")
    """Folder for the table, the scores and all answers."""
    baselines: bool = False
    """Also score multiple-choice options by likelihood, and ask each question without audio and
    with the next clip's audio."""
    keep_damaged: bool = False
    """Use what can be read of a damaged recording, instead of refusing it."""

    def run(self) -> int:
        """Print and save the model's scores; return the exit code."""
        check_folder(self.output)
        read_items(self.folder)  # errors in it are reported before the model is loaded
        result = evaluate_model(
            self.checkpoint, self.folder, self.output, self.baselines, self.keep_damaged
        )
        print(as_text(result.scores))
        print(f"scores and answers are in {self.output}", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Evaluate models by benchmarks, on synthetic clips, or by linear probes."""

    command: Annotated[
        Annotated[ProbeCommand, tyro.conf.subcommand("probe")]
        | Annotated[MuchomusicCommand, tyro.conf.subcommand("muchomusic")]
        | Annotated[CaptionsCommand, tyro.conf.subcommand("captions")]
        | Annotated[ClassificationCommand, tyro.conf.subcommand("classification")]
        | Annotated[QuestionsCommand, tyro.conf.subcommand("questions")]
        | Annotated[SyntheticCommand, tyro.conf.subcommand("synthetic")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Run the chosen subcommand; return its exit code."""
        return self.command.run()
