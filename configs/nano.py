"""Repeats the last training stage of the model nano: fine-tuning of projector and decoder.

    tinymu train --config nano --output runs/tune_again

The earlier stages of `tinymu quickstart` must be in the folder `quickstart`.
"""

from pathlib import Path

from tinymu_jax.quickstart.nano_recipe import TUNE, run_paths, stages

_FOLDER = Path("quickstart/train")
config = stages(run_paths(_FOLDER / "data", _FOLDER), vocab_size=600, minutes=4)[TUNE]
