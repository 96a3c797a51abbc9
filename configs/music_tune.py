"""Trains projector and decoder together, after `music_join`.

    tinymu train --config music_tune --data.train EMBEDDINGS

See `tinymu_jax/quickstart/music_recipe.py`.
"""

from tinymu_jax.quickstart.music_recipe import tune as config

__all__ = ["config"]
