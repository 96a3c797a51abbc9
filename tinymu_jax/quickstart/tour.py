"""The steps of `tinymu quickstart`: each leaves its numbers in the folder, and is not done twice.

test/            clips whose combinations of facts no training has seen
nothing/         data and runs of the model that learns from nothing
timbre/          data and run of the new instrument
export/          the shipped model for PyTorch
results/         what came of each step (json), all answers, pictures
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import CLIPS, Progress
from tinymu_jax.evaluation.synthetic.evaluate import SyntheticResult
from tinymu_jax.evaluation.synthetic.plots import plot_facts, plot_question
from tinymu_jax.inference.load import load
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.config import LEAST_CLIPS, TourConfig
from tinymu_jax.quickstart.evaluate import examine, make_test_clips
from tinymu_jax.quickstart.new_timbre import TEST, make_timbre_data, share_named, teach
from tinymu_jax.quickstart.step_cache import Ledger
from tinymu_jax.quickstart.train_nano import learn, make_data
from tinymu_jax.training.plots import plot_losses
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import make_folder
from tinymu_jax.utils.tree import flatten

RESULTS = "results"

CLIPS_A_MINUTE = 1200
"""Clips that are synthesised for each minute of training, up to `MOST_CLIPS`."""

MOST_CLIPS = 24_000


class Tour:
    """All steps over one folder."""

    def __init__(
        self,
        config: TourConfig,
        say: Callable[[str], Any] = print,
        progress: Callable[[str], Progress] = lambda doing: lambda done, total: None,
    ) -> None:
        """Takes what is shown, and how.

        Args:
            config: what.
            say: prints a line.
            progress: returns what shows how far something is, by what it is called.

        Raises:
            InputError: minutes, clips or a seed that cannot be.
        """
        config.check()
        self.config, self.say, self.progress = config, say, progress
        self.folder = config.output
        self.results = self.folder / RESULTS
        self.ledger = Ledger(self.results, say)

    def step(self, name: str, doing: str, do: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Does a step once (`Ledger.step`), with the options that its numbers depend on."""
        config, options = self.config, {"test_clips": self.config.test_clips}
        if name in ("nothing", "timbre"):
            options["seed"] = config.seed
        if name == "nothing":
            options["minutes"] = config.minutes
        else:
            # Other weights may come to stand where these do.
            weights = fingerprint.of_weights(open_checkpoint(config.checkpoint).params)
            options |= {"checkpoint": config.checkpoint, "weights": weights}
        return self.ledger.step(name, doing, options, do)

    def test_folder(self) -> Path:
        """Returns the clips to test with; makes them where they are not there yet."""
        config = self.config
        return make_test_clips(
            self.folder / "test", config.test_clips, self.progress("synthesising")
        )

    def examine(
        self, name: str, model: str | Path, folder: Path, whole: bool = False
    ) -> SyntheticResult:
        """Tests a model on a folder of clips (`testing.examine`) by the name of its results."""
        progress = self.progress(f"asking {name}")
        return examine(model, folder, self.results / name, progress, whole)

    def listen(self) -> dict[str, Any]:
        """Tests the shipped model, and draws what it was asked about one clip."""

        def do() -> dict[str, Any]:
            folder = self.test_folder()
            results = self.examine("shipped", self.config.checkpoint, folder, whole=True)
            # One that it got right, if there is any.
            row = max((row for row in results.rows if row.task == "QA"), key=lambda r: r.right)
            clip, title = folder / CLIPS / row.clip, "Accuracy by fact, shipped nano"
            plot_question(clip, row, self.results / "question.png")
            plot_facts(results.scores, self.results / "facts.png", title)
            example = {"clip": row.clip, "prompt": row.prompt, "answer": row.answer}
            return {"scores": results.scores.to_dict(), "example": example}

        return self.step("shipped", "shipped nano tested on clips it has never heard", do)

    def learn(self) -> dict[str, Any]:
        """Trains a model from nothing, and tests it."""
        config, own = self.config, self.folder / "nothing"

        def do() -> dict[str, Any]:
            count = min(round(CLIPS_A_MINUTE * config.minutes), MOST_CLIPS)
            count = max(count, LEAST_CLIPS)
            music = SynthesisConfig(count, count, seconds=nano_recipe.SECONDS, seed=config.seed)
            make_data(own / "data", music, self.progress("synthesising"))
            seconds = {}
            stages = learn(own / "data", own, config.minutes, config.seed, self.say)
            for name, spent in _timed(stages):
                seconds[name] = spent
                if spent is not None:
                    self.say(f"  {name}: {spent:.0f} s")
            title = f"Nano from nothing, {config.minutes:g} minutes"
            runs = {name: own / name for name in seconds}
            plot_losses(runs, self.results / "loss.png", title)
            model = own / nano_recipe.TUNE
            results = self.examine("nothing", model, self.test_folder())
            return {"scores": results.scores.to_dict(), "stages": seconds, "model": str(model)}

        return self.step("nothing", f"a model from nothing, {config.minutes:g} minutes", do)

    def teach(self) -> dict[str, Any]:
        """Teaches the shipped model a new timbre; tests it before and after."""
        config, own = self.config, self.folder / "timbre"

        def do() -> dict[str, Any]:
            progress = self.progress("synthesising")
            clips = max(1, config.test_clips // 2)
            make_timbre_data(own, config.checkpoint, config.seed, clips, progress)
            taught = teach(own, config.checkpoint, own / "run", config.seed).model
            found = {}
            for when, model in (("before", config.checkpoint), ("after", taught)):
                for what, folder in (("new", own / TEST), ("usual", self.test_folder())):
                    name = f"{what}_{when}"
                    results = self.examine(name, model, folder)
                    found[name] = results.scores.to_dict() | {"named": share_named(results.rows)}
            return found

        return self.step("timbre", "the shipped nano taught a new instrument", do)

    def carry(self) -> dict[str, Any]:
        """Writes the shipped model for PyTorch, reads it back, and compares the two."""

        def do() -> dict[str, Any]:
            folder = self.test_folder()
            clips = sorted((folder / CLIPS).glob("*.wav"))[:5]
            target = make_folder(self.folder / "export") / "tinymu_nano.pt"
            return carry_over(self.config.checkpoint, target, clips)

        return self.step("export", "the shipped nano to PyTorch and back", do)


def carry_over(checkpoint: str, target: Path, clips: Sequence[Path]) -> dict[str, Any]:
    """Writes a checkpoint as PyTorch's, reads it back, and asks both about some clips.

    Raises:
        InputError: the place cannot be written to.
    """
    from tinymu_jax.checkpoints.pytorch.write import write_model
    from tinymu_jax.inference.compare import compare_models

    opened = open_checkpoint(checkpoint)
    write_model(opened, target)
    back = dict(flatten(open_checkpoint(target).params))
    equal = all(np.array_equal(leaf, back[path]) for path, leaf in flatten(opened.params))
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


def _timed(stages: Any) -> Any:
    """Yields the name of each stage with its seconds; None where it had been done before."""
    began = time.monotonic()
    for name, done in stages:
        yield name, None if done is None else time.monotonic() - began
        began = time.monotonic()
