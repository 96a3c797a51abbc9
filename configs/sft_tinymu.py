"""Fine-tunes as published (arXiv 2604.15849, section 4): Adam, 1e-4, three epochs, float32.

    tinymu train --config sft_tinymu --data.train DATA --data.validation HELD_OUT \\
        --init.encoder matpac_plus_as_48_1_map_enc_and_head.pt

A batch has about 60 questions about nine clips, in three rows of 1,024 positions; each clip is
encoded once. With `--data.packing.questions-per-group 1`, a batch is drawn from all questions, as
published (64 questions). Every question's clip is then encoded, which takes two to three times as
long.
"""

from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import DataConfig, InitConfig, LoopConfig, StepConfig, TrainConfig

config = TrainConfig(
    output="runs/sft_tinymu",
    init=InitConfig(decoder="HuggingFaceTB/SmolLM2-135M"),
    data=DataConfig(
        packing=PackingConfig(row_length=1024, rows=3, max_clips=9, max_labels=1536), epochs=3
    ),
    step=StepConfig(blocks=1),
    loop=LoopConfig(validate_every=3000, save_every=1000),
)
