"""Pre-trains MATPAC as published (arXiv 2502.12031), with one prediction per masked patch.

tinymu pretrain --config pretrain_matpac --data.train data/audioset
"""

from dataclasses import replace

from tinymu_jax.models.config import PredictorConfig, SelfSupervisedConfig
from tinymu_jax.training.config import PretrainConfig
from tinymu_jax.training.config_files import load_config

plus_plus = load_config("pretrain_matpac_plus_plus", PretrainConfig)
config = replace(
    plus_plus,
    output="runs/pretrain_matpac",
    model=SelfSupervisedConfig(predictor=PredictorConfig(hypotheses=1)),
)
