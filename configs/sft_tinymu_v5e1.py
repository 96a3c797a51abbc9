"""Fine-tunes on one TPU v5e chip, such as Colab's free v5e-1, with bfloat16 compute.

    tinymu train --config sft_tinymu_v5e1 --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

A batch has about 60 questions, in one block (published: 64).
"""

from dataclasses import replace

from tinymu_jax.training.config import StepConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("sft_tinymu", TrainConfig)
config = replace(
    published,
    output="runs/sft_tinymu_v5e1",
    step=StepConfig(encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
)
