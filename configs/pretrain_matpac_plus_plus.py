"""MATPAC++ as published (arXiv 2508.12709): 2,048 crops a step, 294,816 steps, five hypotheses.

    tinymu pretrain --config configs/pretrain_matpac_plus_plus.py --data.train data/audioset

Sixty-four blocks of 32 crops can be parted over 1, 2, 4, ... 64 devices; on fewer than they fit
into at once, `--step.grad-accum-steps 8` computes them in eight parts, for the same numbers.
"""

from tinymu_jax.training.config import ComputeConfig, CropsConfig, LoopConfig, PretrainConfig

config = PretrainConfig(
    output="runs/pretrain_matpac_plus_plus",
    data=CropsConfig(clips=32),
    step=ComputeConfig(blocks=64, encoder_dtype="bfloat16"),
    loop=LoopConfig(log_every=50, save_every=2000),
    steps=294_816,
)
