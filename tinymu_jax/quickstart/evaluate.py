"""Synthesize test clips, and evaluate models on synthetic clips."""

from pathlib import Path

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import synthesize
from tinymu_jax.evaluation.synthetic.evaluate import SyntheticResult, evaluate, write_results
from tinymu_jax.inference.load import load
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.config import TEST_SEED
from tinymu_jax.utils.progress import show_progress

MAX_NEW_TOKENS = 48
"""Maximum number of tokens of an answer; even captions have fewer."""


def make_test_clips(folder: Path, clips: int) -> Path:
    """Synthesize test clips with attribute combinations unseen in training; return the folder."""
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
    checkpoint: str | Path,
    clips: Path,
    output: Path,
    baselines: bool = False,
    keep_damaged: bool = False,
) -> SyntheticResult:
    """Ask a model all questions about a folder of synthetic clips, and grade the answers.

    `clips` is a folder that `synthesize` wrote; scores and answers go to `output`. With
    `baselines`, multiple-choice options are also scored by likelihood, and every question is also
    asked without audio and with the next clip's audio. `keep_damaged` is whether to use what can be
    read of damaged clips.
    """
    model = load(checkpoint, keep_damaged=keep_damaged)
    with show_progress(f"asking {Path(checkpoint).name}") as progress:
        results = evaluate(
            model, clips, baselines, baselines, max_new_tokens=MAX_NEW_TOKENS, progress=progress
        )
    write_results(results, output)
    return results
