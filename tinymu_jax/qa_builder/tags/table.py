"""Read the table of tags (tags.csv) and a user's table with more tags and labels.

category   category of the tag, one of `CATEGORIES`; or what the row's labels do: "quality" and
           "ignored" (no question asks about the label), "denial" (the label denies the tags in
           name), "only" (the label says that nothing else plays)
name       name of the tag; for "denial", names of tags, separated by "|"
parents    names of broader tags of the same category, separated by "|"
synonyms   labels that mean the tag, separated by "|"; several tags may have the same label
group      "yes": no question asks about the tag, which only groups others (optional column)
phrase     wording of the tag in a sentence, if its category's rule is wrong (optional column)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES
from tinymu_jax.qa_builder.tags.words import label_key
from tinymu_jax.utils.tables import TableRow, read_rows

COLUMNS = ("category", "name", "parents", "synonyms")
IGNORED = ("quality", "ignored")
"""Categories of labels that no question asks about."""
DENIAL, ONLY = "denial", "only"
_REMEDY = f"name a csv of {', '.join(COLUMNS)}"


class Tag(NamedTuple):
    """An instrument, genre, mood or other property of music that questions can ask about."""

    category: str
    """One of `CATEGORIES`."""
    name: str


class LabelMeaning(NamedTuple):
    """Tags that a label gives and denies, and what else the label says about a recording."""

    tags: tuple[Tag, ...] = ()
    denied: tuple[Tag, ...] = ()
    """Tags that the recording does not have."""
    only: bool = False
    """Whether the label says that only the instruments in the recording's labels play."""
    ignored: bool = False
    """Whether no question can ask about the label: recording quality, video, non-musical words."""


@dataclass(frozen=True, eq=False)
class TagTable:
    """Tags and labels of one or more tables."""

    parents: Mapping[Tag, tuple[Tag, ...]]
    """Parents of every tag; the tags are in the order of `CATEGORIES`, then of their names."""
    meanings: Mapping[str, LabelMeaning]
    """Meaning of every label, by the label's `label_key`."""
    groups: frozenset[Tag] = frozenset()
    """Tags that only group other tags; no question asks about them."""
    phrases: Mapping[Tag, str] = field(default_factory=dict)
    """Wordings of tags in a sentence, for tags that break the rule of their category."""


def read_table(paths: Iterable[Path]) -> TagTable:
    """Read and merge tables; a later table may add parents, labels and a phrase to a tag.

    Raises:
        InputError: a file is no csv with the columns `COLUMNS`; a row has an unknown category, an
            empty or repeated name, an unknown parent or denied tag, or a label without a word; or a
            tag is its own ancestor.
    """
    rows = [row for path in paths for row in _checked_rows(path)]
    tag_rows = [row for row in rows if row.text("category") in CATEGORIES]
    order = {category: place for place, category in enumerate(CATEGORIES)}
    tags = sorted({_tag(row) for row in tag_rows}, key=lambda tag: (order[tag.category], tag.name))
    parents: dict[Tag, tuple[Tag, ...]] = dict.fromkeys(tags, ())
    for row in tag_rows:
        parents[_tag(row)] += tuple(_parents(row, parents))
    _check_acyclic(tag_rows, parents)
    return TagTable(
        parents,
        _meanings(rows, parents),
        frozenset(_tag(row) for row in tag_rows if row.text("group")),
        {_tag(row): row.text("phrase") for row in tag_rows if row.text("phrase")},
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split("|") if part.strip()]


def _tag(row: TableRow) -> Tag:
    return Tag(row.text("category"), row.text("name"))


def _checked_rows(path: Path) -> list[TableRow]:
    rows = list(read_rows(path, COLUMNS, _REMEDY))
    categories = (*CATEGORIES, *IGNORED, DENIAL, ONLY)
    lines: dict[Tag, int] = {}
    for row in rows:
        tag = Tag(row.text("category"), row.filled("name"))
        if tag.category not in categories:
            raise row.fault(
                f"has the category {tag.category!r}; use one of {', '.join(categories)}"
            )
        if row.text("group") not in ("", "yes"):
            raise row.fault(f"has {row.text('group')!r} as group; write yes, or nothing")
        first = lines.setdefault(tag, row.line)
        if first != row.line:
            raise row.fault(f"repeats the name {tag.name!r} of line {first}; merge the lines")
    return rows


def _parents(row: TableRow, tags: Mapping[Tag, object]) -> list[Tag]:
    parents = [Tag(row.text("category"), name) for name in _split(row.text("parents"))]
    for parent in parents:
        if parent not in tags:
            raise row.fault(
                f"has the parent {parent.name!r}, which is not a tag of the category "
                f"{parent.category}; add a line for it"
            )
    return parents


def _check_acyclic(rows: Sequence[TableRow], parents: Mapping[Tag, tuple[Tag, ...]]) -> None:
    for row in rows:
        ancestors, pending = set(), list(parents[_tag(row)])
        while pending:
            tag = pending.pop()
            if tag not in ancestors:
                ancestors.add(tag)
                pending += parents[tag]
        if _tag(row) in ancestors:
            raise row.fault(f"makes {row.text('name')!r} its own ancestor; remove a parent")


def _meanings(rows: Sequence[TableRow], tags: Mapping[Tag, object]) -> dict[str, LabelMeaning]:
    """Return the meaning of each label, merged over all rows that have the label."""
    meanings: dict[str, LabelMeaning] = {}
    for row in rows:
        added, labels = _meaning(row, tags), _split(row.text("synonyms"))
        if row.text("category") not in (DENIAL, ONLY):
            labels = [row.text("name"), *labels]
        for label in labels:
            key = label_key(label)
            if not key:
                raise row.fault(f"has the synonym {label!r}, which has no word; remove it")
            so_far = meanings.get(key, LabelMeaning())
            all_tags = tuple(sorted({*so_far.tags, *added.tags}))
            denied = tuple(sorted({*so_far.denied, *added.denied}))
            only = so_far.only or added.only
            meanings[key] = LabelMeaning(all_tags, denied, only, not (all_tags or denied or only))
    return meanings


def _meaning(row: TableRow, tags: Mapping[Tag, object]) -> LabelMeaning:
    """Return the meaning that a row of a table gives to its labels."""
    category = row.text("category")
    if category in CATEGORIES:
        return LabelMeaning(tags=(_tag(row),))
    if row.text("parents"):
        raise row.fault(f"has parents, which the category {category} does not allow; remove them")
    if category != DENIAL:
        return LabelMeaning(only=category == ONLY, ignored=category in IGNORED)
    names = _split(row.text("name"))
    for name in names:
        if not any(tag.name == name for tag in tags):
            raise row.fault(f"denies {name!r}, which is not a tag; correct the name")
    return LabelMeaning(denied=tuple(tag for tag in tags if tag.name in names))
