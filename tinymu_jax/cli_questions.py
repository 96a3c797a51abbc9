"""The `tinymu evaluate` commands that ask a TinyMU: muchomusic, captions, classification, list."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

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
