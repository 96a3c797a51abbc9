"""Train nano, a small TinyMU, from scratch: tokenizer, data and all training stages."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax

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
    make_text,
    synthesize,
)
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.step_cache import log
from tinymu_jax.tokenizer import train_tokenizer
from tinymu_jax.training.config import TrainConfig
from tinymu_jax.training.run import Trained, train
from tinymu_jax.training.run_record import is_same_run
from tinymu_jax.utils.files import exists, make_folder, read_text, write_text
from tinymu_jax.utils.numbers import duration
from tinymu_jax.utils.progress import show_progress

LETTER_TASKS = (MCQ, QA)
"""Question formats of the first stage, in which the decoder learns to answer by letter. With more
formats, it learns this much later."""
TOKENIZER_TEXTS = 2000
"""Number of clips whose descriptions and questions the tokenizer is trained on."""


def make_tokenizer() -> str:
    """Train nano's tokenizer on fixed synthetic texts; return the content of tokenizer.json."""
    texts = []
    for number in range(TOKENIZER_TEXTS):
        _, description, questions = make_text(SynthesisConfig(), number)
        texts.append(description)
        texts += [text for one in questions for text in (one.prompt, one.answer)]
    return train_tokenizer(texts)


def make_data(folder: Path, config: SynthesisConfig) -> None:
    """Write nano's tokenizer, synthetic music and data sets to a folder, unless they exist."""
    tokenizer = make_folder(folder) / TOKENIZER_FILE
    if not exists(tokenizer):
        write_text(tokenizer, make_tokenizer())
    tokenizer_json, music = read_text(tokenizer), folder / nano_recipe.MUSIC
    with show_progress("synthesizing") as progress:
        synthesize(music, config, progress)

    def prepare_once(name: str, settings: PrepareConfig, audio: str, lists: Iterable[str]) -> None:
        # A question format without questions has no list.
        existing = [music / path for path in lists if exists(music / path)]
        if existing and not exists(folder / name / DATASET_FILE):
            prepare(existing, [music / audio], folder / name, tokenizer_json, settings)

    # Starting more processes would take longer than preparing the texts.
    text = PrepareConfig(FeatureConfig(kind="text"), workers=1)
    audio = PrepareConfig(FeatureConfig(max_seconds=config.seconds))
    letter_lists = (TEXT_LISTS[task] for task in LETTER_TASKS)
    prepare_once(nano_recipe.LETTER_TEXTS, text, TEXTS, letter_lists)
    prepare_once(TEXTS, text, TEXTS, TEXT_LISTS.values())
    prepare_once(CLIPS, audio, CLIPS, LISTS.values())


def read_vocab_size(folder: Path) -> int:
    """Return the number of tokens of the tokenizer in a folder that `make_data` wrote."""
    return len(json.loads(read_text(folder / TOKENIZER_FILE))["model"]["vocab"])


def train_stages(stages: Mapping[str, TrainConfig]) -> dict[str, float | None]:
    """Train stages one after the other; skip finished stages and resume an interrupted one.

    Returns the training time of each stage in seconds; None for stages that were already finished.

    Raises:
        InputError: a stage was finished with another config.
        KeyboardInterrupt: a stop was requested; the state of the stage has been saved.
    """
    seconds: dict[str, float | None] = {}
    for name, config in stages.items():
        if exists(Path(config.output) / MODEL_FOLDER / CONFIG_FILE):
            is_same_run(Path(config.output), config, resume=True)
            log(f"  {name}: done before")
            seconds[name] = None
            continue
        log(f"  {name}: {config.steps} steps")
        start = time.monotonic()
        train_on_one_device(config)
        seconds[name] = time.monotonic() - start
        log(f"  {name}: {duration(seconds[name])}")
    return seconds


def train_on_one_device(config: TrainConfig) -> Trained:
    """Train a model on one device, or resume its run; nano is too small for more devices.

    Raises:
        KeyboardInterrupt: a stop was requested; the run has been saved.
    """
    trained = train(config, True, jax.devices()[:1])
    if trained.model is None:
        raise KeyboardInterrupt
    return trained


def train_nano(data: Path, output: Path, minutes: float, seed: int = 0) -> dict[str, float | None]:
    """Train nano, a small TinyMU, from scratch in `minutes` on two CPU cores.

    `data` is the folder that `make_data` wrote; `output` gets one training run per stage. Returns
    the training time of each stage in seconds; None for stages that were already finished.
    """
    paths = nano_recipe.run_paths(data, output)
    return train_stages(nano_recipe.stages(paths, read_vocab_size(data), minutes, seed))
