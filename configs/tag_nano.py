"""Trains the encoder of the model nano to predict tags, after its pre-training.

    tinymu train-tagger --config tag_nano --data.train DATA --data.labels TAGS.csv \\
        --init.encoder runs/pretrain_nano
"""

from dataclasses import replace

from tinymu_jax.training.config import (
    TAGGING,
    LoopConfig,
    PretrainConfig,
    TagConfig,
    TagDataConfig,
    TagStepConfig,
)
from tinymu_jax.training.config_files import load_config

pretraining = load_config("pretrain_nano", PretrainConfig)
config = TagConfig(
    output="runs/tag_nano",
    model=replace(pretraining.model.encoder, num_frames=400),
    data=TagDataConfig(clips=32, seconds=4.0, epochs=0, threads=2),
    step=TagStepConfig(remat="none"),
    optim=replace(TAGGING, learning_rate=1e-3),
    loop=LoopConfig(log_every=20, validate_every=200, save_every=200, tensorboard=False),
    steps=400,
)
