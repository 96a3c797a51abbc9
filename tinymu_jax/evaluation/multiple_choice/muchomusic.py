"""Evaluation on MuChoMusic, 1,187 multiple-choice questions about music.

The prompts and one of the grading rules follow MuChoMusic's official script.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinymu_jax.data.question_formats import MCQ
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.answer_parsing import RULES, Reading, read_answer
from tinymu_jax.evaluation.multiple_choice.metrics import Graded, Outcome, choice_result
from tinymu_jax.evaluation.multiple_choice.questions import ChoiceQuestion
from tinymu_jax.evaluation.responses import CachedEngine, EvalModel
from tinymu_jax.evaluation.results import EvalResult
from tinymu_jax.evaluation.skipped import skip_long_prompts
from tinymu_jax.inference.engine import Request, Response
from tinymu_jax.utils.files import write_text

WORKED_EXAMPLE = (
    "Question: Which pattern does the bass mainly play in this jazz recording? \n "
    "Options: (A) A slow fade at the end. (B) A walking line in even quarter notes. "
    "(C) Muted trumpet. (D) Long notes on the off-beat. \n "
    "The correct answer is: B"
)
"""Example question with its answer, in the form of the official one-shot example."""


@dataclass(frozen=True)
class ChoiceConfig:
    """Settings of a multiple-choice evaluation."""

    one_shot: bool = False
    """Put a worked example before each question, as the official configuration does."""
    generate: bool = True
    """Generate answers; otherwise, only compare the likelihoods of the options."""
    text_only: bool = True
    """Also ask each question without audio, as a baseline."""
    seed: int = 0
    """Seed of the order of the options and of the resamples for the confidence intervals."""


def choice_prompt(question: ChoiceQuestion, one_shot: bool = False) -> str:
    """Return a question's prompt in MuChoMusic's official form; `one_shot` adds an example."""
    prompt = (
        f"Question: {question.question}\n Options: {' '.join(question.lettered)} \n "
        "The correct answer is: "
    )
    return f"{WORKED_EXAMPLE}\n {prompt}" if one_shot else prompt


def evaluate_muchomusic(
    model: EvalModel,
    questions: Sequence[ChoiceQuestion],
    config: ChoiceConfig | None = None,
    answers: str | Path | None = None,
) -> EvalResult:
    """Ask a model all questions, grade the answers by every rule, and compute all metrics.

    `answers` is a JSONL file to write. Each line has a question's options in the order shown, the
    model's answer, and the option that the answer chooses by each rule.

    Raises:
        InputError: no question could be asked, or `answers` cannot be written.
    """
    config = config or ChoiceConfig()
    if not questions:
        raise InputError("no questions: name a list that has some")
    fitting, too_long = skip_long_prompts(
        questions,
        [choice_prompt(question, config.one_shot) for question in questions],
        [f"{question.id}: its prompt" for question in questions],
        model,
    )
    graded, missing = [], []
    for question, (response, text_only) in zip(
        fitting, _ask(model.engine, fitting, config), strict=True
    ):
        if isinstance(response, InputError):
            missing.append(str(response))
        else:
            graded.append(_grade(question, response, text_only, config.generate))
    if not graded:
        raise InputError(f"no question could be asked: {(missing or too_long)[0]}")
    if answers is not None:
        _write_answers(answers, graded, config.generate)
    outcome = Outcome(graded, too_long, missing, config.generate)
    settings = _settings(config) | dict(model.settings)
    return choice_result(outcome, model.name, settings, config.seed)


def _ask(
    engine: CachedEngine, questions: Sequence[ChoiceQuestion], config: ChoiceConfig
) -> list[tuple[Response | InputError, Response | InputError | None]]:
    """Return two responses (or errors) for each question: with audio, and without audio.

    The response without audio is None unless `config.text_only` is set.
    """
    if not questions:
        return []
    first: dict[Path, int] = {}
    for question in questions:
        first.setdefault(question.audio, len(first))
    order = sorted(range(len(questions)), key=lambda number: first[questions[number].audio])
    requests = [
        Request(
            questions[number].audio,
            choice_prompt(questions[number], config.one_shot),
            MCQ,
            questions[number].lettered,
            score_only=not config.generate,
        )
        for number in order
    ]
    without = [request._replace(audio=None) for request in requests] if config.text_only else []
    responses = list(engine([*requests, *without]))
    text_only = responses[len(requests) :] if config.text_only else [None] * len(requests)
    pairs = zip(responses[: len(requests)], text_only, strict=True)
    by_number = dict(zip(order, pairs, strict=True))
    return [by_number[number] for number in range(len(questions))]


def _grade(
    question: ChoiceQuestion,
    response: Response,
    text_only: Response | InputError | None,
    generated: bool,
) -> Graded:
    """Grade, by each rule, a question's `response` and its response without audio, `text_only`.

    If no answers were `generated`, only the options' log-likelihoods are graded.
    """
    if isinstance(text_only, InputError):
        raise text_only

    def read(response: Response) -> Reading:
        if len(response.log_likelihoods) != len(question.options):
            raise ValueError(f"{question.id}: its options were not all scored")
        answer = response.text if generated else ""
        return read_answer(question.options, answer, response.log_likelihoods)

    return Graded(
        question,
        response.text,
        response.log_likelihoods,
        read(response),
        None if text_only is None else read(text_only),
        response.cut,
    )


def _write_answers(path: str | Path, graded: Sequence[Graded], generated: bool) -> None:
    lines = []
    for one in graded:
        question = one.question
        line = {
            "id": question.id,
            "audio": str(question.audio),
            "question": question.question,
            "options": question.options,
            "kinds": question.kinds,
            "right": question.right,
            "answer": one.answer if generated else None,
            "log_likelihoods": one.log_likelihoods,
            "chosen": dict(zip(RULES, one.reading, strict=True)),
        }
        lines.append(json.dumps(line) + "\n")
    write_text(path, "".join(lines))


def _settings(config: ChoiceConfig) -> dict[str, str]:
    generated = "generated (greedily), and " if config.generate else ""
    return {
        "prompt": f"as official, {'with' if config.one_shot else 'without'} a worked example",
        "answers": f"{generated}by the likelihood of the options as shown",
    }
