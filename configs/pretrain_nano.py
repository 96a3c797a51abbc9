"""Pre-training a small encoder (0.3 million weights): the whole way on two cores in ten minutes.

    tinymu pretrain --config configs/pretrain_nano.py --data.train CLIPS

CLIPS is a folder of recordings of 2.1 s or more, or a prepared data set of them
(tests/benchmarks/pretrain_nano.py synthesises some, and probes what was learnt of them).

A run of thousands of steps differs from the published one of 294,816 in this: Muon learns the
matrices, the averages forget faster, and the centre is DINO's. The published centre is a mean of
probabilities, which hardly moves logits: so few steps end in a handful of classes with it, and in
what is easiest to tell of a masked patch, its place.
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
