"""What can be had on a built set without listening: it should be no more than chance."""

from collections import Counter
from collections.abc import Sequence

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.data.question_formats import MCQ, YES_NO
from tinymu_jax.qa_builder.questions.item import QAItem

ENOUGH = 100
"""Questions for yes or no about a tag from which on its share of yes is told."""


def choice_baselines(items: Sequence[QAItem]) -> dict[str, float]:
    """Returns the shares of multiple choice that are right by a rule that hears nothing.

    Always one letter; the shortest and the longest option, equal ones sharing; the option that is
    right in the most other questions; and any option that is not off the question: what one
    reaches who only understands the question.
    """
    asked = [item for item in items if item.task == MCQ and item.options]
    if not asked:
        return {}
    right = [item.kinds.index("right") for item in asked]
    count = len(asked)
    marks = option_baselines(
        [(item.options, place) for item, place in zip(asked, right, strict=True)]
    )
    found = {name: sum(own) / count for name, own in marks.items()}
    found["option most often right"] = _most_often_right(asked, right) / count
    on = [sum(kind != "off the question" for kind in item.kinds) for item in asked]
    found["any option that fits the question"] = sum(1 / options for options in on) / count
    return found


def _most_often_right(asked: Sequence[QAItem], right: Sequence[int]) -> float:
    """Returns how many are right by the option that is right most often elsewhere."""
    wins = Counter(item.options[place] for item, place in zip(asked, right, strict=True))
    hits = 0.0
    for item, place in zip(asked, right, strict=True):
        # The question's own answer is not known to who guesses it.
        elsewhere = [wins[option] - (number == place) for number, option in enumerate(item.options)]
        if elsewhere[place] == max(elsewhere):
            hits += 1 / elsewhere.count(max(elsewhere))
    return hits


def yes_rates(items: Sequence[QAItem]) -> tuple[float | None, dict[str, tuple[int, float]]]:
    """Returns the share of yes, and number and share of each tag with `ENOUGH` questions."""
    asked = [item for item in items if item.task == YES_NO and item.tags]
    if not asked:
        return None, {}
    by_tag: dict[str, list[bool]] = {}
    for item in asked:
        name = f"{item.category}: {item.tags[0]}"
        by_tag.setdefault(name, []).append(item.answer == "Yes.")
    overall = sum(map(sum, by_tag.values())) / len(asked)
    return overall, {
        tag: (len(own), sum(own) / len(own))
        for tag, own in sorted(by_tag.items())
        if len(own) >= ENOUGH
    }
