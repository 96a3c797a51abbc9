"""Repeats the fine-tuning with LoRA of `tinymu ablate`, in its folder `ablations`.

tinymu train --config ablations
"""

from pathlib import Path

from tinymu_jax.quickstart.ablation_recipe import stages
from tinymu_jax.quickstart.nano_recipe import TUNE, run_paths

_FOLDER = Path("ablations")
config = stages("lora", run_paths(_FOLDER / "data", _FOLDER), vocab_size=600, minutes=8)[TUNE]
