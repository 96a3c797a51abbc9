"""Pre-training at nano's width, to see the whole way on a CPU in minutes.

    tinymu pretrain --config configs/pretrain_nano.py --data.train CLIPS

CLIPS is a folder of recordings of 4 s or more, or a prepared data set of them.
"""

from dataclasses import replace

from tinymu_jax.config import MatpacConfig
from tinymu_jax.pretraining.config import ClassHeadConfig, PredictorConfig, SelfSupervisedConfig
from tinymu_jax.training.config import ComputeConfig, LoopConfig
from tinymu_jax.training.pretrain_config import PRETRAINING, CropsConfig, PretrainConfig

STEPS = 600

config = PretrainConfig(
    output="runs/pretrain_nano",
    model=SelfSupervisedConfig(
        encoder=MatpacConfig(width=160, depth=4, num_heads=5, num_frames=208),
        predictor=PredictorConfig(width=96, depth=2, num_heads=6),
        class_head=ClassHeadConfig(hidden_width=256, bottleneck=64, num_classes=256),
        # A run of hundreds of steps goes through what the published one does in 294,816.
        winner_decay=0.99,
        teacher_warmup=STEPS // 30,
        encoder_decay=0.99,
        encoder_decay_end=0.999,
        head_decay=0.99,
        head_decay_end=1.0,
    ),
    data=CropsConfig(clips=64, threads=2),
    step=ComputeConfig(),
    optim=replace(PRETRAINING, learning_rate=1e-3),
    loop=LoopConfig(log_every=20, validate_every=10**9, save_every=200, tensorboard=False),
    steps=STEPS,
)
