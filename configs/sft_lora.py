"""Fine-tunes with LoRA as published: rank 32, alpha 128, dropout 0.1, on queries and values.

    tinymu train --config sft_lora --data.train DATA --init.checkpoint AndreasXi/TinyMU

It trains projector and LoRA on one GPU. The final model has LoRA merged into the decoder.
"""

from dataclasses import replace

from tinymu_jax.models.config import PUBLISHED, LoraConfig
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS
from tinymu_jax.training.config import InitConfig, OptimConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("sft_tinymu", TrainConfig)
config = replace(
    published,
    output="runs/sft_lora",
    init=InitConfig(checkpoint=PUBLISHED),
    lora=LoraConfig(),
    optim=OptimConfig(frozen_params=LORA_FROZEN_PARAMS),
)
