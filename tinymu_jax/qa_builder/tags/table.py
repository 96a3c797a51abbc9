"""The table of tags, and a user's additions to it.

category   one of `CATEGORIES`; quality and ignored: words that ask nothing; denial: the name is of
           the tags that its words deny; only: its words say that nothing else plays
name       of the tag; for denial, of several between "|"
parents    tags of the category that it belongs to, between "|"
synonyms   labels that mean it, between "|"; a label may stand with several tags
group      yes: nothing is asked about it (optional column)
phrase     how it stands in a sentence, where it is not as its category says (optional column)
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES
from tinymu_jax.data.annotations.tables import TableRow, read_rows
from tinymu_jax.qa_builder.tags.words import key_of

COLUMNS = ("category", "name", "parents", "synonyms")

SILENT = ("quality", "ignored")
"""Categories of words that ask nothing."""

DENIAL, ONLY = "denial", "only"

SEVERAL = "|"

_REMEDY = f"name a csv of {', '.join(COLUMNS)}"


class Tag(NamedTuple):
    """What is asked about."""

    category: str
    """One of `CATEGORIES`."""
    name: str


class Meaning(NamedTuple):
    """What a label says of a recording."""

    tags: tuple[Tag, ...] = ()
    denied: tuple[Tag, ...] = ()
    """Tags that it does not have."""
    only: bool = False
    """Whether it says that nothing plays that is not named."""
    left_out: bool = False
    """Whether it asks nothing: the quality of a recording, a video, a word that is not heard."""


class TagTable(NamedTuple):
    """What tables say."""

    parents: Mapping[Tag, tuple[Tag, ...]]
    """Of every tag, in the order of `CATEGORIES`, then of their names."""
    meanings: Mapping[str, Meaning]
    """By the labels' `key_of`."""
    groups: frozenset[Tag]
    """Tags that nothing is asked about."""
    phrases: Mapping[Tag, str]


def read_table(paths: Iterable[Path]) -> TagTable:
    """Reads tables; a later one may add parents, labels and a phrase to a tag of an earlier one.

    Raises:
        InputError: a file is no such table; a row has an unknown category, no name, a parent or
            denied tag that is no tag, a name of its category that another row of the file has, or
            a label without a word; a tag is above itself.
    """
    rows = [row for path in paths for row in _checked(path)]
    own = [row for row in rows if row.text("category") in CATEGORIES]
    order = {category: place for place, category in enumerate(CATEGORIES)}
    tags = sorted({_tag(row) for row in own}, key=lambda tag: (order[tag.category], tag.name))
    parents: dict[Tag, tuple[Tag, ...]] = dict.fromkeys(tags, ())
    for row in own:
        parents[_tag(row)] += tuple(_parents(row, parents))
    _refuse_circles(own, parents)
    return TagTable(
        parents,
        _meanings(rows, parents),
        frozenset(_tag(row) for row in own if row.text("group")),
        {_tag(row): row.text("phrase") for row in own if row.text("phrase")},
    )


def parts(text: str) -> list[str]:
    """Returns what stands between the "|" of a field."""
    return [part.strip() for part in text.split(SEVERAL) if part.strip()]


def _tag(row: TableRow) -> Tag:
    return Tag(row.text("category"), row.text("name"))


def _checked(path: Path) -> list[TableRow]:
    """Returns the rows of one table."""
    rows = list(read_rows(path, COLUMNS, _REMEDY))
    known = (*CATEGORIES, *SILENT, DENIAL, ONLY)
    lines: dict[Tag, int] = {}
    for row in rows:
        tag = Tag(row.text("category"), row.filled("name"))
        if tag.category not in known:
            raise row.fault(f"has the category {tag.category!r}; take one of {', '.join(known)}")
        if row.text("group") not in ("", "yes"):
            raise row.fault(f"has {row.text('group')!r} as group; write yes, or nothing")
        first = lines.setdefault(tag, row.line)
        if first != row.line:
            raise row.fault(f"names {tag.name!r} again, as line {first} does; make one of them")
    return rows


def _parents(row: TableRow, tags: Mapping[Tag, object]) -> list[Tag]:
    found = [Tag(row.text("category"), name) for name in parts(row.text("parents"))]
    for parent in found:
        if parent not in tags:
            raise row.fault(
                f"has the parent {parent.name!r}, which is no {parent.category} of its own; add a "
                "line for it"
            )
    return found


def _refuse_circles(rows: Sequence[TableRow], parents: Mapping[Tag, tuple[Tag, ...]]) -> None:
    for row in rows:
        above, waiting = set(), list(parents[_tag(row)])
        while waiting:
            one = waiting.pop()
            if one not in above:
                above.add(one)
                waiting += parents[one]
        if _tag(row) in above:
            raise row.fault(f"puts {row.text('name')!r} below itself; take a parent out")


def _meanings(rows: Sequence[TableRow], tags: Mapping[Tag, object]) -> dict[str, Meaning]:
    """Returns what labels mean, all rows together."""
    found: dict[str, Meaning] = {}
    for row in rows:
        own, labels = _meaning(row, tags), parts(row.text("synonyms"))
        if row.text("category") not in (DENIAL, ONLY):
            labels = [row.text("name"), *labels]
        for label in labels:
            key = key_of(label)
            if not key:
                raise row.fault(
                    f"has the synonym {label!r}, in which there is no word; take it out"
                )
            so_far = found.get(key, Meaning())
            # A label that also means a tag asks something.
            tags_of, denied = {*so_far.tags, *own.tags}, {*so_far.denied, *own.denied}
            only = so_far.only or own.only
            silent = not (tags_of or denied or only)
            found[key] = Meaning(tuple(sorted(tags_of)), tuple(sorted(denied)), only, silent)
    return found


def _meaning(row: TableRow, tags: Mapping[Tag, object]) -> Meaning:
    """Returns what one row adds to the meaning of its labels."""
    category = row.text("category")
    if category in CATEGORIES:
        return Meaning(tags=(_tag(row),))
    if row.text("parents"):
        raise row.fault(f"has parents, which a row of {category} has not; take them out")
    if category != DENIAL:
        return Meaning(only=category == ONLY, left_out=category in SILENT)
    names = parts(row.text("name"))
    for name in names:
        if not any(tag.name == name for tag in tags):
            raise row.fault(f"denies {name!r}, which is no tag; correct the name")
    return Meaning(denied=tuple(tag for tag in tags if tag.name in names))
