"""Fine-tunes on 512 TPU v5p chips (sold as v5p-1024), with bfloat16 compute.

    tinymu train --config sft_tinymu_v5p512 --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

Run the command on every host (`launch/tpu_pod.sh` does); all must see the --output folder. One row
per chip gives 10,000 questions a step, and 1,050 steps in three epochs. The published data take
minutes; the slice is meant for larger data sets or for many runs.
"""

from dataclasses import replace

from tinymu_jax.training.config import OptimConfig, StepConfig, TrainConfig
from tinymu_jax.training.config_files import load_config

pod = load_config("sft_tinymu_v5e256", TrainConfig)
config = replace(
    pod,
    output="runs/sft_tinymu_v5p512",
    step=StepConfig(blocks=512, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=1.2e-3),
    loop=replace(pod.loop, validate_every=100, save_every=50),
)
