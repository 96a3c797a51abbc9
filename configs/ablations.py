"""Runs the last stage of the LoRA ablation again, in the folder `ablations` of `tinymu ablate`.

    tinymu train --config ablations

All stages are defined in `tinymu_jax/quickstart/ablation_recipe.py`.
"""

from pathlib import Path

from tinymu_jax.quickstart.ablation_recipe import stages
from tinymu_jax.quickstart.nano_recipe import TUNE, run_paths

_FOLDER = Path("ablations")
config = stages("lora", run_paths(_FOLDER / "data", _FOLDER), vocab_size=600, minutes=8)[TUNE]
