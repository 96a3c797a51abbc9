"""Nano: TinyMU at small width, trained from scratch on synthetic music.

    tinymu quickstart --only train --minutes 4

Stages as for the real model: the decoder learns from text (answering by letter first), the encoder
from labels, then the projector is trained between the two, then projector and decoder together, as
published. Training the encoder in the last stage too takes twice the time for the same loss.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE
from tinymu_jax.data.synthetic.generate import CLIPS, FACTS_FILE, TEXTS
from tinymu_jax.models.config import (
    LORA_TARGETS,
    LoraConfig,
    MatpacConfig,
    ProjectorConfig,
    SmolLM2Config,
    TinyMUConfig,
)
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import (
    DataConfig,
    InitConfig,
    LoopConfig,
    OptimConfig,
    StepConfig,
    TrainConfig,
)

SECONDS = 4.0
"""Length of a clip."""


def model(vocab_size: int) -> TinyMUConfig:
    """Returns the model config: 2.4 million parameters.

    The projector is the paper's transformer variant, which learns far more in a few minutes than
    the published linear one (docs/nano.md, ablations).
    """
    return TinyMUConfig(
        encoder=MatpacConfig(width=160, depth=4, num_heads=5, num_frames=400),
        projector=ProjectorConfig(
            kind="transformer",
            input_width=800,
            hidden_width=256,
            output_width=128,
            num_vectors=25,
            depth=4,
            num_heads=4,
        ),
        decoder=SmolLM2Config(
            vocab_size=vocab_size,
            width=128,
            depth=4,
            num_heads=4,
            num_kv_heads=2,
            head_width=32,
            mlp_width=160,
        ),
        max_text_tokens=64,
        max_seconds=SECONDS,
    )


MATRICES = r"encoder/(patch_embed|transformer)/.*kernel|projector/.*kernel|decoder/body/.*kernel"

CONSTANT = r"encoder/(pos_embed|log_mel/.*)"
"""Fixed tables of the encoder."""

OPTIM = OptimConfig(learning_rate=1.5e-3, beta2=0.98, muon_params=MATRICES, muon_learning_rate=0.02)

# Letters are learnt late and suddenly, and not at a low learning rate.
LETTERS_OPTIM = replace(OPTIM, frozen_params=r"(encoder|projector)/.*", hold_fraction=0.9)

WORDS_OPTIM = replace(LETTERS_OPTIM, hold_fraction=0.4)

LABELS_OPTIM = replace(
    OPTIM,
    muon_learning_rate=0.01,
    hold_fraction=0.5,
    frozen_params=rf"(projector|decoder)/.*|{CONSTANT}",
)

JOIN_OPTIM = replace(OPTIM, frozen_params=r"(encoder|decoder)/.*")

# Higher learning rates undo what the decoder has learnt from text.
TUNE_OPTIM = replace(
    OPTIM, learning_rate=1e-3, muon_learning_rate=0.003, frozen_params=r"encoder/.*"
)

# Few steps undo little, so that a higher rate pays.
SHORT_TUNE_OPTIM = replace(TUNE_OPTIM, learning_rate=2e-3, muon_learning_rate=0.006)

SHORT_TUNE_STEPS = 400

LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0, targets=LORA_TARGETS)

MUSIC, LETTER_TEXTS = "music", "letters"
"""Data folders: synthesized music and texts; prepared texts for learning letters."""

# Formats of answers are learnt in large batches, audio in many steps.
AUDIO_PACKING = PackingConfig(row_length=208, rows=6, max_clips=6, max_labels=64 * 6)

TEXT_PACKING = PackingConfig(row_length=272, rows=16, max_clips=16, max_labels=64 * 16)

LABELS_PACKING = PackingConfig(max_clips=16)

LETTERS, WORDS, LABELS, JOIN, TUNE = "1_letters", "2_words", "3_labels", "4_join", "5_tune"
"""Stages: decoder on letters, decoder on text, encoder on labels, projector, last two together."""

STEPS_PER_MINUTE = {LETTERS: 225, WORDS: 245, LABELS: 230, JOIN: 550, TUNE: 410}
"""On two cores."""

TEXT_FRACTION, MAX_TEXT_MINUTES = 0.46, 5.0
"""Fraction of the time for letters and words, and minutes after which they are known."""

LETTERS_FRACTION = 0.5
"""Fraction of that time for letters."""

JOIN_FRACTION, MAX_JOIN_MINUTES = 0.11, 1.5
"""Fraction of the time for the projector, and minutes after which it stops improving."""

LABELS_FRACTION = 0.63
"""Fraction of the remaining time for labels."""


class RunPaths(NamedTuple):
    """Data and output of the stages."""

    clips: Path
    """Prepared data set of clips."""
    letters: Path
    """Prepared data set of texts for learning letters."""
    texts: Path
    """Prepared data set of texts."""
    labels: Path
    """Table of the clips' facts."""
    tokenizer: Path
    """A tokenizer.json."""
    output: Path
    """Folder of the runs."""


