"""Any list in MusicSkills' format: asked as it stands, marked by the format of each question.

Multiple choice is right by the letter and yes or no by the first word; all else is compared with
the wanted texts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.asking import Asking, Reply
from tinymu_jax.evaluation.findings import Findings
from tinymu_jax.evaluation.intervals import RESAMPLES
from tinymu_jax.evaluation.left_out import sort_by_length, sort_replies
from tinymu_jax.evaluation.list_findings import list_findings
from tinymu_jax.evaluation.list_questions import QuestionList

Put = Callable[[Sequence[Asking]], Sequence[Reply | InputError]]


@dataclass(frozen=True)
class ListConfig:
    """How lists are asked."""

    longest_prompt: int = 129
    """Tokens that the model takes; questions with a longer prompt are left out, and told."""
    seed: int = 0
    """Of the intervals' resamples."""


def evaluate_list(
    put: Put,
    asked: QuestionList,
    checkpoint: str,
    count_tokens: Callable[[str], int],
    config: ListConfig | None = None,
    settings: Mapping[str, str] | None = None,
) -> Findings:
    """Asks all questions of a list and marks the answers.

    Args:
        put: asks; an `InputError` in the place of a reply says that the recording is of no use. It
            is called once.
        asked: at least one question.
        checkpoint: what is evaluated.
        count_tokens: of a prompt.
        config: how they are asked.
        settings: more that the numbers depend on.

    Raises:
        InputError: no question could be asked.
    """
    config = config or ListConfig()
    prompts = [one.prompt for one in asked.questions]
    names = [f"{one.audio}: {one.prompt!r}" for one in asked.questions]
    fit, too_long = sort_by_length(
        asked.questions, prompts, names, count_tokens, config.longest_prompt
    )
    if not fit:
        raise InputError(f"{asked.name}: no question could be asked: {too_long[0]}")
    replies = put([Asking(one.audio, one.prompt, one.task) for one in fit])
    answers = sort_replies(fit, replies)
    intervals = f"95 %, {RESAMPLES:,} resamples of recordings, seed {config.seed}; BLEU has none"
    depends = {"prompts": "those of the list", "intervals": intervals, **(settings or {})}
    named = Findings("list", asked.name, checkpoint, {}, (), settings=depends)
    return list_findings(named, answers, too_long, asked.repeated, config.seed)
