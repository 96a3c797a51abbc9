"""Reads lists of records from JSON and JSON lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import parse_json, read_text

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
LINE_SUFFIXES = JSON_SUFFIXES[1:]
"""Suffixes of files of JSON lines: one JSON object in each line."""


def read_json_records(path: str | Path, remedy: str) -> Iterator[tuple[str, Any]]:
    """Yield the place ("list.json: record 0") and the content of each record in a file.

    The file holds a JSON list, JSON lines, or an object that holds one list of objects, such as
    {"data": [...]}; they are told apart by suffix or content. An empty file has no records.

    Raises:
        InputError: the file cannot be read or has another content; the message ends with the advice
            `remedy`.
    """
    text = read_text(path, remedy)
    if _is_json_lines(text, Path(path).suffix):
        # Lines are split at "\n" only, since texts may contain other line separators.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{path}: line {number}"
                yield where, parse_json(line, where, remedy)
        return
    content = parse_json(text, path, remedy) if text.strip() else []
    if isinstance(content, dict):
        lists = [value for value in content.values() if _is_list_of_objects(value)]
        content = lists[0] if len(lists) == 1 else None
    if not isinstance(content, list):
        raise InputError(f"{path}: is not a list of records; {remedy}")
    for number, record in enumerate(content):
        yield f"{path}: record {number}", record


def _is_json_lines(text: str, suffix: str) -> bool:
    """Return whether a text is one JSON object per line, by its suffix or its first two lines."""
    first, _, rest = text.strip().partition("\n")
    if not first.startswith("{"):
        return False
    if suffix.lower() in LINE_SUFFIXES:
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
