"""Make random choices by hashing a key, such as a seed and a clip's name."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
SIZE = 2**63
"""Number of possible hashes, which fit into signed 64-bit integers."""


def hash_int(*key: object) -> int:
    """Return a hash of the key, from 0 to `SIZE` - 1."""
    text = "\x1f".join(map(str, key))
    return (
        int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
        % SIZE
    )


def hash_choice(options: Sequence[T], *key: object) -> T:
    """Return the option that the hash of a key selects; all options are equally probable."""
    return options[hash_int(*key) % len(options)]


def shuffled(options: Sequence[T], *key: object) -> list[T]:
    """Return the options in a random order that depends on the key."""
    return sorted(options, key=lambda option: hash_int(*key, option))


def weighted_choice(options: Sequence[T], weights: Sequence[float], *key: object) -> T:
    """Return a pseudo-random option, with probability proportional to its weight."""
    threshold = hash_int(*key) / SIZE * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        threshold -= weight
        if threshold < 0:
            return option
    return options[-1]
