"""Fine-tunes on a TPU v5e slice of 256 chips (64 hosts), with bfloat16 compute.

    tinymu train --config sft_tinymu_v5e256 --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

Run the command on every host (`launch/tpu_pod.sh` does); all must see the --output folder. One row
per chip gives 5,000 questions a step, 80 times the published batch, and 2,100 steps in three
epochs. Batches of this size are untested: watch the validation loss.
"""

from dataclasses import replace

from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import OptimConfig, StepConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("sft_tinymu", TrainConfig)
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
