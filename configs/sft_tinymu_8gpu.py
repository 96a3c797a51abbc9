"""Fine-tunes on one machine with eight GPUs, with data parallelism and bfloat16 compute.

    tinymu train --config sft_tinymu_8gpu --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

One block per GPU gives 480 questions a step, 7.5 times the published batch. The learning rate grows
with the square root of the batch size.
"""

from dataclasses import replace

from tinymu_jax.training.config import OptimConfig, StepConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("sft_tinymu", TrainConfig)
config = replace(
    published,
    output="runs/sft_tinymu_8gpu",
    step=StepConfig(blocks=8, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=2.7e-4),
)
