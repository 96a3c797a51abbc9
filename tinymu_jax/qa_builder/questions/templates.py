"""Templates of questions and answers, from the table wordings.csv.

format     open, choice, binary: a question; family: about what the tags belong to; answer: a
           sentence with the answer; caption: asks for one; letter: asks for a bare letter
category   what is asked about; empty for caption and letter
wording    "{}" stands for the tag's phrase, in binary and answer
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES
from tinymu_jax.data.annotations.tables import TableRow, read_rows
from tinymu_jax.errors import InputError

OWN = Path(__file__).with_name("templates.csv")

COLUMNS = ("format", "category", "wording")

FAMILIES = ("instrument", "genre")
"""Categories whose tags stand in a tree that can be asked about."""

FORMATS: Mapping[str, Sequence[str]] = {
    "open": CATEGORIES,
    "family": FAMILIES,
    "choice": CATEGORIES,
    "binary": CATEGORIES,
    "answer": CATEGORIES,
    "caption": ("",),
    "letter": ("",),
}
"""The categories that each has wordings for."""

FILLED = ("binary", "answer")
"""Formats whose wordings have a place for a phrase."""

PLACE = "{}"

_REMEDY = f"name a csv of {', '.join(COLUMNS)}"


class Templates(NamedTuple):
    """All of them."""

    found: Mapping[tuple[str, str], tuple[str, ...]]
    """By format and category."""

    def of(self, format: str, category: str = "") -> tuple[str, ...]:
        """Returns the wordings of a format for a category."""
        return self.found[format, category]


def read_templates(path: Path = OWN) -> Templates:
    """Reads wordings.

    Raises:
        InputError: the table cannot be read, or lacks a column; a row has an unknown format or
            category, no wording, one that comes twice, or "{}" where it does not belong; a format
            has none for a category.
    """
    found: dict[tuple[str, str], list[str]] = {
        (name, category): [] for name, categories in FORMATS.items() for category in categories
    }
    for row in read_rows(path, COLUMNS, _REMEDY):
        own = found.get((row.text("format"), row.text("category")))
        if own is None:
            wanted = f"{row.text('format')!r} of {row.text('category')!r}"
            raise row.fault(f"is for {wanted}, which nothing asks for; correct format and category")
        own.append(_checked(row, own))
    for (name, category), own in found.items():
        if not own:
            what = f"{name} of {category}" if category else name
            raise InputError(f"{path}: has no wording for {what}; add one")
    return Templates({about: tuple(own) for about, own in found.items()})


def _checked(row: TableRow, before: Sequence[str]) -> str:
    """Returns the wording of a row."""
    wording = row.filled("wording")
    if wording in before:
        raise row.fault(f"repeats the wording {wording!r}; take it out")
    wanted = int(row.text("format") in FILLED)
    braces = wording.count("{") + wording.count("}")
    if wording.count(PLACE) != wanted or braces != 2 * wanted:
        remedy = f"write {PLACE} once" if wanted else "take the braces out"
        raise row.fault(f"has the wording {wording!r}; {remedy}")
    return wording


def join_names(names: Sequence[str]) -> str:
    """Returns names as they stand in a sentence: "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
