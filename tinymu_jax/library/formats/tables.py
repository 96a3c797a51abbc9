"""Writes descriptions to one table: jsonl, csv or parquet, as the `datasets` library reads them."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymu_jax.errors import InputError
from tinymu_jax.library.description import Description
from tinymu_jax.library.formats.options import FormatOptions, caption_text
from tinymu_jax.utils.files import printable

if TYPE_CHECKING:
    import pyarrow

# ACE-Step 1.5 reads csv files beside recordings, too, and there the columns file, caption, bpm and
# key (training/dataset_builder_modules/csv_metadata.py).
COLUMNS = ("file", "seconds", "caption", "bpm", "key", "time_signature", "silent")
ROWS_PER_GROUP = 1_000
"""Rows that are written to a parquet file at a time."""


def table_columns(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a csv table; raise `InputError` if two have the same name."""
    columns = list(COLUMNS)
    for field in fields:
        columns += [field, f"{field}_probability", f"{field}_agreement"]
    repeated = next((name for name in columns if columns.count(name) > 1), None)
    if repeated is not None or "timeline" in columns:
        raise InputError(
            f"field {repeated or 'timeline'}: there is a column of this name; rename the field"
        )
    return tuple(columns)


def to_json(description: Description, options: FormatOptions) -> dict[str, Any]:
    """Return a description as a JSON object that any reader can parse.

    Unlike in `Description.to_json`, the caption has the trigger word, and the file's name is UTF-8
    (`printable`).
    """
    caption = None if description.silent else caption_text(description.caption, options)
    return description.to_json() | {"file": printable(description.file), "caption": caption}


def json_line(content: Any) -> str:
    """Return a JSON value in one line, as UTF-8 text."""
    return printable(json.dumps(content, ensure_ascii=False, allow_nan=False))


def to_row(description: Description, options: FormatOptions) -> list[Any]:
    """Return a description's values in the order of `table_columns`; None: unknown."""
    content = to_json(description, options)
    row = [content[name] for name in COLUMNS]
    for name in options.fields:
        row += description.fields.get(name, (None, None, None))
    return row


def write_jsonl(path: Path, descriptions: Iterable[Description], options: FormatOptions) -> None:
    """Write one JSON object per description."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for description in descriptions:
            file.write(json_line(to_json(description, options)) + "\n")


def write_csv(path: Path, descriptions: Iterable[Description], options: FormatOptions) -> None:
    """Write one row per description, without its timeline; unknown values are empty.

    A carriage return in a file's name is written as a backslash and an r.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table_columns(options.fields))
        for description in descriptions:
            row = to_row(description, options)
            # Readers end a row at a carriage return, which Python does not quote.
            writer.writerow([x.replace("\r", r"\r") if isinstance(x, str) else x for x in row])


def write_parquet(path: Path, descriptions: Iterable[Description], options: FormatOptions) -> None:
    """Write a table with typed columns: those of the csv, and `timeline`, a list of structs."""
    import pyarrow
    from pyarrow import parquet

    schema = parquet_schema(options.fields)
    with parquet.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, Any]] = []
        for description in descriptions:
            row = dict(zip(schema.names[:-1], to_row(description, options), strict=True))
            rows.append(row | {"timeline": [dict(window) for window in description.timeline]})
            if len(rows) == ROWS_PER_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def parquet_schema(fields: Sequence[str]) -> "pyarrow.Schema":
    """Return the names and types of the columns of a parquet table."""
    import pyarrow

    text, number, truth = pyarrow.string(), pyarrow.float64(), pyarrow.bool_()
    kinds = dict(zip(COLUMNS, (text, number, text, number, text, text, truth), strict=True))
    columns = table_columns(fields)
    kinds |= {name: text if name in fields else number for name in columns[len(COLUMNS) :]}
    window = pyarrow.struct([("start", number), ("end", number), ("caption", text)])
    return pyarrow.schema([*kinds.items(), ("timeline", pyarrow.list_(window))])
