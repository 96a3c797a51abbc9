"""Write a built question-answer set to a folder.

lists/<source>.json   questions about the clips of one data set, as a MusicSkills list
stats.md              numbers of questions, accuracies of baselines without audio, dropped data
data_card.md          data sets, licences, evidence for the answers, settings
leak_report.json      number and examples of the questions that leak from each test set
unknown_labels.csv    labels that are not in the vocabulary, with their numbers of clips
build.json            settings of the build
"""

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.build import BuildResult
from tinymu_jax.qa_builder.cards import data_card, stats_page
from tinymu_jax.qa_builder.contamination.check import LeakReport
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.utils.files import exists, make_folder, write_json, write_text

LISTS, STATS, CARD = "lists", "stats.md", "data_card.md"
LEAK_REPORT, UNKNOWN_LABELS, SETTINGS = "leak_report.json", "unknown_labels.csv", "build.json"

MAX_LIST_NAME = 200
"""Bytes of the longest name of a list: names of files have up to 255."""


def list_name(source: str) -> str:
    """Return the file name of the list of questions about one data set's clips."""
    name = re.sub(r"[^\w-]+", "_", source).strip("_")
    return name.encode()[:MAX_LIST_NAME].decode(errors="ignore") + ".json"


def write_set(
    output: Path, result: BuildResult, leaks: LeakReport, settings: Mapping[str, Any]
) -> list[Path]:
    """Write a built set to a folder, replacing an earlier set; return the paths of the lists.

    Raises `InputError` if the folder cannot be written, or has other lists but no build.json.
    """
    output = make_folder(output)
    names = {list_name(item.clip.source) for item in result.items}
    others = [p for p in sorted((output / LISTS).glob("*.json")) if p.name not in names]
    if others and not exists(output / SETTINGS):
        raise InputError(
            f"{others[0]}: was not written by a build; move it, or name another folder"
        )
    paths = _write_lists(output / LISTS, result.items)
    for path in others:
        path.unlink()
    write_text(output / STATS, stats_page(result))
    values = {name: json.dumps(value) for name, value in settings.items()}
    card = data_card(result, _licences(result.items), leaks.summary(), values)
    write_text(output / CARD, card)
    write_json(output / LEAK_REPORT, leaks.to_dict())
    text = io.StringIO()
    unknown = sorted(result.normalized.unknown.items(), key=lambda row: (-row[1], row[0]))
    csv.writer(text, lineterminator="\n").writerows([("label", "clips"), *unknown])
    write_text(output / UNKNOWN_LABELS, text.getvalue())
    write_json(output / SETTINGS, settings)
    return paths


def _write_lists(folder: Path, items: Sequence[QAItem]) -> list[Path]:
    make_folder(folder)
    paths = []
    for source in dict.fromkeys(item.clip.source for item in items):
        records = (item.to_record() for item in items if item.clip.source == source)
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        paths.append(folder / list_name(source))
        write_text(paths[-1], f"[\n{lines}\n]\n")
    return paths


def _licences(items: Sequence[QAItem]) -> dict[str, str]:
    """Return the licences of each data set's clips, joined by commas, most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        counts[item.clip.source][item.clip.licence or "not stated"] += 1
    return {
        source: ", ".join(sorted(licences, key=lambda name: (-licences[name], name)))
        for source, licences in counts.items()
    }
