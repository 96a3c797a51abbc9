"""The values to write into recordings' tags: read from descriptions, renamed by a vocabulary."""

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tinymu_jax.audio.files import composed
from tinymu_jax.errors import InputError, translate
from tinymu_jax.utils.files import printable, read_text
from tinymu_jax.utils.json_records import read_json_records

MEASURED = ("comment", "bpm", "key")
"""Fields that every description may have, besides those of its fields file."""
Values = Mapping[str, Sequence[str]]
"""Name of a field -> the values to write; a field of unknown value is left out."""
Renames = Mapping[str, Mapping[str, Sequence[str]]]
"""Name of a field -> value -> the values to write instead of it."""
_KEY = re.compile(r"([A-G])([#♯b♭]?) (major|minor)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CAPTION_REMEDY = "name a jsonl file that `tinymu caption` wrote"


def read_descriptions(path: Path) -> dict[str, dict[str, Any]]:
    """Read a jsonl file that `tinymu caption` wrote, as a map from file to JSON object.

    Files are named by `file_key`. The last description of a file counts.

    Raises:
        InputError: the file cannot be read, or a line is no description.
    """
    descriptions = {}
    for where, row in read_json_records(path, _CAPTION_REMEDY):
        if not isinstance(row, dict) or not isinstance(row.get("file"), str):
            raise InputError(f"{where}: is not a description; {_CAPTION_REMEDY}")
        if "error" not in row:
            check_description(row, where)
            descriptions[file_key(row["file"])] = row
    if not descriptions:
        raise InputError(f"{path}: has no descriptions; {_CAPTION_REMEDY}")
    return descriptions


def file_key(name: str) -> str:
    """Return the form of a path in which files are compared with those in descriptions."""
    return composed(posixpath.normpath(printable(name).replace(os.sep, "/")))


def check_description(row: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` if a description's JSON object has values of other types than expected."""
    fields = row.get("fields") or {}
    texts = [row.get("caption"), row.get("key")]
    if isinstance(fields, dict):
        texts += [v.get("value") if isinstance(v, dict) else 0 for v in fields.values()]
    numbers = [row.get("bpm"), row.get("seconds")]
    if not isinstance(fields, dict) or not (
        all(text is None or isinstance(text, str) for text in texts)
        and all(x is None or _is_number(x) for x in numbers)
    ):
        raise InputError(f"{where}: is not a description; {_CAPTION_REMEDY}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def known_names(descriptions: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the fields that descriptions have, and those that are measured."""
    names = (name for row in descriptions for name in row.get("fields") or ())
    return tuple(dict.fromkeys((*MEASURED, *names)))


def check_names(names: Iterable[str], known: Sequence[str], by: str) -> None:
    """Raise `InputError` if an option `by` names a field that is not among the `known`."""
    for name in names:
        if name not in known:
            raise InputError(f"{by} {name}: is no field; there are {', '.join(known)}")


def split_names(text: str, by: str) -> tuple[str, ...]:
    """Return the names of fields in an option such as "genre,mood"; refuse an empty name."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"{by} {text}: name each field once, separated by commas")
    return names


def read_renames(path: Path) -> Renames:
    """Read a vocabulary: a yaml file with a map per field, from values to values.

    A value may become several (a list), or none (an empty list)::

        genre:
          electronic: Electronica
          hip hop: [Hip-Hop, Rap]
          other: []

    Raises:
        InputError: the file is no such map.
    """
    remedy = "write a map for each field, such as `genre: {electronic: Electronica}`"
    text = read_text(path, remedy)
    # Without a schema, all scalars are texts: "no" and "80" are values as they stand.
    with translate(f"{path}: is not yaml ({{reason}}); {remedy}"):
        content = yaml.load(text, Loader=yaml.BaseLoader)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"{path}: is no map of maps; {remedy}")
    renames: dict[str, dict[str, list[str]]] = {}
    for field, pairs in content.items():
        renames[field] = {}
        for old, new in pairs.items():
            values = new if isinstance(new, list) else [new]
            for value in (old, *values):
                if not isinstance(value, str) or not value.strip():
                    raise InputError(f"{path}: {field} has {value!r}, which is no value; {remedy}")
            renames[field][old] = values
    return renames


def tag_values(row: Mapping[str, Any], names: Iterable[str], renames: Renames) -> Values:
    """Return the values of fields of a description's JSON object.

    A key is in ID3's notation ("F#m"), a bpm has up to two decimals. Control characters are left
    out. What is unknown is left out; of silence, that is everything.
    """
    values: dict[str, tuple[str, ...]] = {}
    if row.get("silent"):
        return values
    for name in names:
        text = _text(row, name)
        if text:
            renamed = renames.get(name, {}).get(text, [text])
            values[name] = tuple(dict.fromkeys(renamed))
    return {name: texts for name, texts in values.items() if texts}


def _text(row: Mapping[str, Any], name: str) -> str:
    if name == "bpm":
        bpm = row.get("bpm")
        # NaN fails the comparison.
        return f"{bpm:.2f}".rstrip("0").rstrip(".") if bpm is not None and 0 < bpm < 1000 else ""
    if name == "key":
        return to_id3_key(row.get("key") or "")
    if name == "comment":
        value = row.get("caption")
    else:
        value = (row.get("fields") or {}).get(name, {}).get("value")
    return _CONTROL.sub("", value or "").strip()


def to_id3_key(key: str) -> str:
    """Return a key such as "F# minor" in ID3's notation, "F#m"; "" if it is no such key."""
    match = _KEY.fullmatch(key.strip())
    if match is None:
        return ""
    note, accidental, mode = match.groups()
    accidental = {"♯": "#", "♭": "b"}.get(accidental, accidental)
    return f"{note}{accidental}{'m' if mode == 'minor' else ''}"
