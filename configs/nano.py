"""Last stage of nano (projector and decoder) again, in the folder of `tinymu quickstart`.

    tinymu train --config nano --output runs/tune_again

The stages before it come from `tinymu quickstart`; the recipe is
`tinymu_jax/quickstart/nano_recipe.py`.
"""

from pathlib import Path

from tinymu_jax.quickstart.nano_recipe import TUNE, places_of, stages

_FOLDER = Path("quickstart/nothing")

config = stages(places_of(_FOLDER / "data", _FOLDER), vocab_size=600, minutes=4)[TUNE]
