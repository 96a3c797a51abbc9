"""Chance that depends on what is decided, and on nothing else.

A build draws nothing in turn: every choice is hashed from the seed and from what it is about, so
that it is the same on every machine, in any order, and whatever else is built beside it.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

SIZE = 2**63
"""Numbers fit into 64 bits with a sign."""


def hash_int(*about: object) -> int:
    """Returns a number from 0 to `SIZE` - 1, for a seed and what is decided."""
    text = "\x1f".join(map(str, about))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % SIZE


def hash_choice(among: Sequence[T], *about: object) -> T:
    """Returns one of `among`, all equally often."""
    return among[hash_int(*about) % len(among)]


def shuffled(among: Sequence[T], *about: object) -> list[T]:
    """Returns all of `among` in some order."""
    return sorted(among, key=lambda one: hash_int(*about, one))


def pick_weighted(among: Sequence[T], weights: Sequence[float], *about: object) -> T:
    """Returns one of `among`, as often as its weight says."""
    left = hash_int(*about) / SIZE * sum(weights)
    for one, weight in zip(among, weights, strict=True):
        left -= weight
        if left < 0:
            return one
    return among[-1]
