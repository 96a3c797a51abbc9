"""Clips that no training has heard, and a model asked about them."""

from pathlib import Path

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import Progress, synthesize
from tinymu_jax.evaluation.synthetic.evaluate import SyntheticResult, evaluate, write_results
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.config import TEST_SEED

MOST_TOKENS = 48
"""Of an answer: more than any caption has."""


def make_test_clips(folder: Path, clips: int, progress: Progress) -> Path:
    """Synthesises clips whose combinations of facts training leaves out; returns their folder.

    Raises:
        InputError: as `synthesize`.
    """
    config = SynthesisConfig(
        clips,
        seconds=nano_recipe.SECONDS,
        seed=TEST_SEED,
        held_out=True,
        open=4,
        choice=3,
        binary=4,
    )
    return synthesize(folder, config, progress)


def examine(
    model: str | Path, folder: Path, output: Path, progress: Progress, whole: bool = False
) -> SyntheticResult:
    """Asks a model about a folder of clips, and keeps its scores and answers.

    Args:
        model: a checkpoint.
        folder: of clips that `synthesize` made.
        output: of scores and answers.
        progress: called with the number of answers so far, and of all.
        whole: also score the options of multiple choice, and ask blind.

    Raises:
        InputError: as `evaluate`.
    """
    from tinymu_jax.inference.load import load

    opened = load(model)
    results = evaluate(opened, folder, whole, whole, max_new_tokens=MOST_TOKENS, progress=progress)
    write_results(results, output)
    return results
