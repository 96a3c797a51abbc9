"""The `tinymu evaluate` commands that ask a TinyMU: muchomusic, captions, classification, list."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli_options import Model, showing_progress
from tinymu_jax.errors import InputError


@dataclass(frozen=True)
class Asked:
    """Which model is asked, and where answers and report go."""

    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    output: Path = Path("evaluation")
    """Folder for report.html, report.md, report.json and all replies (replies.jsonl); a run that
    was stopped goes on with those."""
    max_new_tokens: int = 64
    """Longest answer."""

    def evaluate(self, evaluate: Callable[[Any, Callable, dict[str, str]], Any]) -> int:
        """Loads the model, lets `evaluate` ask it, and writes the report; returns the exit code.

        Args:
            evaluate: gets the model, what puts questions to it, and the settings; returns findings.
        """
        from tinymu_jax.evaluation.putting import putter
        from tinymu_jax.evaluation.report import write_report

        model = self.model.load_assistant()
        settings = {name: str(value) for name, value in vars(self.model).items()}
        settings["max_new_tokens"] = str(self.max_new_tokens)
        with showing_progress("asking") as progress:
            put = putter(model, self.output, self.max_new_tokens, progress)
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
    scale = 100 if measure.share else 1
    interval = ""
    if measure.low is not None and measure.high is not None:
        interval = f" [{scale * measure.low:.1f}, {scale * measure.high:.1f}]"
    return f"{scale * measure.value:.1f}{' %' if measure.share else ''}{interval}"


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
        from tinymu_jax.evaluation.choice_questions import read_choices
        from tinymu_jax.evaluation.muchomusic import ChoiceConfig, evaluate_muchomusic

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
        from tinymu_jax.evaluation.class_labels import read_recordings
        from tinymu_jax.evaluation.classification import (
            ClassificationConfig,
            evaluate_classification,
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
        from tinymu_jax.evaluation.list_questions import read_questions
        from tinymu_jax.evaluation.lists import ListConfig, evaluate_list

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
        from tinymu_jax.evaluation.report import compare

        if len(self.reports) < 2:
            raise InputError("less than two reports: name the folders of two evaluations or more")
        print(f"the report is {compare(self.reports, self.output)}")
        return 0
