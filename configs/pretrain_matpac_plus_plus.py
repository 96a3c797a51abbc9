"""Pre-trains MATPAC++ as published (arXiv 2508.12709): 2,048 crops per step, five predictions.

    tinymu pretrain --config pretrain_matpac_plus_plus --data.train data/audioset

A step's 64 blocks of 32 crops can be split over 1, 2, 4, ... 64 devices. If memory is short,
`--step.grad-accum-steps 8` computes a step in eight parts, with the same results.
"""

from tinymu_jax.training.config import ComputeConfig, CropsConfig, LoopConfig, PretrainConfig

config = PretrainConfig(
    output="runs/pretrain_matpac_plus_plus",
    data=CropsConfig(clips=32),
    step=ComputeConfig(blocks=64, encoder_dtype="bfloat16"),
    loop=LoopConfig(log_every=50, save_every=2000),
    steps=294_816,
)
