"""The steps of `tinymu quickstart`: each runs once and caches its result in the output folder.

test_clips/   clips with combinations of musical facts that no training clip has
train/        training data and training runs of the model trained from scratch
finetune/     training data and training run for the new instrument
export/       the tested checkpoint, exported to PyTorch
results/      result of each step (JSON), all answers, plots
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.checkpoints.pytorch.convert import write_model
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import CLIPS
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.synthetic.evaluate import SyntheticResult
from tinymu_jax.evaluation.synthetic.plots import plot_facts, plot_question
from tinymu_jax.inference.compare import compare_models
from tinymu_jax.inference.load import load
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.quickstart import nano_recipe, new_timbre
from tinymu_jax.quickstart.config import MIN_CLIPS, RESULTS, TEST_CLIPS, TourConfig
from tinymu_jax.quickstart.evaluate import evaluate_model, make_test_clips
from tinymu_jax.quickstart.step_cache import StepCache
from tinymu_jax.quickstart.train_nano import make_data, train_nano
from tinymu_jax.training.plots import plot_losses
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import make_folder
from tinymu_jax.utils.tree import flatten

CLIPS_PER_MINUTE = 1200
"""Training clips synthesized per minute of training time, up to `MAX_CLIPS` in all."""
MAX_CLIPS = 24_000


class Tour:
    """Steps of the quickstart in one output folder; raises `InputError` for invalid settings."""

    def __init__(self, config: TourConfig) -> None:
        config.check()
        self.config, self.folder = config, config.output
        self.results = self.folder / RESULTS
        self.cache = StepCache(self.results)

    def run(
        self, name: str, title: str, compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return a step's cached result, or else compute and cache it.

        Raises `InputError` if the cached result is from other settings or, in all steps but
        "train", from other weights of `config.checkpoint`.
        """
        config, options = self.config, {"test_clips": self.config.test_clips}
        if name in ("train", "finetune"):
            options["seed"] = config.seed
        if name == "train":
            options["minutes"] = config.minutes
        else:
            # The checkpoint's weights may change under the same name.
            checkpoint = open_checkpoint(config.checkpoint)
            if not isinstance(checkpoint.config, TinyMUConfig):
                raise InputError(f"{config.checkpoint}: is no TinyMU; name a TinyMU checkpoint")
            weights = fingerprint.of_weights(checkpoint.params)
            options |= {"checkpoint": config.checkpoint, "weights": weights}
        return self.cache.run(name, title, options, compute)

    def test_clips(self) -> Path:
        """Return the folder of test clips; synthesize them if they do not exist."""
        return make_test_clips(self.folder / TEST_CLIPS, self.config.test_clips)

    def evaluate(
        self, name: str, model: str | Path, clips: Path, baselines: bool = False
    ) -> SyntheticResult:
        """Evaluate a model with `evaluate_model`; write scores and answers to results/`name`."""
        return evaluate_model(model, clips, self.results / name, baselines)

    def test(self) -> dict[str, Any]:
        """Test `config.checkpoint` and plot its accuracy; return the scores and one answer."""

        def compute() -> dict[str, Any]:
            clips = self.test_clips()
            results = self.evaluate("test", self.config.checkpoint, clips, baselines=True)
            # Prefer an open question with a correct answer.
            row = max((row for row in results.rows if row.task == "QA"), key=lambda r: r.right)
            plot_question(clips / CLIPS / row.clip, row, self.results / "question.png")
            title = "Accuracy by fact, shipped nano"
            plot_facts(results.scores, self.results / "facts.png", title)
            example = {"clip": row.clip, "prompt": row.prompt, "answer": row.answer}
            return {"scores": results.scores.to_dict(), "example": example}

        return self.run("test", "test the shipped model on new clips", compute)

    def train(self) -> dict[str, Any]:
        """Train a model from scratch and test it; return scores, stage times and model path."""
        config, folder = self.config, self.folder / "train"

        def compute() -> dict[str, Any]:
            clips = max(min(round(CLIPS_PER_MINUTE * config.minutes), MAX_CLIPS), MIN_CLIPS)
            music = SynthesisConfig(clips, clips, seconds=nano_recipe.SECONDS, seed=config.seed)
            make_data(folder / "data", music)
            seconds = train_nano(folder / "data", folder, config.minutes, config.seed)
            title = f"Nano from scratch, {config.minutes:g} minutes"
            plot_losses({name: folder / name for name in seconds}, self.results / "loss.png", title)
            model = folder / nano_recipe.TUNE
            results = self.evaluate("train", model, self.test_clips())
            return {"scores": results.scores.to_dict(), "stages": seconds, "model": str(model)}

        return self.run("train", f"train from scratch, {config.minutes:g} minutes", compute)

    def finetune(self) -> dict[str, Any]:
        """Fine-tune `config.checkpoint` on a new timbre; return the scores before and after."""
        config, folder = self.config, self.folder / "finetune"

        def compute() -> dict[str, Any]:
            clips = max(1, config.test_clips // 2)
            new_timbre.make_timbre_data(folder, config.checkpoint, config.seed, clips)
            finetuned = new_timbre.finetune(
                folder, config.checkpoint, folder / "run", config.seed
            ).model
            scores = {}
            for when, model in (("before", config.checkpoint), ("after", finetuned)):
                for what, test in (("new", folder / new_timbre.TEST), ("usual", self.test_clips())):
                    results = self.evaluate(f"{what}_{when}", model, test)
                    accuracy = new_timbre.timbre_accuracy(results.rows)
                    scores[f"{what}_{when}"] = results.scores.to_dict() | {"named": accuracy}
            return scores

        return self.run("finetune", "fine-tune the shipped model on a new instrument", compute)

    def export(self) -> dict[str, Any]:
        """Export `config.checkpoint` to PyTorch, read it back, and return a comparison of both."""

        def compute() -> dict[str, Any]:
            clips = sorted((self.test_clips() / CLIPS).glob("*.wav"))[:5]
            target = make_folder(self.folder / "export") / "tinymu_nano.pt"
            return export_and_compare(self.config.checkpoint, target, clips)

        return self.run("export", "export the shipped model to PyTorch and read it back", compute)


def export_and_compare(checkpoint: str, target: Path, clips: Sequence[Path]) -> dict[str, Any]:
    """Export a checkpoint to the PyTorch file `target`, read it back, and compare the models.

    Returns whether all weights are equal, the largest logit difference, and the number of equal
    tokens in the models' descriptions of the clips.

    Raises:
        InputError: the file cannot be written.
    """
    opened = open_checkpoint(checkpoint)
    write_model(opened, target)
    read_back = dict(flatten(open_checkpoint(target).params))
    equal = all(np.array_equal(leaf, read_back[path]) for path, leaf in flatten(opened.params))
    first, second = load(checkpoint), load(target)
    ids = first.encode_prompt("Describe the music in full.")
    rows = [compare_models(first, second, clip, ids) for clip in clips]
    return {
        "file": str(target),
        "weights_equal": equal,
        "logit_difference": max(row.logit_difference for row in rows),
        "equal_tokens": sum(row.equal_tokens for row in rows),
        "tokens": sum(row.tokens for row in rows),
    }
