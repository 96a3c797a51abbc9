"""Trains a pre-trained MATPAC++ to predict AudioSet's 527 classes, like TinyMU's encoder.

    tinymu train-tagger --config tag_audioset --data.train data/audioset \\
        --data.labels audioset.csv --data.classes class_labels_indices.csv \\
        --init.encoder runs/pretrain_matpac_plus_plus

`audioset.csv` has the columns `file` and `labels`: a recording's classes, by name or `mid`,
separated by ";". The model's outputs are in the order of the classes' `mid`.
"""

from tinymu_jax.training.config import LoopConfig, TagConfig, TagDataConfig, TagStepConfig

config = TagConfig(
    output="runs/tag_audioset",
    data=TagDataConfig(clips=32, epochs=10),
    step=TagStepConfig(blocks=8, encoder_dtype="bfloat16"),
    loop=LoopConfig(log_every=50, validate_every=3000, save_every=1000),
)
