"""Fine-tuning on one GPU of 16 GB, such as Colab's T4: float32, one row at a time.

    tinymu train --config configs/sft_tinymu_t4.py --data.train DATA \\
        --data.validation HELD_OUT --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

The published batch of about 60 questions, in three parts of a row each. A T4 has no bfloat16: it
is emulated there, slower than float32; on a card that has it (L4, A10G) add
`--step.encoder-dtype bfloat16 --step.decoder-dtype bfloat16`. Stored embeddings (`tinymu data prepare
--features embeddings`) leave the encoder out of the step.
"""

from dataclasses import replace

from configs.sft_tinymu import config as published
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import StepConfig

config = replace(
    published,
    output="runs/sft_tinymu_t4",
    data=replace(
        published.data, packing=PackingConfig(row_length=1024, rows=1, max_clips=3, max_labels=512)
    ),
    step=StepConfig(blocks=3, grad_accum_steps=3),
)
