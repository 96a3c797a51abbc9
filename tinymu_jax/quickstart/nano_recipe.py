"""Nano: every part of TinyMU at small width, learnt from nothing on synthetic music.

    tinymu quickstart --only nothing --minutes 4

Stages as the real model had them: the decoder learns from words alone (how to answer by letter
first, then all else), the encoder learns to tell what it hears, a projector joins the two, and
then projector and decoder learn together, as published. (Where the encoder goes on learning too,
that takes twice the time for the same loss.)
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE
from tinymu_jax.data.synthetic.generate import CLIPS as CLIP_FOLDER
from tinymu_jax.data.synthetic.generate import FACTS_FILE, TEXTS
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
"""Of a clip."""


def model(vocab_size: int) -> TinyMUConfig:
    """Returns the sizes: 2.4 million weights.

    The projector is the paper's transformer: of little training it makes far more than the linear
    one that was published (README, ablations).
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
"""Weights of the encoder that are tables."""

OPTIM = OptimConfig(learning_rate=1.5e-3, beta2=0.98, muon_params=MATRICES, muon_learning_rate=0.02)

SPELLING = replace(OPTIM, frozen_params=r"(encoder|projector)/.*", hold_fraction=0.9)
"""Letters are learnt late, and at once: not while the rate is low."""

SPEAKING = replace(SPELLING, hold_fraction=0.4)

HEARING = replace(
    OPTIM,
    muon_learning_rate=0.01,
    hold_fraction=0.5,
    frozen_params=rf"(projector|decoder)/.*|{CONSTANT}",
)

JOINING = replace(OPTIM, frozen_params=r"(encoder|decoder)/.*")

TUNING = replace(OPTIM, learning_rate=1e-3, muon_learning_rate=0.003, frozen_params=r"encoder/.*")
"""Higher rates undo what the decoder has learnt from words."""

TUNING_BRIEFLY = replace(TUNING, learning_rate=2e-3, muon_learning_rate=0.006)

BRIEF = 400
"""Steps below which there are too few to undo much, and longer ones reach further."""

LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0, targets=LORA_TARGETS)

MUSIC, SPELT = "music", "letters"
"""Folders of what is synthesised, and of the texts with those questions that teach letters."""

# Ways of answering need many rows at once to be learnt; what is heard needs many steps.
HEARD = PackingConfig(row_length=208, rows=6, max_clips=6, max_labels=64 * 6)

TOLD = PackingConfig(row_length=272, rows=16, max_clips=16, max_labels=64 * 16)

LABELLED = PackingConfig(max_clips=16)

LETTERS, WORDS = "1_letters", "2_words"

LABELS, JOIN, TUNE = "3_labels", "4_join", "5_tune"

MINUTE = {LETTERS: 225, WORDS: 245, LABELS: 230, JOIN: 550, TUNE: 410}
"""Steps of each stage that two cores do in a minute."""

WORDS_SHARE, WORDS_MOST = 0.46, 5.0
"""Of the time for letters and words, and minutes after which they are known."""

LETTERS_SHARE = 0.5
"""Of that, for letters."""

JOIN_SHARE, JOIN_MOST = 0.11, 1.5
"""Of the time for the join, and minutes after which it gains nothing more."""

LABELS_SHARE = 0.63
"""Of what is left, for labels; the rest is for all together."""


class Places(NamedTuple):
    """Where things lie."""

    clips: Path
    """Prepared data set of clips."""
    letters: Path
    """Prepared data set of texts, with questions that teach letters."""
    texts: Path
    """Prepared data set of texts."""
    labels: Path
    """Table of the clips' facts."""
    tokenizer: Path
    """A tokenizer.json."""
    output: Path
    """Folder of the runs."""


def places_of(data: Path, output: Path) -> Places:
    """Returns where things lie: in a folder of data that the quickstart made, and one of runs."""
    return Places(
        clips=data / CLIP_FOLDER,
        letters=data / SPELT,
        texts=data / TEXTS,
        labels=data / MUSIC / FACTS_FILE,
        tokenizer=data / TOKENIZER_FILE,
        output=output,
    )


def steps_in(minutes: float) -> dict[str, int]:
    """Returns the steps of each stage for some minutes on two cores."""
    words = min(WORDS_SHARE * minutes, WORDS_MOST)
    join = min(JOIN_SHARE * minutes, JOIN_MOST)
    letters, labels = LETTERS_SHARE * words, LABELS_SHARE * (minutes - words - join)
    spent = {LETTERS: letters, WORDS: words - letters, LABELS: labels, JOIN: join}
    spent[TUNE] = minutes - sum(spent.values())
    return {name: max(1, round(own * MINUTE[name])) for name, own in spent.items()}


def stages(
    places: Places, vocab_size: int, minutes: float, seed: int = 0
) -> dict[str, TrainConfig]:
    """Returns the runs of all stages by name, each after those whose weights it begins with.

    Args:
        places: of data and runs.
        vocab_size: of the tokenizer.
        minutes: of training on two cores.
        seed: of weights and order.
    """
    steps, output = steps_in(minutes), places.output
    whole = model(vocab_size)

    # A checkpoint brings its sizes.
    def run(
        name: str,
        start: InitConfig,
        optim: OptimConfig,
        sizes: TinyMUConfig = whole,
        **data: Any,
    ) -> TrainConfig:
        own = DataConfig(train=str(places.clips), packing=HEARD, epochs=0, seed=seed, threads=2)
        return TrainConfig(
            output=str(output / name),
            init=replace(start, seed=seed),
            model=sizes,
            data=replace(own, **data),
            step=StepConfig(remat="none"),
            optim=optim,
            loop=LoopConfig(validate_every=10**9, save_every=250, max_to_keep=1, tensorboard=False),
            steps=steps[name],
        )

    chance = InitConfig(tokenizer=str(places.tokenizer))
    parts = InitConfig(encoder=str(output / LABELS), decoder=str(output / WORDS))
    joined = InitConfig(checkpoint=str(output / JOIN))
    spelt = InitConfig(checkpoint=str(output / LETTERS))
    tuning = TUNING_BRIEFLY if steps[TUNE] < BRIEF else TUNING
    told = {"packing": TOLD}
    labelled = {"labels": str(places.labels), "packing": LABELLED}
    return {
        LETTERS: run(LETTERS, chance, SPELLING, train=str(places.letters), **told),
        WORDS: run(WORDS, spelt, SPEAKING, TinyMUConfig(), train=str(places.texts), **told),
        LABELS: run(LABELS, chance, HEARING, **labelled),
        JOIN: run(JOIN, parts, JOINING),
        TUNE: run(TUNE, joined, tuning, TinyMUConfig()),
    }


TIMBRE_STEPS = 400
"""About a minute on two cores."""


def new_timbre(clips: Path, checkpoint: str, output: Path, seed: int = 0) -> TrainConfig:
    """Returns the run that teaches a trained nano another timbre: LoRA, and the projector.

    Args:
        clips: prepared data set with the timbre.
        checkpoint: what is taught.
        output: of the run.
        seed: of new weights and order.
    """
    return TrainConfig(
        output=str(output),
        init=InitConfig(checkpoint=checkpoint, seed=seed),
        lora=LORA,
        data=DataConfig(train=str(clips), packing=HEARD, epochs=0, seed=seed, threads=2),
        step=StepConfig(remat="none"),
        optim=OptimConfig(learning_rate=2e-3, beta2=0.98, frozen_params=LORA_FROZEN_PARAMS),
        loop=LoopConfig(validate_every=10**9, save_every=100, max_to_keep=1, tensorboard=False),
        steps=TIMBRE_STEPS,
    )
