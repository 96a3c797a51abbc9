"""Counts and lists the recordings that cannot be used, and refuses too many of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import write_text


def bad_entry(recording: str | Path, error: Exception) -> dict[str, str]:
    """Return a recording's entry for a list of unusable recordings: the path, and the reason."""
    return {"clip": str(recording), "reason": str(error)}


def write_bad_list(path: Path, bad: Sequence[Mapping[str, str]]) -> None:
    """Write a list of unusable recordings with one JSON object (clip, reason) per line."""
    write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in bad))


def check_max_fraction(max_fraction: float) -> None:
    """Raise `InputError` unless the largest fraction of unusable recordings is 0 to 1."""
    if not 0 <= max_fraction <= 1:
        raise InputError(f"max-bad-fraction is {max_fraction}; give 0 to 1")


def check_bad_fraction(
    bad: Sequence[Mapping[str, str]],
    total: int,
    max_fraction: float,
    listing: str | Path | None = None,
) -> None:
    """Raise `InputError` if more than `max_fraction` of `total` recordings are in the list `bad`.

    `listing` is the file to which `bad` was written, if any; the error message names it.
    """
    if len(bad) > max_fraction * total:
        where = "" if listing is None else f" (all of them: {listing})"
        raise InputError(
            f"{len(bad)} of {total} recordings cannot be used, more than {100 * max_fraction:g} %; "
            f"the first: {bad[0]['reason']}{where}. Repair them, or "
            "allow more with --max-bad-fraction"
        )
