"""Rounds array lengths up, so that programs are compiled for few different shapes."""


def round_up(number: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `number`."""
    return -(-number // step) * step
