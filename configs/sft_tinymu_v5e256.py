"""Fine-tuning on a TPU v5e slice of 256 chips (64 machines): products in bfloat16.

    tinymu train --config configs/sft_tinymu_v5e256.py --data.train DATA \\
        --data.validation HELD_OUT --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

Run it on every machine of the slice (`launch/tpu_pod.sh` does), with a folder that all see as
--output. A block is one row, so that the batch grows less than the slice: 5,000 questions a step,
80 times the published one, 2,100 steps in three epochs; the learning rate grows with the batch's
root. Nobody has trained with so large a batch yet: watch the validation's loss.
"""

from dataclasses import replace

from configs.sft_tinymu import config as published
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import OptimConfig, StepConfig

config = replace(
    published,
    output="runs/sft_tinymu_v5e256",
    data=replace(
        published.data, packing=PackingConfig(row_length=1024, rows=1, max_clips=3, max_labels=512)
    ),
    step=StepConfig(blocks=256, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=8.8e-4),
    loop=replace(published.loop, validate_every=200, save_every=100, log_every=50),
)
