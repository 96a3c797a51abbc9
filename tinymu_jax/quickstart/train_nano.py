"""A small TinyMU learnt from nothing: its data, its tokenizer, its stages."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinymu_jax.checkpoints.checkpoint import CONFIG_FILE, MODEL_FOLDER, TOKENIZER_FILE
from tinymu_jax.data.config import FeatureConfig, PrepareConfig, SynthesisConfig
from tinymu_jax.data.dataset import DATASET_FILE
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.question_formats import MCQ, QA
from tinymu_jax.data.synthetic.generate import (
    CLIPS,
    LISTS,
    TEXT_LISTS,
    TEXTS,
    Progress,
    make_text,
    synthesize,
)
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.tokenizer import train_tokenizer
from tinymu_jax.training.config import TrainConfig
from tinymu_jax.utils.files import exists, make_folder, read_text, write_text

TEACH_LETTERS = (MCQ, QA)
"""Letters are learnt late, and later still among yes and no and captions."""

TOKENIZER_TEXTS = 2000
"""Clips told in words that the tokenizer is made from."""


def make_tokenizer() -> str:
    """Returns the text of nano's `tokenizer.json`: always the same one."""
    texts = []
    for number in range(TOKENIZER_TEXTS):
        _, told, asked = make_text(SynthesisConfig(), number)
        texts += [told, *(text for one in asked for text in (one.prompt, one.answer))]
    return train_tokenizer(texts)


def make_data(
    folder: Path, config: SynthesisConfig, progress: Progress = lambda done, total: None
) -> None:
    """Synthesises and prepares what nano learns from; what is there is not made again.

    Raises:
        InputError: as `synthesize` and `prepare`.
    """
    tokenizer = make_folder(folder) / TOKENIZER_FILE
    if not exists(tokenizer):
        write_text(tokenizer, make_tokenizer())
    text, music = read_text(tokenizer), folder / nano_recipe.MUSIC
    synthesize(music, config, progress)

    def gather(name: str, settings: PrepareConfig, audio: str, lists: Iterable[str]) -> None:
        """Prepares the questions of lists, those that there are."""
        found = [music / own for own in lists if exists(music / own)]
        if found and not exists(folder / name / DATASET_FILE):
            prepare(found, [music / audio], folder / name, text, settings)

    # More processes would take longer to start than texts take.
    told = PrepareConfig(FeatureConfig(kind="text"), workers=1)
    heard = PrepareConfig(FeatureConfig(max_seconds=config.seconds))
    gather(nano_recipe.SPELT, told, TEXTS, (TEXT_LISTS[task] for task in TEACH_LETTERS))
    gather(TEXTS, told, TEXTS, TEXT_LISTS.values())
    gather(CLIPS, heard, CLIPS, LISTS.values())


def vocabulary_size(folder: Path) -> int:
    """Returns how many tokens the tokenizer of a data folder has."""
    return len(json.loads(read_text(folder / TOKENIZER_FILE))["model"]["vocab"])


def is_done(run: TrainConfig) -> bool:
    """Returns whether a run has come to its end."""
    return exists(Path(run.output) / MODEL_FOLDER / CONFIG_FILE)


def train_stages(
    runs: Mapping[str, TrainConfig], say: Callable[[str], Any] = print
) -> Iterator[tuple[str, Any]]:
    """Does runs one after the other, from where they were stopped.

    Args:
        runs: by their names.
        say: prints a line; called before each.

    Yields:
        Name of each and what came of it (`tinymu_jax.training.run.Trained`; None where it had been done
        before).

    Raises:
        InputError: a run that was done had another config; as `train_alone`.
        KeyboardInterrupt: as `train_alone`.
    """
    from tinymu_jax.training.run_record import is_same_run

    for name, run in runs.items():
        done = is_done(run)
        if done:
            is_same_run(Path(run.output), run, resume=True)
        say(f"  {name}: {'done before' if done else f'{run.steps} steps'}")
        yield name, None if done else train_alone(run)


def train_alone(run: TrainConfig) -> Any:
    """Does a run, or goes on with it, on one device: a step is too small to be parted.

    Returns:
        `tinymu_jax.training.run.Trained`.

    Raises:
        InputError: as `tinymu_jax.training.run.train`.
        KeyboardInterrupt: it was asked to stop; it has been saved, and what follows needs its end.
    """
    import jax

    from tinymu_jax.training.run import train

    trained = train(run, True, jax.devices()[:1])
    if trained.model is None:
        raise KeyboardInterrupt
    return trained


def learn(
    data: Path,
    output: Path,
    minutes: float,
    seed: int = 0,
    say: Callable[[str], Any] = print,
) -> Iterator[tuple[str, Any]]:
    """Trains nano from nothing, stage by stage, from where it was stopped; the last is the whole.

    Args:
        data: folder that `make_data` filled.
        output: of the runs.
        minutes: of training on two cores; a stage has so many steps, whatever the machine.
        seed: of weights and order.
        say: as `train_stages`.

    Yields:
        As `train_stages`.

    Raises:
        InputError: as `train_stages`.
    """
    runs = nano_recipe.stages(
        nano_recipe.places_of(data, output), vocabulary_size(data), minutes, seed
    )
    yield from train_stages(runs, say)
