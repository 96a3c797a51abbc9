"""Order-independent randomness: every random choice is a hash of the seed and a key.

Choices are therefore the same on every machine, in any order, whatever else is built.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

SIZE = 2**63
"""Range of the hashes: they fit into signed 64-bit integers."""


def hash_int(*key: object) -> int:
    """Returns a hash of the key, from 0 to `SIZE` - 1."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % SIZE


def hash_choice(options: Sequence[T], *key: object) -> T:
    """Returns one of the options, uniformly."""
    return options[hash_int(*key) % len(options)]


def shuffled(options: Sequence[T], *key: object) -> list[T]:
    """Returns the options in random order."""
    return sorted(options, key=lambda option: hash_int(*key, option))


def weighted_choice(options: Sequence[T], weights: Sequence[float], *key: object) -> T:
    """Returns one of the options with probability proportional to its weight."""
    threshold = hash_int(*key) / SIZE * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        threshold -= weight
        if threshold < 0:
            return option
    return options[-1]
