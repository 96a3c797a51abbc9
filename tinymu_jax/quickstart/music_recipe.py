"""Training recipe of a small TinyMU that hears real instruments, after its encoder is trained.

The encoder comes from `configs/tag_music.py`. The decoder first learns from text to answer
questions about descriptions of clips. Then the projector is trained between the two, which are
frozen, and last projector and decoder together. `launch/train_music_nano.sh` runs all stages.
"""

from dataclasses import replace

from tinymu_jax.models.config import MatpacConfig, ProjectorConfig, SmolLM2Config, TinyMUConfig
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.quickstart.nano_recipe import JOIN_OPTIM, LETTERS_OPTIM, LOOP, TUNE_OPTIM
from tinymu_jax.training.config import DataConfig, InitConfig, OptimConfig, StepConfig, TrainConfig

ENCODER = MatpacConfig(width=192, depth=6, num_heads=3, num_frames=496)
"""Encoder of 2.7 million parameters, for chunks of 5 s."""
VOCAB_SIZE = 1024
MODEL = TinyMUConfig(
    encoder=ENCODER,
    projector=ProjectorConfig(
        kind="transformer",
        input_width=960,
        hidden_width=192,
        output_width=160,
        num_vectors=62,
        depth=3,
        num_heads=4,
    ),
    decoder=SmolLM2Config(
        vocab_size=VOCAB_SIZE,
        width=160,
        depth=5,
        num_heads=5,
        num_kv_heads=5,
        head_width=32,
        mlp_width=400,
    ),
    max_seconds=10.0,
)
WORDS, JOIN, TUNE = "words", "join", "tune"
"""Names of the stages, which train: the decoder on texts, the projector, projector and decoder."""
TEXT_PACKING = PackingConfig(row_length=512, rows=4, max_clips=16, max_labels=512)
AUDIO_PACKING = PackingConfig(row_length=512, rows=4, max_clips=12, max_labels=512)
STEPS = {WORDS: 1500, JOIN: 500, TUNE: 1000}


def stage(name: str, init: InitConfig, optim: OptimConfig, packing: PackingConfig) -> TrainConfig:
    """Return the config of a stage, whose output and data are given on the command line."""
    return TrainConfig(
        output=f"runs/music_{name}",
        init=init,
        model=MODEL if name != TUNE else TinyMUConfig(),
        data=DataConfig(packing=packing, epochs=0, threads=2),
        step=StepConfig(remat="none"),
        optim=optim,
        loop=LOOP,
        steps=STEPS[name],
    )


words = stage(WORDS, InitConfig(), replace(LETTERS_OPTIM, hold_fraction=0.6), TEXT_PACKING)
join = stage(
    JOIN,
    InitConfig(encoder="runs/tag_music", decoder="runs/music_words"),
    JOIN_OPTIM,
    AUDIO_PACKING,
)
tune = stage(TUNE, InitConfig(checkpoint="runs/music_join"), TUNE_OPTIM, AUDIO_PACKING)
