"""Count skipped questions and cut recordings, as warnings and tables of a report."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.evaluation.results import Metric, Table
from tinymu_jax.inference.engine import Response

Item = TypeVar("Item")


class Answers(NamedTuple, Generic[Item]):
    """The answered questions of an evaluation, and the errors of its other questions."""

    answered: list[tuple[Item, Response]]
    """Each answered question with its response."""
    missing: list[str]
    """Error message of each question without a response."""

    @property
    def items(self) -> list[Item]:
        """The answered questions."""
        return [item for item, _ in self.answered]

    @property
    def texts(self) -> list[str]:
        """The text of the response to each question in `items`."""
        return [response.text for _, response in self.answered]


def skip_long_prompts(
    items: Sequence[Item], prompts: Sequence[str], names: Sequence[str], model: EvalModel
) -> tuple[list[Item], list[str]]:
    """Return the questions whose prompts fit the model, and an error for each other question.

    `prompts` and `names` have one text per question; an error begins with the question's name.

    Raises:
        InputError: the model cannot tokenize a prompt.
    """
    fitting, too_long = [], []
    for item, prompt, name in zip(items, prompts, names, strict=True):
        limit = model.max_prompt_tokens
        try:
            length = model.count_tokens(prompt)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        if length <= limit:
            fitting.append(item)
        else:
            too_long.append(f"{name} has {length} tokens, the model takes {limit}")
    return fitting, too_long


def collect_answers(
    items: Sequence[Item], responses: Sequence[Response | InputError]
) -> Answers[Item]:
    """Pair each question with its response, and collect the error messages of the other questions.

    Raises:
        InputError: no question got a response.
    """
    pairs = list(zip(items, responses, strict=True))
    answered = [(item, response) for item, response in pairs if isinstance(response, Response)]
    missing = [str(response) for _, response in pairs if isinstance(response, InputError)]
    if not answered:
        reason = missing[0] if missing else "there is none; name a list with questions"
        raise InputError(f"no question could be asked: {reason}")
    return Answers(answered, missing)


def skipped_notices(
    total: int, missing: Sequence[str], too_long: Sequence[str] = (), noun: str = "questions"
) -> list[str]:
    """Return a list with one warning that counts the skipped questions; empty if none was skipped.

    Args:
        total: the number of all questions.
        missing: an error for each question whose recording is missing or broken.
        too_long: an error for each question whose prompt is too long.
        noun: the word for what is counted, such as "recordings".
    """
    parts = [
        f"{len(missing):,} whose recording is missing or broken" if missing else "",
        f"{len(too_long):,} whose prompt is too long for the model" if too_long else "",
    ]
    count = len(missing) + len(too_long)
    line = f"{count:,} of {total:,} {noun} skipped: {', '.join(filter(None, parts))}"
    return [f"{line}; they are listed below"] if count else []


def cut_notices(recordings: Iterable[tuple[Hashable, bool]]) -> list[str]:
    """Return a list with one warning that counts the cut recordings; empty if none is cut.

    A recording is cut if only its beginning was encoded. `recordings` has pairs of a recording and
    whether it is cut; the same pair may occur several times.
    """
    cut_of = dict(recordings)
    cut = sum(cut_of.values())
    line = f"Of {cut:,} of {len(cut_of):,} recordings only the beginning was encoded"
    return [line] if cut else []


def skipped_tables(errors: Iterable[str]) -> list[Table]:
    """Return a list with one table that counts each error message; empty without errors."""
    rows = {error: [Metric(n, is_fraction=False)] for error, n in Counter(errors).items()}
    return [Table("Skipped", ["questions"], rows)] if rows else []
