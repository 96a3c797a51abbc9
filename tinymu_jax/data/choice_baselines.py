"""Text-only baselines of multiple choice: the shortest option, always the same letter."""

from collections.abc import Sequence

from tinymu_jax.data.question_formats import LETTERS


def length_baseline(options: Sequence[str], right: int, longest: bool = False) -> float:
    """Returns the probability that the shortest or longest option is right; ties are shared.

    Lengths are in characters; `right` is an index.
    """
    lengths = [len(option) for option in options]
    chosen = max(lengths) if longest else min(lengths)
    return float(lengths[right] == chosen) / lengths.count(chosen)


def option_baselines(questions: Sequence[tuple[Sequence[str], int]]) -> dict[str, list[float]]:
    """Returns the probability that each baseline is right, per (options, index of the right)."""
    most = max(len(options) for options, _ in questions)
    return {
        "shortest option": [length_baseline(*question) for question in questions],
        "longest option": [length_baseline(*question, longest=True) for question in questions],
        **{
            f"always {letter}": [float(right == number) for _, right in questions]
            for number, letter in enumerate(LETTERS[:most])
        },
    }
