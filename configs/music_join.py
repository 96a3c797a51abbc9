"""Trains the projector between the encoder of `tag_music` and the decoder of `music_words`.

    tinymu train --config music_join --data.train EMBEDDINGS

See `tinymu_jax/quickstart/music_recipe.py`.
"""

from tinymu_jax.quickstart.music_recipe import join as config

__all__ = ["config"]
