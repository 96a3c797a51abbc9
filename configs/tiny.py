"""Trains a random model of 2.4 million parameters on a CPU in a minute, to check the pipeline.

tinymu train --config tiny --data.train DATA --init.tokenizer nano
"""

from tinymu_jax.models.config import MatpacConfig, ProjectorConfig, SmolLM2Config, TinyMUConfig
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.config import DataConfig, LoopConfig, OptimConfig, StepConfig, TrainConfig

config = TrainConfig(
    output="runs/tiny",
    model=TinyMUConfig(
        encoder=MatpacConfig(width=32, depth=2, num_heads=2),
        projector=ProjectorConfig(input_width=160, hidden_width=64, output_width=48),
        decoder=SmolLM2Config(width=48, depth=2, num_heads=3, head_width=16, mlp_width=96),
    ),
    data=DataConfig(
        packing=PackingConfig(row_length=512, rows=2, max_clips=4, max_labels=512), epochs=10
    ),
    step=StepConfig(remat="none"),
    optim=OptimConfig(learning_rate=3e-3),
    loop=LoopConfig(log_every=1, validate_every=50, save_every=20),
)
