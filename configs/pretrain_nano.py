"""Pre-trains a small encoder (0.3 million parameters) in ten minutes on two CPU cores.

    tinymu pretrain --config pretrain_nano --data.train CLIPS

CLIPS is a folder of recordings of at least 2.1 s, or a prepared data set. The run has 2,400 steps
instead of the published 294,816. It therefore trains matrices with Muon, its moving averages decay
faster, and its centre is a mean of logits, as in DINO. With the published centre, a mean of
probabilities, a short run uses only a handful of classes.
"""

from dataclasses import replace

from tinymu_jax.models.config import (
    ClassHeadConfig,
    MatpacConfig,
    PredictorConfig,
    SelfSupervisedConfig,
)
from tinymu_jax.training.config import (
    PRETRAINING,
    ComputeConfig,
    CropsConfig,
    LoopConfig,
    PretrainConfig,
)

MATRICES = (
    r"encoder/(patch_embed|transformer/.*)/kernel|class_head/fc\d/kernel|"
    r"predictor/(embed|transformer/.*|heads)/kernel"
)
config = PretrainConfig(
    output="runs/pretrain_nano",
    model=SelfSupervisedConfig(
        encoder=MatpacConfig(width=64, depth=4, num_heads=2, num_frames=208),
        predictor=PredictorConfig(width=64, depth=2, num_heads=2),
        class_head=ClassHeadConfig(hidden_width=256, bottleneck=64, num_classes=256),
        mcl_temperature_decay=0.996,
        teacher_warmup=80,
        centre="logits",
        encoder_ema_decay=0.995,
        encoder_ema_decay_end=0.9995,
        head_ema_decay=0.995,
    ),
    data=CropsConfig(clips=64, threads=2),
    step=ComputeConfig(remat="none"),
    optim=replace(
        PRETRAINING,
        learning_rate=1e-3,
        muon_params=MATRICES,
        muon_learning_rate=0.01,
        weight_decay=0.0,
    ),
    loop=LoopConfig(log_every=20, validate_every=10**9, save_every=500, tensorboard=False),
    steps=2400,
)
