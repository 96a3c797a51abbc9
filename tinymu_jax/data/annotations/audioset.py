"""Reader of AudioSet's music segments, with labels from its ontology (Gemmeke et al.)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.source import Source, unique_clips
from tinymu_jax.errors import InputError
from tinymu_jax.utils.json_records import read_json_records
from tinymu_jax.utils.tables import TableRow, read_lines, to_rows

NAME = "AudioSet"
LICENCE = "CC BY 4.0, ontology CC BY-SA 4.0"
MUSIC = "/m/04rlf"
"""Identifier of AudioSet's class Music."""
NOT_USED = "blacklist"
"""Entry in the `restrictions` of the AudioSet classes that label no segment."""
COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
TEST_SETS = {"eval_segments.csv": ("AudioSet eval",)}
"""File name of a csv of segments -> names of the test sets that contain the segments."""
_SEGMENTS = f"name a csv of AudioSet's segments ({', '.join(COLUMNS)})"
_ONTOLOGY = "name AudioSet's ontology.json"


class Ontology(NamedTuple):
    """Names and children of AudioSet's classes, by class identifier."""

    names: Mapping[str, str]
    """Lower-case name of each class."""
    children: Mapping[str, tuple[str, ...]]
    """Identifiers of the children of Music and of each of its descendants."""
    leaves: frozenset[str]
    """Identifiers of the descendants of Music that have no children in use as labels."""


def read_ontology(path: Path) -> Ontology:
    """Read AudioSet's ontology.json.

    A class counts as a leaf if it has no children, or only blacklisted ones (as "Saxophone").

    Raises:
        InputError: the file is not an ontology, lacks the class Music, or names a child class that
            it does not define.
    """
    classes = {}
    for where, record in read_json_records(path, _ONTOLOGY):
        if not _is_class(record):
            problem = "is not a class with id, name, child_ids and restrictions"
            raise InputError(f"{where} {problem}; {_ONTOLOGY}")
        classes[record["id"]] = record
    for name in (MUSIC, *(child for entry in classes.values() for child in entry["child_ids"])):
        if name not in classes:
            raise InputError(f"{path}: has no class {name}; {_ONTOLOGY}")
    children: dict[str, tuple[str, ...]] = {}
    queue = [MUSIC]
    while queue:
        name = queue.pop()
        if name not in children:
            children[name] = tuple(classes[name]["child_ids"])
            queue += children[name]
    used = {name for name, entry in classes.items() if NOT_USED not in entry["restrictions"]}
    leaves = (name for name in children if name != MUSIC and used.isdisjoint(children[name]))
    names = {name: entry["name"].strip().lower() for name, entry in classes.items()}
    return Ontology(names, children, frozenset(leaves))


def _is_class(record: Any) -> bool:
    kinds = {"id": str, "name": str, "child_ids": list, "restrictions": list}
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), kind) for key, kind in kinds.items())
        and all(isinstance(child, str) for child in record["child_ids"])
    )


def read_audioset(path: Path, ontology: Path) -> Source:
    """Read a csv of AudioSet's segments, skipping segments that are not labelled as music.

    Music labels are the class Music and its descendants. A clip's tags are its music labels that
    are leaves of the ontology, as in the TinyMU paper. Tags have no categories. `ontology` is the
    path of ontology.json.
    """
    known = read_ontology(ontology)
    clips: list[tuple[TableRow, AnnotatedClip]] = []
    no_music = 0
    # Lines that begin with "#" are skipped; the last of these lines names the columns.
    lines = (line for line in read_lines(path, _SEGMENTS, ",") if not line[1][0].startswith("#"))
    for row in to_rows(path, lines, COLUMNS, COLUMNS, _SEGMENTS):
        labels = [label.strip() for label in row.filled("positive_labels").split(",")]
        unknown = [label for label in labels if label not in known.names]
        if unknown:
            raise row.fault(f"has the label {unknown[0]!r}, which {ontology} lacks; {_SEGMENTS}")
        if known.children.keys().isdisjoint(labels):
            no_music += 1
            continue
        leaves = tuple(known.names[label] for label in labels if label in known.leaves)
        name, (start, end) = row.filled("YTID"), row.time_span("start_seconds", "end_seconds")
        clip = AnnotatedClip(
            clip=name,
            file=f"{name}.wav",
            source=NAME,
            licence=LICENCE,
            tags={UNSORTED: leaves} if leaves else {},
            start=start,
            end=end,
            test_sets=TEST_SETS.get(path.name, ()),
        )
        clips.append((row, clip))
    return Source(NAME, unique_clips(clips), no_music=no_music)
