"""A built set as a folder.

lists/<source>.json   a MusicSkills list of each source
stats.md              what it holds, and what can be had without listening
data_card.md          sources, licences, how answers are known
leak_report.json      what was checked against which test sets
unknown_labels.csv    labels that the vocabulary does not know
build.json            what it was made with
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.build import BuildResult
from tinymu_jax.qa_builder.cards import data_card, stats_page
from tinymu_jax.qa_builder.contamination.check import LeakReport
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.utils.files import exists, make_folder, write_json, write_text

LISTS, STATS, CARD = "lists", "stats.md", "data_card.md"

LEAK_REPORT, UNKNOWN, MADE_WITH = "leak_report.json", "unknown_labels.csv", "build.json"


def list_name(source: str) -> str:
    """Returns the file name of a source's list."""
    return re.sub(r"[^\w-]+", "_", source).strip("_") + ".json"


def write_list(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes a list, a record a line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    write_text(path, f"[\n{lines}\n]\n")


def write_lists(folder: Path, items: Sequence[QAItem]) -> list[Path]:
    """Writes the list of each source, and returns the paths."""
    paths = []
    for source in dict.fromkeys(item.clip.source for item in items):
        paths.append(make_folder(folder) / list_name(source))
        write_list(paths[-1], (item.to_record() for item in items if item.clip.source == source))
    return paths


def licences_of(items: Sequence[QAItem]) -> dict[str, str]:
    """Returns the licences of each source's clips, the most frequent first."""
    found: dict[str, dict[str, int]] = {}
    for clip in dict.fromkeys((item.clip.source, item.clip.licence) for item in items):
        found.setdefault(clip[0], {})[clip[1] or "not stated"] = 0
    for item in items:
        found[item.clip.source][item.clip.licence or "not stated"] += 1
    return {
        source: ", ".join(sorted(own, key=lambda name: (-own[name], name)))
        for source, own in found.items()
    }


def _refuse_others(output: Path, items: Sequence[QAItem]) -> None:
    """Refuses a folder with lists that nothing says are of an earlier build."""
    if exists(output / MADE_WITH):
        return
    own = {list_name(item.clip.source) for item in items}
    for path in sorted((output / LISTS).glob("*.json")):
        if path.name not in own:
            raise InputError(f"{path}: is of no earlier build; move it, or name another folder")


def write_set(
    output: Path, built: BuildResult, leaks: LeakReport, settings: Mapping[str, Any]
) -> list[Path]:
    """Writes a folder as above; what an earlier build left there is replaced.

    Raises:
        InputError: the place cannot be written to, or holds lists of no build.
    """
    output = make_folder(output)
    _refuse_others(output, built.items)
    paths = write_lists(output / LISTS, built.items)
    for other in (output / LISTS).glob("*.json"):
        if other not in paths:
            other.unlink()
    write_text(output / STATS, stats_page(built))
    shown = {name: json.dumps(value) for name, value in settings.items()}
    card = data_card(built, licences_of(built.items), leaks.summary(), shown)
    write_text(output / CARD, card)
    write_json(output / LEAK_REPORT, leaks.to_dict())
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows(
        [
            ("label", "clips"),
            *sorted(built.named.unknown.items(), key=lambda row: (-row[1], row[0])),
        ]
    )
    write_text(output / UNKNOWN, rows.getvalue())
    write_json(output / MADE_WITH, settings)
    return paths
