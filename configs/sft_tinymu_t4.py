"""Fine-tunes on one GPU of 16 GB, such as Colab's T4, in float16 and one row at a time.

    tinymu train --config sft_tinymu_t4 --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

A batch has about 60 questions, in three parts of one row each (published: 64). A T4 has no
bfloat16; float16 needs a loss scale, which is adapted (`loss_scale` in metrics.jsonl). On an L4 or
A10G, bfloat16 needs none: add `--step.encoder-dtype bfloat16 --step.decoder-dtype bfloat16`. With
stored embeddings (`tinymu data prepare --features embeddings`) the encoder does not run.
"""

from dataclasses import replace

from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import StepConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("sft_tinymu", TrainConfig)
config = replace(
    published,
    output="runs/sft_tinymu_t4",
    data=replace(
        published.data, packing=PackingConfig(row_length=1024, rows=1, max_clips=3, max_labels=512)
    ),
    step=StepConfig(blocks=3, grad_accum_steps=3, encoder_dtype="float16", decoder_dtype="float16"),
)
