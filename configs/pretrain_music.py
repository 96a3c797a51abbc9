"""Pre-trains MATPAC++ on about 100,000 music recordings, from scratch or from a checkpoint.

    tinymu pretrain --config pretrain_music --data.train data/music \\
        --init.checkpoint matpac_plus.pt

For eight GPUs, with half the crops per step and a third of the steps of the published run.
`data/music` is a folder of recordings, or a prepared data set, which is read much faster.
"""

from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.training.config import ComputeConfig, CropsConfig, LoopConfig, PretrainConfig
from tinymu_jax.training.config_files import load_config

published = load_config("pretrain_matpac_plus_plus", PretrainConfig)
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
