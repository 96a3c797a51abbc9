"""Makes test clips and evaluates models on them."""

from pathlib import Path

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import synthesize
from tinymu_jax.evaluation.synthetic.evaluate import SyntheticResult, evaluate, write_results
from tinymu_jax.inference.load import load
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.config import TEST_SEED
from tinymu_jax.utils.progress import show_progress

MAX_NEW_TOKENS = 48
"""More than any caption has."""


def make_test_clips(folder: Path, clips: int) -> Path:
    """Synthesizes clips with combinations of facts that training leaves out; returns the folder."""
    config = SynthesisConfig(
        clips,
        seconds=nano_recipe.SECONDS,
        seed=TEST_SEED,
        held_out=True,
        open=4,
        choice=3,
        binary=4,
    )
    with show_progress("synthesizing test clips") as progress:
        return synthesize(folder, config, progress)


def evaluate_model(
    checkpoint: str | Path, clips: Path, output: Path, baselines: bool = False
) -> SyntheticResult:
    """Evaluates a model on a folder of synthetic clips; writes its scores and answers.

    Args:
        checkpoint: the model.
        clips: folder that `synthesize` made.
        output: folder of scores and answers.
        baselines: also score the options of multiple choice, and ask without audio and with the
            audio of other clips.
    """
    model = load(checkpoint)
    with show_progress(f"asking {Path(checkpoint).name}") as progress:
        results = evaluate(
            model, clips, baselines, baselines, max_new_tokens=MAX_NEW_TOKENS, progress=progress
        )
    write_results(results, output)
    return results
