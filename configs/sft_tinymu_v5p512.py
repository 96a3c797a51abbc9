"""Fine-tuning on 512 TPU v5p chips (sold as v5p-1024): products in bfloat16.

    tinymu train --config configs/sft_tinymu_v5p512.py --data.train DATA \\
        --data.validation HELD_OUT --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

Run it on every machine of the slice (`launch/tpu_pod.sh` does), with a folder that all see as
--output. One row a chip: 10,000 questions a step, 1,050 steps in three epochs. A run of minutes:
at such a batch the model, not the slice, is the limit; it is here for larger data, and to compare
many recipes in a day.
"""

from dataclasses import replace

from configs.sft_tinymu_v5e256 import config as pod
from tinymu_jax.training.config import OptimConfig, StepConfig

config = replace(
    pod,
    output="runs/sft_tinymu_v5p512",
    step=StepConfig(blocks=512, encoder_dtype="bfloat16", decoder_dtype="bfloat16"),
    optim=OptimConfig(learning_rate=1.2e-3),
    loop=replace(pod.loop, validate_every=100, save_every=50),
)
