"""Text-only baselines for multiple choice: answer the shortest option, or always one letter."""

from collections.abc import Sequence

from tinymu_jax.data.question_formats import LETTERS


def length_baseline(options: Sequence[str], right: int, longest: bool = False) -> float:
    """Returns the probability of a right answer if the shortest option is chosen.

    If `longest`, the longest option is chosen. Lengths are in characters; among options of equal
    length, one is chosen at random. `right` is the index of the right option.
    """
    lengths = [len(option) for option in options]
    chosen = max(lengths) if longest else min(lengths)
    return float(lengths[right] == chosen) / lengths.count(chosen)


def option_baselines(questions: Sequence[tuple[Sequence[str], int]]) -> dict[str, list[float]]:
    """Returns the probability of a right answer to each question, for each baseline by name.

    A question is its options and the index of the right option.
    """
    most = max(len(options) for options, _ in questions)
    return {
        "shortest option": [length_baseline(*question) for question in questions],
        "longest option": [length_baseline(*question, longest=True) for question in questions],
        **{
            f"always {letter}": [float(right == number) for _, right in questions]
            for number, letter in enumerate(LETTERS[:most])
        },
    }
