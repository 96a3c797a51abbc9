"""A small TinyMU learnt from nothing: its data, its tokenizer, its stages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from configs import nano
from tinymu_jax.checkpoint import CONFIG_FILE, MODEL_FOLDER, TOKENIZER_FILE
from tinymu_jax.data.config import FeatureConfig, PrepareConfig, SynthesisConfig
from tinymu_jax.data.dataset import DATASET_FILE
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.synthetic import (
    CLIPS,
    FACTS_FILE,
    LISTS,
    TEXTS,
    TEXTS_FILE,
    Progress,
    make_text,
    synthesize,
)
from tinymu_jax.data.vocabulary import train_tokenizer
from tinymu_jax.files import exists, make_folder, read_text, write_text
from tinymu_jax.training.config import TrainConfig

MUSIC = "music"
"""Folder of what is synthesised; beside it the prepared `clips` and `texts`."""
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
    text, music = read_text(tokenizer), folder / MUSIC
    synthesize(music, config, progress)
    told, heard = FeatureConfig(store="text"), FeatureConfig(max_seconds=config.seconds)
    lists = [music / name for name in LISTS.values() if exists(music / name)]
    if config.texts and not exists(folder / TEXTS / DATASET_FILE):
        own = PrepareConfig(features=told, workers=1)
        prepare([music / TEXTS_FILE], [music / TEXTS], folder / TEXTS, text, own)
    if not exists(folder / CLIPS / DATASET_FILE):
        prepare(lists, [music / CLIPS], folder / CLIPS, text, PrepareConfig(features=heard))


def vocabulary_size(folder: Path) -> int:
    """Returns how many tokens the tokenizer of a data folder has."""
    return len(json.loads(read_text(folder / TOKENIZER_FILE))["model"]["vocab"])


class Stage(NamedTuple):
    """One of nano's runs."""

    name: str
    config: TrainConfig
    done: bool


def nano_stages(data: Path, output: Path, minutes: float, seed: int = 0) -> list[Stage]:
    """Returns nano's runs in their order, and which of them have come to their end.

    Args:
        data: folder that `make_data` filled.
        output: of the runs.
        minutes: of training on two cores; a stage has so many steps, whatever the machine.
        seed: of weights and order.
    """
    places = nano.Places(
        clips=data / CLIPS,
        texts=data / TEXTS,
        labels=data / MUSIC / FACTS_FILE,
        tokenizer=data / TOKENIZER_FILE,
        output=output,
    )
    runs = nano.stages(places, vocabulary_size(data), minutes, seed)
    return [
        Stage(name, config, exists(output / name / MODEL_FOLDER / CONFIG_FILE))
        for name, config in runs.items()
    ]


def learn(data: Path, output: Path, minutes: float, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """Runs nano's stages one after the other, from where they were stopped.

    Yields:
        Name of each stage and what came of it (`tinymu_jax.runs.Trained`; None where it had been
        done before). The last one's model is the whole.

    Raises:
        InputError: as `tinymu_jax.runs.train`.
    """
    import jax

    from tinymu_jax.runs import train

    # A step is too small to be parted.
    one = jax.devices()[:1]
    for stage in nano_stages(data, output, minutes, seed):
        yield stage.name, None if stage.done else train(stage.config, True, one)
