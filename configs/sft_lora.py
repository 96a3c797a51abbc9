"""Fine-tuning with LoRA as published: rank 32, alpha 128, dropout 0.1 on queries and values.

    tinymu train --config configs/sft_lora.py --data.train DATA --init.checkpoint AndreasXi/TinyMU

Projector and low-rank weights learn, all else stays; the model at the end has them merged. For
another data set on one GPU or in a notebook.
"""

from dataclasses import replace

from configs.sft_tinymu import config as published
from tinymu_jax.models.config import PUBLISHED, LoraConfig
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS
from tinymu_jax.training.config import InitConfig, OptimConfig

config = replace(
    published,
    output="runs/sft_lora",
    init=InitConfig(checkpoint=PUBLISHED),
    lora=LoraConfig(),
    optim=OptimConfig(frozen_params=LORA_FROZEN_PARAMS),
)
