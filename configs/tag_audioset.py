"""The encoder that TinyMU listens with: MATPAC++ taught AudioSet's 527 classes, 9.92 s at once.

    tinymu train-tagger --config configs/tag_audioset.py --data.train data/audioset \\
        --data.labels audioset.csv --data.classes class_labels_indices.csv \\
        --init.encoder runs/pretrain_matpac_plus_plus

`audioset.csv` names each recording's classes (`file,labels`, by name or by `mid`, ";" between
them); outputs are in the order of the classes' `mid`.
"""

from tinymu_jax.training.config import LoopConfig, TagConfig, TagDataConfig, TagStepConfig

config = TagConfig(
    output="runs/tag_audioset",
    data=TagDataConfig(clips=32, epochs=10),
    step=TagStepConfig(blocks=8, encoder_dtype="bfloat16"),
    loop=LoopConfig(log_every=50, validate_every=3000, save_every=1000),
)
