"""Fine-tuning on a TPU v5e slice of 16 chips (four machines): products in bfloat16.

    tinymu train --config configs/sft_tinymu_v5e16.py --data.train DATA \\
        --data.validation HELD_OUT --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

Run it on every machine of the slice, with a folder that all see as --output. One block on each
chip: 960 questions a step, 15 times the published batch; the learning rate grows with its root.
"""

from dataclasses import replace

from configs.sft_tinymu import config as published
from tinymu_jax.training.config import OptimConfig, StepConfig

config = replace(
    published,
    output="runs/sft_tinymu_v5e16",
    step=StepConfig(blocks=16, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=3.9e-4),
)
