"""Fine-tunes projector and LoRA on one GPU of 16 GB, such as Colab's T4, from stored embeddings.

    tinymu data prepare ... --features embeddings --output DATA
    tinymu train --config sft_lora_t4 --data.train DATA --init.checkpoint AndreasXi/TinyMU

A batch has about 60 questions, in three parts of one row each. float16, as in `sft_tinymu_t4`.
"""

from dataclasses import replace

from tinymu_jax.training.config import TrainConfig
from tinymu_jax.training.config_files import load_config

machine = load_config("sft_tinymu_t4", TrainConfig)
config = replace(
    load_config("sft_lora", TrainConfig),
    output="runs/sft_lora_t4",
    data=machine.data,
    step=machine.step,
)
