"""Formats numbers for people: percentages, plain numbers, durations and file sizes."""

import math

NOT_AVAILABLE = "not available"


def percent(
    fraction: float | None, decimals: int = 1, signed: bool = False, missing: str = NOT_AVAILABLE
) -> str:
    """Format a fraction in percent, without a percent sign: 0.586 as "58.6".

    If `signed`, positive numbers get a plus sign. Returns `missing` for None, NaN and infinity.
    """
    if fraction is None or not math.isfinite(fraction):
        return missing
    return f"{100 * fraction:{'+' if signed else ''}.{decimals}f}"


def number(value: float | None, signed: bool = False, missing: str = NOT_AVAILABLE) -> str:
    """Format a number of any scale to about three digits: 1187.0 as "1,187", 6.254 as "6.25".

    If `signed`, positive numbers get a plus sign. Returns `missing` for None, NaN and infinity.
    """
    if value is None or not math.isfinite(value):
        return missing
    size = abs(value)
    decimals = 0 if value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:{'+' if signed else ''},.{decimals}f}"


def clock(seconds: float) -> str:
    """Format a duration in seconds as hours, minutes and seconds: 3723.0 as "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def duration(seconds: float) -> str:
    """Format a duration, given in seconds, with a fitting unit: "90 s", "10 min", "1.5 h"."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 180 else f"{seconds:.0f} s"


def file_size(num_bytes: int) -> str:
    """Format a number of bytes in decimal units: 5_240_000 as "5.2 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"
