"""Training recipe of nano, a small TinyMU trained from scratch on synthetic music.

    tinymu quickstart --only train --minutes 4

The decoder first learns from text: to answer by letter, then to answer all questions. The encoder
learns from labels. Then the projector is trained between the frozen encoder and decoder. Last, as
published, projector and decoder are trained together. Training the encoder in the last stage too
would take twice the time for the same loss.
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
"""Length of a clip in seconds."""


def model(vocab_size: int) -> TinyMUConfig:
    """Return the config of nano, a model of 2.4 million parameters.

    The projector is the paper's transformer variant. In a few minutes it learns far more than the
    published linear projector (docs/nano.md, ablations).
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
"""Pattern of the parameter names of the encoder's fixed tables, which are never trained."""
OPTIM = OptimConfig(learning_rate=1.5e-3, beta2=0.98, muon_params=MATRICES, muon_learning_rate=0.02)

LOOP = LoopConfig(validate_every=10**9, save_every=250, max_to_keep=1, tensorboard=False)

# Answering by letter is learnt late and suddenly, and never at a low learning rate.
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

# A short stage undoes little, so a higher learning rate gives a better model.
SHORT_TUNE_OPTIM = replace(TUNE_OPTIM, learning_rate=2e-3, muon_learning_rate=0.006)
SHORT_TUNE_STEPS = 400
LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0, targets=LORA_TARGETS)
MUSIC, LETTER_TEXTS = "music", "letters"
"""Data folders: synthesized music and texts; texts prepared for learning to answer by letter."""

# Large batches are best for learning the format of answers, many small steps for audio.
AUDIO_PACKING = PackingConfig(row_length=208, rows=6, max_clips=6, max_labels=64 * 6)
TEXT_PACKING = PackingConfig(row_length=272, rows=16, max_clips=16, max_labels=64 * 16)
LABELS_PACKING = PackingConfig(max_clips=16)
LETTERS, WORDS, LABELS, JOIN, TUNE = "1_letters", "2_words", "3_labels", "4_join", "5_tune"
"""Names of the stages, which train: the decoder on letters, the decoder on all texts, the encoder
on labels, the projector alone, the projector and the decoder together."""
STEPS_PER_MINUTE = {LETTERS: 225, WORDS: 245, LABELS: 230, JOIN: 550, TUNE: 410}
"""Training steps per minute of each stage on two CPU cores."""
TEXT_FRACTION, MAX_TEXT_MINUTES = 0.46, 5.0
"""Fraction of the training time for the two text stages, and their maximum in minutes."""
LETTERS_FRACTION = 0.5
"""Fraction of the text stages' time for the stage `LETTERS`."""
JOIN_FRACTION, MAX_JOIN_MINUTES = 0.11, 1.5
"""Fraction of the training time for the stage `JOIN`, and its maximum in minutes."""
LABELS_FRACTION = 0.63
"""Fraction of the remaining time for the stage `LABELS`; the stage `TUNE` gets the rest."""


class RunPaths(NamedTuple):
    """Paths of the training data and of the output."""

    clips: Path
    """Folder of the prepared data set of clips."""
    letters: Path
    """Folder of the prepared texts for learning to answer by letter."""
    texts: Path
    """Folder of the prepared texts with all questions."""
    labels: Path
    """Csv of the clips' musical facts, the labels from which the encoder learns."""
    tokenizer: Path
    output: Path
    """Folder that gets one training run per stage."""


def run_paths(data: Path, output: Path) -> RunPaths:
    """Return the paths of the training data that `make_data` wrote to `data`, and the output."""
    return RunPaths(
        clips=data / CLIPS,
        letters=data / LETTER_TEXTS,
        texts=data / TEXTS,
        labels=data / MUSIC / FACTS_FILE,
        tokenizer=data / TOKENIZER_FILE,
        output=output,
    )


def steps_in(minutes: float) -> dict[str, int]:
    """Return the number of steps of each stage; together they take `minutes` on two CPU cores."""
    text = min(TEXT_FRACTION * minutes, MAX_TEXT_MINUTES)
    join = min(JOIN_FRACTION * minutes, MAX_JOIN_MINUTES)
    letters, labels = LETTERS_FRACTION * text, LABELS_FRACTION * (minutes - text - join)
    minutes_of = {LETTERS: letters, WORDS: text - letters, LABELS: labels, JOIN: join}
    minutes_of[TUNE] = minutes - sum(minutes_of.values())
    return {name: max(1, round(time * STEPS_PER_MINUTE[name])) for name, time in minutes_of.items()}


def stages(
    paths: RunPaths, vocab_size: int, minutes: float, seed: int = 0
) -> dict[str, TrainConfig]:
    """Return the training configs by stage name, in training order.

    The training steps of all stages fit into `minutes` on two CPU cores.
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
            loop=LOOP,
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
"""Training steps of `new_timbre`, about a minute on two CPU cores."""


def new_timbre(clips: Path, checkpoint: str, output: Path, seed: int = 0) -> TrainConfig:
    """Return the config that trains LoRA and the projector of a nano model on a new timbre.

    `clips` is the folder of a prepared data set that includes clips with the new timbre.
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
