"""Text-only baselines for multiple choice, such as choosing the shortest option."""

from collections.abc import Sequence

from tinymu_jax.data.question_formats import LETTERS


def length_baseline(options: Sequence[str], right: int, longest: bool = False) -> float:
    """Return the probability that the shortest option (or the `longest`) is the right one.

    Lengths are in characters; ties are broken at random. `right` is the right option's index.
    """
    lengths = [len(option) for option in options]
    chosen = max(lengths) if longest else min(lengths)
    return float(lengths[right] == chosen) / lengths.count(chosen)


def option_baselines(questions: Sequence[tuple[Sequence[str], int]]) -> dict[str, list[float]]:
    """Map each baseline's name to its probabilities of answering right, one per question.

    A question is a pair of its options and the index of the right option.
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