def run_paths(data: Path, output: Path) -> RunPaths:
    """Returns the paths inside a data folder of the quickstart and a folder of runs."""
    return RunPaths(
        clips=data / CLIPS,
        letters=data / LETTER_TEXTS,
        texts=data / TEXTS,
        labels=data / MUSIC / FACTS_FILE,
        tokenizer=data / TOKENIZER_FILE,
        output=output,
    )


def steps_in(minutes: float) -> dict[str, int]:
    """Returns the steps of each stage for a training time on two cores."""
    text = min(TEXT_FRACTION * minutes, MAX_TEXT_MINUTES)
    join = min(JOIN_FRACTION * minutes, MAX_JOIN_MINUTES)
    letters, labels = LETTERS_FRACTION * text, LABELS_FRACTION * (minutes - text - join)
    minutes_of = {LETTERS: letters, WORDS: text - letters, LABELS: labels, JOIN: join}
    minutes_of[TUNE] = minutes - sum(minutes_of.values())
    return {name: max(1, round(time * STEPS_PER_MINUTE[name])) for name, time in minutes_of.items()}


def stages(
    paths: RunPaths, vocab_size: int, minutes: float, seed: int = 0
) -> dict[str, TrainConfig]:
    """Returns the config of each stage by name, in order.

    Args:
        paths: data and output.
        vocab_size: of the tokenizer.
        minutes: training time on two cores.
        seed: of weights and order.
    """
    steps, output = steps_in(minutes), paths.output

    def run(
        name: str, init: InitConfig, optim: OptimConfig, sizes: TinyMUConfig, **data: Any
    ) -> TrainConfig:
        audio = DataConfig(
            train=str(paths.clips), packing=AUDIO_PACKING, epochs=0, seed=seed, threads=2
        )
        return TrainConfig(
            output=str(output / name),
            init=replace(init, seed=seed),
            model=sizes,
            data=replace(audio, **data),
            step=StepConfig(remat="none"),
            optim=optim,
            loop=LoopConfig(validate_every=10**9, save_every=250, max_to_keep=1, tensorboard=False),
            steps=steps[name],
        )

    nano, from_checkpoint = model(vocab_size), TinyMUConfig()
    scratch = InitConfig(tokenizer=str(paths.tokenizer))
    letters = InitConfig(checkpoint=str(output / LETTERS))
    parts = InitConfig(encoder=str(output / LABELS), decoder=str(output / WORDS))
    joined = InitConfig(checkpoint=str(output / JOIN))
    tune_optim = SHORT_TUNE_OPTIM if steps[TUNE] < SHORT_TUNE_STEPS else TUNE_OPTIM
    letter_data = {"train": str(paths.letters), "packing": TEXT_PACKING}
    text_data = {"train": str(paths.texts), "packing": TEXT_PACKING}
    label_data = {"labels": str(paths.labels), "packing": LABELS_PACKING}
    return {
        LETTERS: run(LETTERS, scratch, LETTERS_OPTIM, nano, **letter_data),
        WORDS: run(WORDS, letters, WORDS_OPTIM, from_checkpoint, **text_data),
        LABELS: run(LABELS, scratch, LABELS_OPTIM, nano, **label_data),
        JOIN: run(JOIN, parts, JOIN_OPTIM, nano),
        TUNE: run(TUNE, joined, tune_optim, from_checkpoint),
    }


TIMBRE_STEPS = 400
"""About a minute on two cores."""


def new_timbre(clips: Path, checkpoint: str, output: Path, seed: int = 0) -> TrainConfig:
    """Returns the config that teaches a trained nano another timbre, with LoRA and the projector.

    Args:
        clips: prepared data set with the timbre.
        checkpoint: the model to fine-tune.
        output: folder of the run.
        seed: of new weights and order.
    """
    return TrainConfig(
        output=str(output),
        init=InitConfig(checkpoint=checkpoint, seed=seed),
        lora=LORA,
        data=DataConfig(train=str(clips), packing=AUDIO_PACKING, epochs=0, seed=seed, threads=2),
        step=StepConfig(remat="none"),
        optim=OptimConfig(learning_rate=2e-3, beta2=0.98, frozen_params=LORA_FROZEN_PARAMS),
        loop=LoopConfig(validate_every=10**9, save_every=100, max_to_keep=1, tensorboard=False),
        steps=TIMBRE_STEPS,
    )
