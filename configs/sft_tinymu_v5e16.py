"""Fine-tunes on a TPU v5e slice of 16 chips (four hosts), with bfloat16 compute.

    tinymu train --config sft_tinymu_v5e16 --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

Run the command on every host; all must see the --output folder. One block per chip gives 960
questions a step, 15 times the published batch; the learning rate is 3.9 times as high.
"""

from dataclasses import replace

from tinymu_jax.training.config import OptimConfig, StepConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("sft_tinymu", TrainConfig)
config = replace(
    published,
    output="runs/sft_tinymu_v5e16",
    step=StepConfig(blocks=16, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=3.9e-4),
)
