"""Padding of array lengths, so that few shapes are compiled."""


def round_up(number: int, step: int) -> int:
    """Returns the smallest multiple of `step` that is at least `number`."""
    return -(-number // step) * step
