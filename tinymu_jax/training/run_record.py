"""The record of a run (run.json), which ensures that a run resumes with its original config."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.checkpoints.checkpoint import RUN_FILE
from tinymu_jax.data.dataset import DATASET_FILE
from tinymu_jax.errors import InputError
from tinymu_jax.training.checkpointing import complete_steps
from tinymu_jax.training.config import RunConfig, TrainConfig
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import exists, read_json_object, read_text
from tinymu_jax.utils.tree import flatten

CHECKPOINTS = "checkpoints"
"""Subfolder of a run's folder for checkpoints, unless the config names another folder."""
FORMAT = 2
"""Version of the formats of run.json and of the checkpoints."""
FREE_FIELDS = (
    "output",
    "mesh",
    "loop",
    "data/threads",
    "data/prefetch",
    "data/max_bad_fraction",
    "data/train",
    "data/validation",
    "data/labels",
    "data/classes",
)
"""Config fields that may change when a run resumes. Data may move, with the same contents."""


def checkpoints_in(folder: Path, configured: str | None) -> str | Path:
    """Return the folder or URL of a run's checkpoints: `configured`, or else inside `folder`."""
    return configured or folder / CHECKPOINTS


def run_record(config: RunConfig) -> dict[str, Any]:
    """Return the contents of run.json: format version, config, and hashes of the data."""
    data = {
        name: None if folder is None else fingerprint.of_text(_contents(Path(folder)))
        for name, folder in (("train", config.data.train), ("validation", config.data.validation))
    }
    data |= {name: fingerprint.of_file(table) for name, table in _tables(config).items()}
    return {"format": FORMAT, "config": json.loads(json.dumps(asdict(config))), "data": data}


def check_tables(config: RunConfig) -> None:
    """Raise `InputError` if a table that a config names is a pipe, which can be read only once."""
    for table in _tables(config).values():
        fingerprint.check_is_no_pipe(table)


def _tables(config: RunConfig) -> dict[str, str]:
    """Return the paths of the tables that a config names, by the names of the fields."""
    fields = {name: getattr(config.data, name, None) for name in ("labels", "classes")}
    return {name: table for name, table in fields.items() if table is not None}


def _contents(folder: Path) -> str:
    """Return a text that identifies a data set: its manifest, or audio file names and sizes."""
    if exists(folder / DATASET_FILE):
        return read_text(folder / DATASET_FILE)
    return "\n".join(
        f"{path.relative_to(folder)} {path.stat().st_size if exists(path) else 'missing'}"
        for path in list_audio_files(folder)
    )


def _fixed_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run's record that must not change on resuming, by option name."""
    fields = flatten({**record["config"], "contents of data": record["data"]})
    return {
        name.replace("/", "."): value
        for name, value in fields
        if not any(name == free or name.startswith(f"{free}/") for free in FREE_FIELDS)
    }


def is_same_run(folder: Path, config: RunConfig, resume: bool) -> bool:
    """Return whether a folder already holds the run of `config`; False if it holds no run.

    Raises `InputError` if it holds another run, if it holds any run and `resume` is False, if there
    are checkpoints but no run.json, or if a data set is not prepared.
    """
    for name in filter(None, (config.data.train, config.data.validation)):
        if isinstance(config, TrainConfig) and not exists(Path(name) / DATASET_FILE):
            raise InputError(f"{name}: is no prepared data set; make it with `tinymu data prepare`")
    place = checkpoints_in(folder, config.checkpoints)
    if not exists(folder / RUN_FILE):
        if complete_steps(place):
            raise InputError(
                f"{place}: has checkpoints, but {folder} has no {RUN_FILE} that says of which run; "
                f"name another {'--checkpoints' if config.checkpoints else '--output'}"
            )
        return False
    record = read_json_object(folder / RUN_FILE, "name another folder")
    if not resume:
        steps = complete_steps(checkpoints_in(folder, record["config"].get("checkpoints")))
        raise InputError(
            f"{folder}: holds a run, saved at step {max(steps, default=0)}; continue it with "
            "--resume, or name another --output"
        )
    if record.get("format") != FORMAT:
        raise InputError(
            f"{folder}: format {record.get('format')!r}, this version resumes format {FORMAT}; use "
            "the version that began the run"
        )
    before, after = _fixed_fields(record), _fixed_fields(run_record(config))
    changes = [
        f"{name} (was {before.get(name)!r}, is {after.get(name)!r})"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if changes:
        raise InputError(
            f"{folder}: its run has another config: {'; '.join(changes)}; give the same config, or "
            "name another --output"
        )
    return True
