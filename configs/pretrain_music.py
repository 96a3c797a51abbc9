"""MATPAC++ on a collection of music (100,000 clips or so), on eight GPUs: from nothing, or further.

    tinymu pretrain --config configs/pretrain_music.py --data.train music/
    tinymu pretrain --config configs/pretrain_music.py --data.train data/music \\
        --init.checkpoint matpac_plus.pt

Half the crops a step and a third of the steps of the published run, whose annealing and warm-up
come at the same shares of it. A folder is read as it is; a prepared data set (`tinymu data prepare
--audio music/`) is read many times faster.
"""

from configs.pretrain_matpac_plus_plus import config as published
from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.training.config import ComputeConfig, CropsConfig, LoopConfig, PretrainConfig

STEPS = 98_272
SHARE = STEPS / published.steps
plain = SelfSupervisedConfig()

config = PretrainConfig(
    output="runs/pretrain_music",
    model=SelfSupervisedConfig(
        mcl_temperature_decay=plain.mcl_temperature_decay ** (1 / SHARE),
        teacher_warmup=round(plain.teacher_warmup * SHARE),
        encoder_ema_decay=1 - (1 - plain.encoder_ema_decay) / SHARE,
        encoder_ema_decay_end=1 - (1 - plain.encoder_ema_decay_end) / SHARE,
    ),
    data=CropsConfig(clips=32),
    step=ComputeConfig(blocks=32, encoder_dtype="bfloat16"),
    loop=LoopConfig(log_every=50, save_every=2000),
    steps=STEPS,
)
