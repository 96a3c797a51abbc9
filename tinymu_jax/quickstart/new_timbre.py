"""Teaching a model an instrument that it has never heard, with LoRA, in about a minute."""

from collections.abc import Sequence
from pathlib import Path

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.data.config import FeatureConfig, PrepareConfig, SynthesisConfig
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.question_formats import QA
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE
from tinymu_jax.data.synthetic.generate import CLIPS, LISTS, Progress, synthesize
from tinymu_jax.evaluation.synthetic.evaluate import AnsweredItem
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.train_nano import train_alone
from tinymu_jax.training.run import Trained
from tinymu_jax.utils.files import make_folder, write_text

NEW, USUAL, TEST = "new", "usual", "test"
"""Folders of clips: all with the new timbre, with any, and others of the new one to test with."""

NEW_CLIPS, USUAL_CLIPS = 320, 960
"""Clips of the new timbre, and of any: with fewer of these, what was known is forgotten."""

OPEN = 6
"""Open questions about each clip, of ten facts: most ask for the instrument among others."""


def make_timbre_data(
    folder: Path,
    checkpoint: str,
    seed: int = 0,
    test_clips: int = 60,
    progress: Progress = lambda done, total: None,
) -> None:
    """Synthesises and prepares clips with the new timbre, among clips with any.

    What it has learnt stays only if it is asked about the usual ones too, and they are offered the
    new one as a wrong answer.

    Raises:
        InputError: as `synthesize` and `prepare`.
    """
    tokenizer = open_checkpoint(checkpoint).tokenizer
    make_folder(folder)
    write_text(folder / TOKENIZER_FILE, tokenizer)
    common = {"extra": (NEW_TIMBRE,), "seconds": nano_recipe.SECONDS, "workers": 1}
    new = common | {"timbre": NEW_TIMBRE}
    parts = {
        NEW: SynthesisConfig(NEW_CLIPS, seed=seed + 1, open=OPEN, **new),
        USUAL: SynthesisConfig(USUAL_CLIPS, seed=seed + 2, open=OPEN, **common),
        TEST: SynthesisConfig(test_clips, seed=seed + 3, held_out=True, open=len(FACTS), **new),
    }
    for name, config in parts.items():
        synthesize(folder / name, config, progress)
    lists = [folder / name / path for name in (NEW, USUAL) for path in LISTS.values()]
    audio = [folder / name / CLIPS for name in (NEW, USUAL) for _ in LISTS]
    features = FeatureConfig(max_seconds=nano_recipe.SECONDS)
    prepare(lists, audio, folder / CLIPS, tokenizer, PrepareConfig(features, workers=1))


def teach(folder: Path, checkpoint: str, output: Path, seed: int = 0) -> Trained:
    """Fine-tunes a model on what `make_timbre_data` made; goes on where it was stopped.

    Raises:
        InputError: as `train_alone`.
        KeyboardInterrupt: as `train_alone`.
    """
    config = nano_recipe.new_timbre(folder / CLIPS, checkpoint, output, seed)
    return train_alone(config)


def share_named(rows: Sequence[AnsweredItem]) -> float:
    """Returns the share (0 to 1) of open questions about the timbre that are answered rightly.

    Args:
        rows: answers of `evaluate`; 0 if none is such a question.
    """
    named = [row.right for row in rows if row.task == QA and row.facts == ("timbre",)]
    return sum(named) / max(1, len(named))
