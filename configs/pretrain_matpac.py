"""MATPAC as published (arXiv 2502.12031): one hypothesis of each masked patch.

tinymu pretrain --config configs/pretrain_matpac.py --data.train data/audioset
"""

from dataclasses import replace

from configs.pretrain_matpac_plus_plus import config as plus_plus
from tinymu_jax.models.config import PredictorConfig, SelfSupervisedConfig

config = replace(
    plus_plus,
    output="runs/pretrain_matpac",
    model=SelfSupervisedConfig(predictor=PredictorConfig(hypotheses=1)),
)
