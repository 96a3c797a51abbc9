"""Questions without an answer: counted in a report's notices and listed in its last table."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.evaluation.results import Metric, Table
from tinymu_jax.inference.engine import Response

Item = TypeVar("Item")


class Answers(NamedTuple, Generic[Item]):
    """The responses to some questions."""

    answered: list[tuple[Item, Response]]
    missing: list[str]
    """The error of each question without a response."""

    @property
    def items(self) -> list[Item]:
        """Returns the answered questions."""
        return [item for item, _ in self.answered]

    @property
    def texts(self) -> list[str]:
        """Returns their responses' texts."""
        return [response.text for _, response in self.answered]


def skip_long_prompts(
    items: Sequence[Item], prompts: Sequence[str], names: Sequence[str], model: EvalModel
) -> tuple[list[Item], list[str]]:
    """Returns the questions whose prompts fit the model, and an error for each other one.

    Args:
        items: the questions.
        prompts: of each.
        names: of each, for the errors.
        model: its tokenizer and limit.
    """
    fitting, too_long = [], []
    for item, prompt, name in zip(items, prompts, names, strict=True):
        length, limit = model.count_tokens(prompt), model.max_prompt_tokens
        if length <= limit:
            fitting.append(item)
        else:
            too_long.append(f"{name} has {length} tokens, the model takes {limit}")
    return fitting, too_long


def collect_answers(
    items: Sequence[Item], responses: Sequence[Response | InputError]
) -> Answers[Item]:
    """Separates responses from errors.

    Raises:
        InputError: there are no responses.
    """
    pairs = list(zip(items, responses, strict=True))
    answered = [(item, response) for item, response in pairs if isinstance(response, Response)]
    missing = [str(response) for _, response in pairs if isinstance(response, InputError)]
    if not answered:
        raise InputError(f"no question could be asked: {missing[0]}")
    return Answers(answered, missing)


def skipped_notices(
    total: int, missing: Sequence[str], too_long: Sequence[str] = (), noun: str = "questions"
) -> list[str]:
    """Returns one line on what was skipped, or none if nothing was.

    Args:
        total: of all questions.
        missing: errors of recordings.
        too_long: errors of prompts.
        noun: what is counted.
    """
    parts = [
        f"{len(missing):,} whose recording is missing or broken" if missing else "",
        f"{len(too_long):,} whose prompt is too long for the model" if too_long else "",
    ]
    count = len(missing) + len(too_long)
    line = f"{count:,} of {total:,} {noun} skipped: {', '.join(filter(None, parts))}"
    return [f"{line}; they are listed below"] if count else []


def cut_notices(recordings: Iterable[tuple[Hashable, bool]]) -> list[str]:
    """Returns one line on recordings of which only the beginning was encoded, or none.

    Args:
        recordings: each with whether it was cut; repeated ones count once.
    """
    cut_of = dict(recordings)
    cut = sum(cut_of.values())
    line = f"Of {cut:,} of {len(cut_of):,} recordings only the beginning was encoded"
    return [line] if cut else []


def skipped_tables(errors: Iterable[str]) -> list[Table]:
    """Returns a table of errors and their counts; no table without errors."""
    rows = {error: [Metric(n, is_fraction=False)] for error, n in Counter(errors).items()}
    return [Table("Skipped", ["questions"], rows)] if rows else []
