"""Trains the decoder of a small TinyMU from descriptions of clips.

    tinymu train --config music_words --data.train TEXTS --init.tokenizer tokenizer.json

See `tinymu_jax/quickstart/music_recipe.py`.
"""

from tinymu_jax.quickstart.music_recipe import words as config

__all__ = ["config"]
