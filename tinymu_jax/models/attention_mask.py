"""Attention masks that are written as a few ids per position instead of one bit per pair."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["group", "levels", "key_mask"],
    meta_fields=["causal"],
)
@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query of a row attends to, from ids of the row's T positions.

    Query t attends to key s if both have the same `group`, if on every level key s has the id of
    query t or 0, if `key_mask` is True at s and, if `causal`, s <= t.
    """

    # Any: jax also puts other things than arrays into a pytree.
    group: Any
    """(*batch, T): ids, at least -1; with `causal`, positions of a group must follow each other."""
    levels: tuple[Any, ...] = ()
    """(*batch, T) each: further ids in a group, such as questions; all attend to keys with 0."""
    key_mask: Any = None
    """(*batch, T): True at keys that are attended to; None: all are."""
    causal: bool = False
    """Whether queries attend to no later keys."""

    def dense(self) -> Bool[Array | np.ndarray, "*batch T T"]:
        """Return the mask with one entry for each query and key."""
        visible = self.group[..., :, None] == self.group[..., None, :]
        for ids in self.levels:
            visible &= (ids[..., :, None] == ids[..., None, :]) | (ids == 0)[..., None, :]
        if self.key_mask is not None:
            visible &= self.key_mask[..., None, :]
        if self.causal:
            visible &= np.tril(np.ones((self.group.shape[-1],) * 2, bool))
        return visible

    def reshape(self, *shape: int) -> "AttentionMask":
        """Return the mask with arrays of another shape (*batch, T)."""
        group, levels, key_mask = (
            self.group.reshape(shape),
            tuple(level.reshape(shape) for level in self.levels),
            None if self.key_mask is None else jnp.reshape(self.key_mask, shape),
        )
        return AttentionMask(group, levels, key_mask, self.causal)
