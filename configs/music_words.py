"""Trains the decoder of a small TinyMU from descriptions of clips; see `music_recipe`.

tinymu train --config music_words --data.train TEXTS --init.tokenizer tokenizer.json
"""

from tinymu_jax.quickstart.music_recipe import words as config

__all__ = ["config"]
