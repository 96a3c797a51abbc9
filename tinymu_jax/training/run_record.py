"""What the numbers of a run depend on (run.json): another config is not mixed into its folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinymu_jax.audio.load import list_audio_files
from tinymu_jax.checkpoints.checkpoint import RUN_FILE
from tinymu_jax.data.dataset import DATASET_FILE
from tinymu_jax.errors import InputError
from tinymu_jax.training.checkpointing import whole_steps
from tinymu_jax.training.config import RunConfig, TrainConfig
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import exists, read_json_object, read_text
from tinymu_jax.utils.tree import flatten

CHECKPOINTS = "checkpoints"
"""Folder of a run's, where no other place is named."""

FORMAT = 1

FREE = (
    "output",
    "mesh",
    "loop",
    "data/threads",
    "data/ahead",
    "data/train",
    "data/validation",
    "data/labels",
    "data/classes",
)
"""Fields that may change when a run goes on; of the data sets only the places may."""


def checkpoints_in(folder: Path, named: str | None) -> str | Path:
    """Returns where a run's checkpoints are.

    Args:
        folder: of the run.
        named: the place that its config names, if any.
    """
    return named or folder / CHECKPOINTS


def run_record(config: RunConfig) -> dict[str, Any]:
    """Returns what the numbers of a run depend on, the places of its data aside."""
    data = {
        name: None if place is None else fingerprint.of_text(_contents(Path(place)))
        for name, place in (("train", config.data.train), ("validation", config.data.validation))
    }
    for name in ("labels", "classes"):
        table = getattr(config.data, name, None)
        if table is not None:
            data[name] = fingerprint.of_file(table)
    return {"format": FORMAT, "config": json.loads(json.dumps(asdict(config))), "data": data}


def _contents(place: Path) -> str:
    """Returns the page of a data set; of a folder of recordings, their names and sizes."""
    if exists(place / DATASET_FILE):
        return read_text(place / DATASET_FILE)
    return "\n".join(
        f"{path.relative_to(place)} {path.stat().st_size}" for path in list_audio_files(place)
    )


def _fixed(page: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a page that must not change, by the names of their options."""
    fields = flatten({**page["config"], "contents of data": page["data"]})
    return {
        name.replace("/", "."): value
        for name, value in fields
        if not any(name == free or name.startswith(f"{free}/") for free in FREE)
    }


def is_same_run(folder: Path, config: RunConfig, resume: bool) -> bool:
    """Returns whether the folder holds this run; refuses another one.

    Raises:
        InputError: it holds a run that is not gone on with, or one with another config.
    """
    for place in filter(None, (config.data.train, config.data.validation)):
        if isinstance(config, TrainConfig) and not exists(Path(place) / DATASET_FILE):
            raise InputError(
                f"{place}: is no prepared data set; make it with `tinymu data prepare`"
            )
    place = checkpoints_in(folder, config.checkpoints)
    if not exists(folder / RUN_FILE):
        if whole_steps(place):
            raise InputError(
                f"{place}: has checkpoints, but {folder} no {RUN_FILE} that says of which run; "
                f"name another {'--checkpoints' if config.checkpoints else '--output'}"
            )
        return False
    page = read_json_object(folder / RUN_FILE, "name another folder")
    if not resume:
        steps = whole_steps(checkpoints_in(folder, page["config"].get("checkpoints")))
        raise InputError(
            f"{folder}: holds a run, saved at step {max(steps, default=0)}; go on with --resume, "
            "or name another --output"
        )
    if page.get("format") != FORMAT:
        raise InputError(
            f"{folder}: format {page.get('format')!r}, this version goes on with {FORMAT}; use the "
            "version that began it"
        )
    before, after = _fixed(page), _fixed(run_record(config))
    differing = [
        f"{name} (was {before.get(name)!r}, is {after.get(name)!r})"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if differing:
        raise InputError(
            f"{folder}: its run has another config: {'; '.join(differing)}; give it as it was, or "
            "name another --output"
        )
    return True
