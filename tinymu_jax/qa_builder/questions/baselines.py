"""Accuracies of rules that answer without audio; on a good set they are near chance."""

from collections import Counter
from collections.abc import Sequence

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.data.question_formats import MCQ, YES_NO
from tinymu_jax.qa_builder.questions.item import YES, QAItem
from tinymu_jax.qa_builder.questions.multiple_choice import OFF, RIGHT

MIN_QUESTIONS = 100
"""Minimum number of yes/no questions about a tag to report its share of yes."""


def choice_baselines(items: Sequence[QAItem]) -> dict[str, float]:
    """Return, by name, the accuracies of rules that answer multiple choice without audio.

    Rules: always one letter; the shortest option; the longest option; the option that is right in
    most other questions; a random option that fits the question (language understanding alone).
    Ties are broken at random.
    """
    asked = [item for item in items if item.task == MCQ and item.options]
    if not asked:
        return {}
    right = [item.kinds.index(RIGHT) for item in asked]
    count = len(asked)
    marks = option_baselines(
        [(item.options, place) for item, place in zip(asked, right, strict=True)]
    )
    accuracies = {name: sum(scores) / count for name, scores in marks.items()}
    accuracies["option most often right"] = _most_often_right(asked, right) / count
    fitting = [sum(kind != OFF for kind in item.kinds) for item in asked]
    accuracies["any option that fits the question"] = sum(1 / n for n in fitting) / count
    return accuracies


def _most_often_right(asked: Sequence[QAItem], right: Sequence[int]) -> float:
    """Count right answers if the option that is right in most other questions is chosen."""
    wins = Counter(item.options[place] for item, place in zip(asked, right, strict=True))
    correct = 0.0
    for item, place in zip(asked, right, strict=True):
        # The right option of the question itself does not count.
        elsewhere = [wins[option] - (number == place) for number, option in enumerate(item.options)]
        if elsewhere[place] == max(elsewhere):
            correct += 1 / elsewhere.count(max(elsewhere))
    return correct


def yes_rates(items: Sequence[QAItem]) -> tuple[float | None, dict[str, tuple[int, float]]]:
    """Return the share of yes answers over all yes/no questions, and by frequent tag.

    The share is None if there are no yes/no questions. The dictionary maps each frequent tag to its
    number of questions and their share of yes.
    """
    by_tag: dict[str, list[bool]] = {}
    for item in items:
        if item.task == YES_NO and item.tags:
            tag = f"{item.category}: {item.tags[0]}"
            by_tag.setdefault(tag, []).append(item.answer == YES)
    total = sum(map(len, by_tag.values()))
    if not total:
        return None, {}
    return sum(map(sum, by_tag.values())) / total, {
        tag: (len(answers), sum(answers) / len(answers))
        for tag, answers in sorted(by_tag.items())
        if len(answers) >= MIN_QUESTIONS
    }
