"""Text-only baselines for multiple choice: answer the shortest option, or always one letter."""

from collections.abc import Sequence

from tinymu_jax.data.question_formats import LETTERS


def length_baseline(options: Sequence[str], right: int, longest: bool = False) -> float:
    """Returns the probability that choosing the shortest (or longest) option is right.

    Lengths are in characters; among equal lengths, an option is chosen at random. `right` is the
    index of the right option.
    """
    lengths = [len(option) for option in options]
    chosen = max(lengths) if longest else min(lengths)
    return float(lengths[right] == chosen) / lengths.count(chosen)


def option_baselines(questions: Sequence[tuple[Sequence[str], int]]) -> dict[str, list[float]]:
    """Returns, by baseline, the probability of a right answer to each (options, right index)."""
    most = max(len(options) for options, _ in questions)
    return {
        "shortest option": [length_baseline(*question) for question in questions],
        "longest option": [length_baseline(*question, longest=True) for question in questions],
        **{
            f"always {letter}": [float(right == number) for _, right in questions]
            for number, letter in enumerate(LETTERS[:most])
        },
    }
