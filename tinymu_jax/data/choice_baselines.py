"""What multiple choice gives without listening: the shortest option, always the same letter."""

from collections.abc import Sequence

from tinymu_jax.data.question_formats import LETTERS


def length_baseline(options: Sequence[str], right: int, longest: bool = False) -> float:
    """Returns how probably the shortest option, or the longest, is right; equal ones share.

    Args:
        options: their texts; length is in characters.
        right: number of the right one, from 0.
        longest: whether the longest is taken.
    """
    lengths = [len(option) for option in options]
    best = max(lengths) if longest else min(lengths)
    return float(lengths[right] == best) / lengths.count(best)


def option_baselines(asked: Sequence[tuple[Sequence[str], int]]) -> dict[str, list[float]]:
    """Returns how probably each blind rule is right, for each question.

    Args:
        asked: the options of each question, and the number of the right one, from 0.
    """
    most = max(len(options) for options, _ in asked)
    return {
        "shortest option": [length_baseline(*one) for one in asked],
        "longest option": [length_baseline(*one, longest=True) for one in asked],
        **{
            f"always {letter}": [float(right == number) for _, right in asked]
            for number, letter in enumerate(LETTERS[:most])
        },
    }
