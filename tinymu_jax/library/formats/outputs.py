"""What each format writes and where; conflicts are found before anything is computed."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinymu_jax.errors import InputError, note
from tinymu_jax.library.description import Description
from tinymu_jax.library.formats.acestep import acestep_dataset
from tinymu_jax.library.formats.options import Format, FormatOptions
from tinymu_jax.library.formats.sidecars import SIDECAR_SUFFIXES, sidecar_path
from tinymu_jax.library.formats.tables import table_columns, write_csv, write_jsonl, write_parquet
from tinymu_jax.library.formats.webdataset import list_shards, write_shards
from tinymu_jax.utils.files import check_folder, make_folder, write_atomic, write_text

TABLE_NAMES = {
    "jsonl": "captions.jsonl",
    "csv": "captions.csv",
    "parquet": "captions.parquet",
    "acestep": "acestep.json",
    "webdataset": "captions",
}
"""Format -> default name of the file, for webdataset of the folder, that describes all recordings;
the other formats have none."""
_TABLE_WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


def check_outputs(
    format: Format, recordings: Sequence[Path], table: Path | None, options: FormatOptions
) -> None:
    """Raise `InputError` if recordings cannot be described in a format.

    `table` is where `write_table` will write; None for a format without a table. It is an error if
    two columns would have the same name, or if `table` is a folder where it should be a file, or
    the reverse. Notes tell of files that ACE-Step would confuse. See also
    `conflicting_recordings`.
    """
    if format in _TABLE_WRITERS:
        table_columns(options.fields)
    if table is not None and format == "webdataset":
        check_folder(table)
    elif table is not None:
        check_folder(table.parent)
        if table.is_dir():
            raise InputError(f"{table}: is a folder; name a file")
    if format == "acestep":
        _note_equal_names(recordings)
    others = {"acestep": "txt", "txt": "acestep"}.get(format)
    if others is not None and existing_outputs(others, recordings, None):
        note(
            "ACE-Step takes an x.txt beside a recording for lyrics; keep captions for it elsewhere"
        )


def conflicting_recordings(format: Format, recordings: Iterable[Path]) -> dict[Path, InputError]:
    """Return the recordings that a format has no place for, each with the error.

    Of recordings that would be described in one file, such as x.mp3 and x.flac in x.txt, all but
    the first in alphabetical order are returned.
    """
    first: dict[Path, Path] = {}
    errors = {}
    for recording in sorted(set(recordings)):
        path = sidecar_path(format, recording)
        if path is not None and first.setdefault(path, recording) != recording:
            errors[recording] = InputError(
                f"{recording}: would be described in {path.name}, as {first[path].name} is; rename "
                "one of them, or write a table (--format jsonl)"
            )
    return errors


def _note_equal_names(recordings: Iterable[Path]) -> None:
    paths = defaultdict(set)
    for recording in recordings:
        paths[recording.name].add(recording)
    equal = [name for name, group in paths.items() if len(group) > 1]
    if equal:
        # acestep/training_v2/preprocess_discovery.py: load_sample_metadata
        note(
            f"{len(equal):,} file names occur in several folders, such as {equal[0]}: ACE-Step's "
            "command line trainer knows a recording by its file name alone; rename them for it"
        )


def existing_outputs(format: Format, recordings: Iterable[Path], table: Path | None) -> list[Path]:
    """Return the files that exist of those that a format writes for recordings.

    `table` is as in `check_outputs`.
    """
    paths = [sidecar_path(format, recording) for recording in recordings]
    paths += list_shards(table) if table and format == "webdataset" else [table]
    return [path for path in paths if path is not None and os.path.lexists(path)]


def has_sidecars(format: Format) -> bool:
    """Return whether a format puts a file beside each recording."""
    return format in SIDECAR_SUFFIXES


def default_table(format: Format, folder: Path) -> Path | None:
    """Return where a format describes all recordings of a folder; None if it does not."""
    name = TABLE_NAMES.get(format)
    return None if name is None else folder / name


def write_table(
    format: Format,
    table: Path,
    described: Iterable[tuple[Path, Description]],
    options: FormatOptions,
) -> None:
    """Write the descriptions of all recordings, sorted by file, atomically.

    For webdataset, `table` is a folder, and each of its tar files is written atomically.

    Raises:
        InputError: the table cannot be written; or, for webdataset, a recording cannot be read.
    """
    ordered = sorted(described, key=lambda pair: pair[1].file)
    if format == "webdataset":
        write_shards(table, ordered, options)
        return
    make_folder(table.parent)
    if format == "acestep":
        content = acestep_dataset(ordered, options)
        write_text(table, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        return
    descriptions = [description for _, description in ordered]
    write_atomic(table, lambda partial: _TABLE_WRITERS[format](partial, descriptions, options))
