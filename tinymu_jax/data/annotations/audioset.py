"""AudioSet's segments with music, labelled by the leaves of its ontology (Gemmeke et al.)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.tables import Source, TableRow, make_row, read_lines, unique_clips
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import read_json_list

NAME = "AudioSet"

LICENCE = "CC BY 4.0, ontology CC BY-SA 4.0"

MUSIC = "/m/04rlf"
"""The identifier of the class Music."""

NOT_USED = "blacklist"
"""The restriction of classes that no segment is labelled with."""

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")

TEST_SETS = {"eval_segments.csv": ("AudioSet eval",)}
"""By the names of the files."""

_SEGMENTS = f"name a csv of AudioSet's segments ({', '.join(COLUMNS)})"

_ONTOLOGY = "name AudioSet's ontology.json"


class Ontology(NamedTuple):
    """What is under Music."""

    names: Mapping[str, str]
    """Of all classes, in small letters, by their identifiers."""
    music: frozenset[str]
    """Music itself and all classes below it."""
    leaves: frozenset[str]
    """Those of them that have no class below them that segments are labelled with."""
    parents: Mapping[str, tuple[str, ...]]
    """The classes right above each class below Music, without Music itself, in the file's order."""


def read_ontology(path: Path) -> Ontology:
    """Reads AudioSet's ontology.

    A class whose every class below is blacklisted ("Saxophone") is a leaf: nothing of the segments
    is said more exactly.

    Raises:
        InputError: it is something else, or a class names one that is not there.
    """
    classes = {}
    for number, record in enumerate(read_json_list(path, _ONTOLOGY)):
        if not _is_class(record):
            problem = "is no class with id, name, child_ids and restrictions"
            raise InputError(f"{path}: record {number} {problem}; {_ONTOLOGY}")
        classes[record["id"]] = record
    for name in (MUSIC, *(child for one in classes.values() for child in one["child_ids"])):
        if name not in classes:
            raise InputError(f"{path}: has no class {name}; {_ONTOLOGY}")
    below: dict[str, tuple[str, ...]] = {}
    waiting = [MUSIC]
    while waiting:
        one = waiting.pop()
        if one not in below:
            below[one] = tuple(classes[one]["child_ids"])
            waiting += below[one]
    parents: dict[str, tuple[str, ...]] = {}
    for name in classes:
        if name in below and name != MUSIC:
            above = (one for one in classes if one != MUSIC and name in below.get(one, ()))
            parents[name] = tuple(above)
    used = {name for name in classes if NOT_USED not in classes[name]["restrictions"]}
    leaves = (name for name in parents if used.isdisjoint(below[name]))
    names = {name: one["name"].strip().lower() for name, one in classes.items()}
    return Ontology(names, frozenset(below), frozenset(leaves), parents)


def _is_class(record: Any) -> bool:
    kinds = {"id": str, "name": str, "child_ids": list, "restrictions": list}
    return isinstance(record, dict) and all(
        isinstance(record.get(key), kind) for key, kind in kinds.items()
    )


def read_audioset(path: Path, ontology: Path) -> Source:
    """Reads a csv of AudioSet's segments: those labelled Music, or with a class below it.

    Labels are the names of the leaves under Music, as in the paper. They have no categories.

    Args:
        path: of the csv; eval_segments.csv is held out.
        ontology: path of ontology.json.

    Raises:
        InputError: one is another file, or a row that cannot be used; the message names its line.
    """
    known = read_ontology(ontology)
    test_sets = TEST_SETS.get(path.name, ())
    found: list[tuple[int, AnnotatedClip]] = []
    no_music = 0
    for row in _rows(path):
        labels = [label.strip() for label in row.filled(COLUMNS[3]).split(",")]
        unknown = [label for label in labels if label not in known.names]
        if unknown:
            raise row.fault(f"has the label {unknown[0]!r}, which {ontology} lacks; {_SEGMENTS}")
        if known.music.isdisjoint(labels):
            no_music += 1
            continue
        leaves = tuple(known.names[label] for label in labels if label in known.leaves)
        found.append((row.line, _clip(row, leaves, test_sets)))
    return Source(NAME, unique_clips(path, found), no_music=no_music)


def _clip(row: TableRow, leaves: tuple[str, ...], test_sets: tuple[str, ...]) -> AnnotatedClip:
    name, (start, end) = row.filled(COLUMNS[0]), row.span(*COLUMNS[1:3])
    return AnnotatedClip(
        clip=name,
        file=f"{name}.wav",
        source=NAME,
        licence=LICENCE,
        tags={UNSORTED: leaves} if leaves else {},
        start=start,
        end=end,
        test_sets=test_sets,
    )


def _rows(path: Path) -> Iterator[TableRow]:
    """Yields the rows below the lines of comment, the last of which names the columns."""
    for line, cells in read_lines(path, _SEGMENTS):
        if cells[0].startswith("#"):
            continue
        if len(cells) != len(COLUMNS):
            raise InputError(
                f"{path}: line {line} has {len(cells)} fields, and not {len(COLUMNS)}; {_SEGMENTS}"
            )
        yield make_row(path, line, COLUMNS, cells)
