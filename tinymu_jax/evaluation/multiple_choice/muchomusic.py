"""MuChoMusic: 1,187 questions of multiple choice about music, asked and scored as officially.

Questions come from `tinymu_jax.evaluation.multiple_choice.questions`; the rules that answers are read by are
in `.choice_rules`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinymu_jax.data.question_formats import MCQ
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.answer_parsing import RULES, Reading, read_reply
from tinymu_jax.evaluation.multiple_choice.metrics import Graded, Outcome, choice_findings
from tinymu_jax.evaluation.multiple_choice.questions import ChoiceQuestion
from tinymu_jax.evaluation.results import EvalResult
from tinymu_jax.evaluation.skipped import sort_by_length
from tinymu_jax.inference.engine import Request, Response
from tinymu_jax.utils.files import write_text

Put = Callable[[Sequence[Request]], Sequence[Response | InputError]]

EXAMPLE = (
    "Question: Which pattern does the bass mainly play in this jazz recording? \n "
    "Options: (A) A slow fade at the end. (B) A walking line in even quarter notes. "
    "(C) Muted trumpet. (D) Long notes on the off-beat. \n "
    "The correct answer is: B"
)
"""A worked example in the official one's form."""


@dataclass(frozen=True)
class ChoiceConfig:
    """How the questions are asked."""

    example: bool = False
    """Whether a worked example stands before each, as in the official configuration."""
    generate: bool = True
    """Whether answers are generated; else the options are compared by likelihood alone."""
    blind: bool = True
    """Whether the same is asked without audio, as a baseline."""
    longest_prompt: int = 129
    """Tokens that the model takes; questions with a longer prompt are left out, and told."""
    seed: int = 0
    """Of the intervals' resamples."""


def choice_prompt(question: ChoiceQuestion, example: bool = False) -> str:
    """Returns a question as MuChoMusic's own script puts it; see `ChoiceConfig.example`."""
    own = (
        f"Question: {question.question}\n Options: {' '.join(question.lettered)} \n "
        "The correct answer is: "
    )
    return f"{EXAMPLE}\n {own}" if example else own


def evaluate_muchomusic(
    put: Put,
    questions: Sequence[ChoiceQuestion],
    checkpoint: str,
    count_tokens: Callable[[str], int],
    config: ChoiceConfig | None = None,
    settings: Mapping[str, str] | None = None,
    answers: str | Path | None = None,
) -> EvalResult:
    """Asks all questions and scores the answers by every rule.

    Args:
        put: asks; an `InputError` in the place of a reply says that the recording is of no use. It
            is called once, with questions on one recording together, and those without audio last.
        questions: in any order.
        checkpoint: what is evaluated.
        count_tokens: of a prompt.
        config: how they are asked.
        settings: more that the numbers depend on.
        answers: file that gets a line of json for each question: its options as shown, what was
            said, and which option each rule reads.

    Raises:
        InputError: no question could be asked, or `answers` cannot be written.
    """
    config = config or ChoiceConfig()
    if not questions:
        raise InputError("no questions: name a list that has some")
    prompts = [choice_prompt(question, config.example) for question in questions]
    names = [f"{question.id}: its prompt" for question in questions]
    fit, too_long = sort_by_length(questions, prompts, names, count_tokens, config.longest_prompt)
    marked, no_audio = [], []
    for question, (heard, unheard) in zip(fit, _ask(put, fit, config), strict=True):
        if isinstance(heard, InputError):
            no_audio.append(str(heard))
        else:
            marked.append(_mark(question, heard, unheard, config.generate))
    if not marked:
        raise InputError(f"no question could be asked: {(no_audio or too_long)[0]}")
    if answers is not None:
        _write_answers(answers, marked, config.generate)
    outcome = Outcome(marked, too_long, no_audio, config.generate)
    own = _settings(config) | dict(settings or {})
    return choice_findings(outcome, checkpoint, own, config.seed)


def _ask(
    put: Put, questions: Sequence[ChoiceQuestion], config: ChoiceConfig
) -> list[tuple[Response | InputError, Response | InputError | None]]:
    """Returns the replies to each question: having heard, and not having heard (if asked for)."""
    if not questions:
        return []
    first: dict[Path, int] = {}
    for question in questions:
        first.setdefault(question.audio, len(first))
    order = sorted(range(len(questions)), key=lambda number: first[questions[number].audio])
    asked = []
    for number in order:
        one = questions[number]
        prompt = choice_prompt(one, config.example)
        asked.append(Request(one.audio, prompt, MCQ, one.lettered, score_only=not config.generate))
    unheard = [one._replace(audio=None) for one in asked] if config.blind else []
    replies = list(put([*asked, *unheard]))
    rest = replies[len(asked) :] if config.blind else [None] * len(asked)
    found = dict(zip(order, zip(replies[: len(asked)], rest, strict=True), strict=True))
    return [found[number] for number in range(len(questions))]


def _mark(
    question: ChoiceQuestion,
    heard: Response,
    unheard: Response | InputError | None,
    generated: bool,
) -> Graded:
    """Reads a question's answers; what was not generated says nothing."""
    if isinstance(unheard, InputError):
        raise unheard

    def read(reply: Response) -> Reading:
        if len(reply.log_likelihoods) != len(question.options):
            raise ValueError(f"{question.id}: its options were not all scored")
        said = reply.text if generated else ""
        return read_reply(question.options, said, reply.log_likelihoods)

    return Graded(
        question,
        heard.text,
        heard.log_likelihoods,
        read(heard),
        None if unheard is None else read(unheard),
        heard.cut,
    )


def _write_answers(path: str | Path, marked: Sequence[Graded], generated: bool) -> None:
    """Writes what was answered, a line for each question."""
    lines = []
    for one in marked:
        question = one.question
        line = {
            "id": question.id,
            "audio": str(question.audio),
            "question": question.question,
            "options": question.options,
            "kinds": question.kinds,
            "right": question.right,
            "said": one.said if generated else None,
            "log_likelihoods": one.log_likelihoods,
            "chosen": dict(zip(RULES, one.reading, strict=True)),
        }
        lines.append(json.dumps(line) + "\n")
    write_text(path, "".join(lines))


def _settings(config: ChoiceConfig) -> dict[str, str]:
    generated = "generated (greedily), and " if config.generate else ""
    return {
        "prompt": f"as official, {'with' if config.example else 'without'} a worked example",
        "answers": f"{generated}by the likelihood of the options as shown",
    }
