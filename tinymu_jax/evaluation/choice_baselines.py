"""What multiple choice gives without listening: the shortest option, always the same letter."""

from collections.abc import Sequence

from tinymu_jax.data.questions import LETTERS
from tinymu_jax.evaluation.choice_questions import ChoiceQuestion


def blind_marks(questions: Sequence[ChoiceQuestion]) -> dict[str, list[float]]:
    """Returns how probably each blind rule is right, for each question.

    Of options that are equally short (or long), each is chosen as often.
    """
    most = max(len(question.options) for question in questions)
    return {
        "shortest option": [_by_length(question, 1) for question in questions],
        "longest option": [_by_length(question, -1) for question in questions],
        **{
            f"always {letter}": [float(question.right == number) for question in questions]
            for number, letter in enumerate(LETTERS[:most])
        },
    }


def _by_length(question: ChoiceQuestion, sign: int) -> float:
    lengths = [sign * len(option) for option in question.options]
    right = lengths[question.right]
    return float(right == min(lengths)) / lengths.count(right)
