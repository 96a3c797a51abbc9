"""How many slots there are for so many things: few counts, so that few shapes are compiled."""


def round_up(number: int, step: int) -> int:
    """Returns the next multiple of `step`, `number` itself if it is one."""
    return -(-number // step) * step
