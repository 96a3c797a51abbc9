"""Fine-tuning on one machine with eight GPUs: the model copied, products in bfloat16.

    tinymu train --config configs/sft_tinymu_8gpu.py --data.train DATA \\
        --data.validation HELD_OUT --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

One block on each GPU: 480 questions a step, 7.5 times the published batch; the learning rate grows
with its root. Weights, averages and sums stay float32.
"""

from dataclasses import replace

from configs.sft_tinymu import config as published
from tinymu_jax.training.config import OptimConfig, StepConfig

config = replace(
    published,
    output="runs/sft_tinymu_8gpu",
    step=StepConfig(blocks=8, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=2.7e-4),
)
