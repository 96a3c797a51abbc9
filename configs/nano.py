"""Last stage of nano (projector and decoder) again, in the folder of `tinymu quickstart`.

    tinymu train --config nano --output runs/tune_again

The stages before it come from `tinymu quickstart`; the recipe is
`tinymu_jax/quickstart/nano_recipe.py`.
"""

from pathlib import Path

from tinymu_jax.quickstart.nano_recipe import TUNE, run_paths, stages

_FOLDER = Path("quickstart/train")

config = stages(run_paths(_FOLDER / "data", _FOLDER), vocab_size=600, minutes=4)[TUNE]
