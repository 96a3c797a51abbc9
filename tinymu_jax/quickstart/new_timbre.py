"""Fine-tune a model with LoRA on an instrument that it does not know, in about a minute."""

from collections.abc import Sequence
from pathlib import Path

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.data.config import FeatureConfig, PrepareConfig, SynthesisConfig
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.question_formats import QA
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE
from tinymu_jax.data.synthetic.generate import CLIPS, LISTS, synthesize
from tinymu_jax.evaluation.synthetic.evaluate import AnsweredItem
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.train_nano import train_on_one_device
from tinymu_jax.training.run import Trained
from tinymu_jax.utils.files import make_folder, write_text
from tinymu_jax.utils.progress import show_progress

NEW, USUAL, TEST = "new", "usual", "test"
"""Folders: training clips with the new timbre, training clips with any timbre, test clips."""
NEW_CLIPS, USUAL_CLIPS = 320, 960
"""Numbers of training clips with the new timbre and with any timbre. With fewer clips of any
timbre, the model forgets the instruments that it knew."""
OPEN_QUESTIONS = 6
"""Open questions per clip. A clip has ten facts, so most clips get a question about the timbre."""


def make_timbre_data(folder: Path, checkpoint: str, seed: int = 0, test_clips: int = 60) -> None:
    """Synthesize training and test clips with a new timbre, and prepare the training data set.

    The training data set also has clips with other timbres, and questions about them offer the new
    timbre as a wrong answer. The tokenizer is taken from the checkpoint.
    """
    tokenizer = open_checkpoint(checkpoint).tokenizer
    make_folder(folder)
    write_text(folder / TOKENIZER_FILE, tokenizer)
    common = {"extra": (NEW_TIMBRE,), "seconds": nano_recipe.SECONDS, "workers": 1}
    new = common | {"timbre": NEW_TIMBRE}
    parts = {
        NEW: SynthesisConfig(NEW_CLIPS, seed=seed + 1, open=OPEN_QUESTIONS, **new),
        USUAL: SynthesisConfig(USUAL_CLIPS, seed=seed + 2, open=OPEN_QUESTIONS, **common),
        TEST: SynthesisConfig(test_clips, seed=seed + 3, held_out=True, open=len(FACTS), **new),
    }
    for name, config in parts.items():
        with show_progress(f"synthesizing {name} clips") as progress:
            synthesize(folder / name, config, progress)
    lists = [folder / name / path for name in (NEW, USUAL) for path in LISTS.values()]
    audio = [folder / name / CLIPS for name in (NEW, USUAL) for _ in LISTS]
    features = FeatureConfig(max_seconds=nano_recipe.SECONDS)
    prepare(lists, audio, folder / CLIPS, tokenizer, PrepareConfig(features, workers=1))


def finetune(folder: Path, checkpoint: str, output: Path, seed: int = 0) -> Trained:
    """Fine-tune a checkpoint on the data in `folder`, or resume the run in `output`.

    `make_timbre_data` writes the data.

    Raises:
        KeyboardInterrupt: a stop was requested; the run has been saved.
    """
    return train_on_one_device(nano_recipe.new_timbre(folder / CLIPS, checkpoint, output, seed))


def timbre_accuracy(rows: Sequence[AnsweredItem]) -> float:
    """Return the fraction of right answers to open questions about the timbre; 0 without any."""
    correct = [row.right for row in rows if row.task == QA and row.facts == ("timbre",)]
    return sum(correct) / max(1, len(correct))
