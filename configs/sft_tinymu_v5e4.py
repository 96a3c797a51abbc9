"""Fine-tuning on a TPU v5e slice of four chips (one machine): products in bfloat16.

    tinymu train --config configs/sft_tinymu_v5e4.py --data.train DATA \\
        --data.validation HELD_OUT --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

One block on each chip: 240 questions a step, 3.75 times the published batch; the learning rate
grows with its root.
"""

from dataclasses import replace

from configs.sft_tinymu import config as published
from tinymu_jax.training.config import OptimConfig, StepConfig

config = replace(
    published,
    output="runs/sft_tinymu_v5e4",
    step=StepConfig(blocks=4, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=1.9e-4),
)
