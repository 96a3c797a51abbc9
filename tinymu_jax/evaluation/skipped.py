"""Questions that were not answered: told on top of a report and listed in it."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.results import Metric, Table
from tinymu_jax.inference.engine import Response

Question = TypeVar("Question")


class Answers(NamedTuple, Generic[Question]):
    """What came back of some questions."""

    answered: list[tuple[Question, Response]]
    missing: list[str]
    """What is wrong with the recording of each other one."""


def sort_by_length(
    questions: Sequence[Question],
    prompts: Sequence[str],
    names: Sequence[str],
    count_tokens: Callable[[str], int],
    longest: int,
) -> tuple[list[Question], list[str]]:
    """Returns the questions that the model takes whole, and what is wrong with each other one.

    Args:
        questions: of any kind.
        prompts: of each.
        names: of each, for what is told.
        count_tokens: of a prompt.
        longest: tokens that the model takes.
    """
    fit, too_long = [], []
    for question, prompt, name in zip(questions, prompts, names, strict=True):
        length = count_tokens(prompt)
        if length <= longest:
            fit.append(question)
        else:
            too_long.append(f"{name} has {length} tokens, the model takes {longest}")
    return fit, too_long


def sort_replies(
    questions: Sequence[Question], replies: Sequence[Response | InputError]
) -> Answers[Question]:
    """Returns answers, and what is wrong where there is none.

    Raises:
        InputError: there are no answers.
    """
    pairs = list(zip(questions, replies, strict=True))
    answered = [(question, reply) for question, reply in pairs if isinstance(reply, Response)]
    missing = [str(reply) for _, reply in pairs if isinstance(reply, InputError)]
    if not answered:
        raise InputError(f"nothing could be asked: {missing[0]}")
    return Answers(answered, missing)


def skipped_notices(
    total: int, missing: Sequence[str], too_long: Sequence[str] = (), noun: str = "questions"
) -> list[str]:
    """Returns what must be known of those left out: one line, or none where all were asked.

    Args:
        total: of what was to be asked.
        missing: what is wrong with the recording of each that was not.
        too_long: what is wrong with the prompt of each other that was not.
        noun: what is counted.
    """
    parts = [
        f"{len(missing):,} whose recording is missing or broken" if missing else "",
        f"{len(too_long):,} whose prompt is too long for the model" if too_long else "",
    ]
    count = len(missing) + len(too_long)
    listed = f"{count:,} of {total:,} {noun} left out: {', '.join(filter(None, parts))}"
    return [f"{listed}; they are listed below"] if count else []


def cut_notices(heard: Iterable[tuple[Hashable, bool]]) -> list[str]:
    """Returns what must be known of recordings that were not heard to their ends.

    Args:
        heard: each recording, and whether it was cut; those asked about twice come twice.
    """
    found = dict(heard)
    cut = sum(found.values())
    return [f"Of {cut:,} of {len(found):,} recordings only the beginning was heard"] if cut else []


def skipped_tables(faults: Iterable[str]) -> list[Table]:
    """Returns a table of what was wrong, and with how many; none where nothing was."""
    counts = Counter(faults)
    rows = {why: [Metric(number, is_fraction=False)] for why, number in counts.items()}
    return [Table("Left out", ["questions"], rows)] if rows else []
