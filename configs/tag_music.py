"""Trains an encoder (2.7 million parameters) to tell instruments and more, on rendered clips.

    tinymu data render CLIPS --material FOLDER --soundfonts A.sf2 B.sf3 --clips 8000
    tinymu data prepare --audio CLIPS/clips --features waveform --output DATA
    tinymu train-tagger --config tag_music --data.train DATA --data.labels CLIPS/labels.csv

The next stages are in `tinymu_jax/quickstart/music_recipe.py`.
"""

from dataclasses import replace

from tinymu_jax.data.config import AugmentConfig
from tinymu_jax.quickstart.music_recipe import ENCODER
from tinymu_jax.training.config import TAGGING, LoopConfig, TagConfig, TagDataConfig, TagStepConfig

# Crops at random places, and no other change: the clips have had theirs.
CROPS = AugmentConfig(
    enabled=True,
    polarity_probability=0.5,
    noise_probability=0.0,
    gain_probability=0.0,
    stretch_probability=0.0,
    pitch_probability=0.0,
)
config = TagConfig(
    output="runs/tag_music",
    model=ENCODER,
    data=TagDataConfig(clips=32, seconds=5.0, epochs=0, threads=2, augment=CROPS),
    # A mix of two solos is no solo, and no clip has two tempos.
    step=TagStepConfig(remat="none", mixup=0.0),
    optim=replace(
        TAGGING,
        learning_rate=1e-3,
        muon_params=r"(patch_embed|transformer/.*)/kernel",
        muon_learning_rate=0.01,
        layer_decay=1.0,
        warmup_fraction=0.05,
        hold_fraction=0.4,
    ),
    loop=LoopConfig(log_every=20, validate_every=250, save_every=250, tensorboard=False),
    steps=1800,
)
