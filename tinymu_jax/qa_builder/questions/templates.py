"""Read the templates of questions and answers in templates.csv.

format     open, choice, binary: an open, multiple-choice or yes/no question; family: a question for
           the family of tags; answer: a sentence that answers an open question; caption: a request
           for a caption; letter: a request for the letter only
category   category of the tags; empty for caption and letter
wording    text of the template; in binary and answer, "{}" stands for the tags
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES
from tinymu_jax.errors import InputError
from tinymu_jax.utils.tables import TableRow, read_rows

BUILT_IN = Path(__file__).with_name("templates.csv")
COLUMNS = ("format", "category", "wording")
FAMILIES = ("instrument", "genre")
"""Categories whose tags form families ("strings") that questions can ask for."""
FORMATS: Mapping[str, Sequence[str]] = {
    "open": CATEGORIES,
    "family": FAMILIES,
    "choice": CATEGORIES,
    "binary": CATEGORIES,
    "answer": CATEGORIES,
    "caption": ("",),
    "letter": ("",),
}
"""Categories that need at least one template, by template format."""
FORMATS_WITH_PHRASE = ("binary", "answer")
PLACEHOLDER = "{}"
_REMEDY = f"name a csv of {', '.join(COLUMNS)}"


class Templates(NamedTuple):
    """Wordings of questions and answers, by (format, category)."""

    by_format: Mapping[tuple[str, str], tuple[str, ...]]

    def of(self, format: str, category: str = "") -> tuple[str, ...]:
        """Return the templates of a format for a category ("" for formats without categories)."""
        return self.by_format[format, category]


def read_templates(path: Path = BUILT_IN) -> Templates:
    """Return the templates in a csv file; raise `InputError` if one is malformed or missing."""
    texts: dict[tuple[str, str], list[str]] = {
        (name, category): [] for name, categories in FORMATS.items() for category in categories
    }
    for row in read_rows(path, COLUMNS, _REMEDY):
        same_kind = texts.get((row.text("format"), row.text("category")))
        if same_kind is None:
            kind = f"{row.text('format')!r} of {row.text('category')!r}"
            raise row.fault(f"is for {kind}, which does not exist; correct format and category")
        same_kind.append(_checked(row, same_kind))
    for (name, category), same_kind in texts.items():
        if not same_kind:
            kind = f"{name} of {category}" if category else name
            raise InputError(f"{path}: has no template for {kind}; add one")
    return Templates({kind: tuple(same_kind) for kind, same_kind in texts.items()})


def _checked(row: TableRow, previous: Sequence[str]) -> str:
    """Return the template in a row; raise `InputError` if it is malformed or in `previous`."""
    text = row.filled("wording")
    if text in previous:
        raise row.fault(f"repeats the template {text!r}; remove it")
    num_phrases = int(row.text("format") in FORMATS_WITH_PHRASE)
    braces = text.count("{") + text.count("}")
    if text.count(PLACEHOLDER) != num_phrases or braces != 2 * num_phrases:
        remedy = f"write {PLACEHOLDER} once" if num_phrases else "remove the braces"
        raise row.fault(f"has the template {text!r}; {remedy}")
    return text


def join_names(names: Sequence[str]) -> str:
    """Return names as an enumeration in a sentence: "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
