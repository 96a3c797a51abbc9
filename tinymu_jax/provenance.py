"""Where the weights of a checkpoint folder come from, as far as it is known."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymu_jax.checkpoint import MODEL_FOLDER, RUN_FILE, read_config
from tinymu_jax.errors import InputError
from tinymu_jax.files import exists, read_json_object
from tinymu_jax.hub import is_hub_name

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Origin:
    """Where weights come from, as far as it is known."""

    text: str
    """A paragraph or more of Markdown."""
    base_models: tuple[str, ...] = ()
    """Hub names of what the training began with."""
    report: Path | None = None
    """report.json of an evaluation."""


UNKNOWN = Origin("Nothing beside the weights says where they come from.")


def made_from_file(source: Path, probe: Path | None = None) -> Origin:
    """Describes a conversion from PyTorch by its files and their sha256."""
    files = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
    files = files or sorted(source.glob("*.pt"))
    if source.is_dir() and exists(source / RUN_FILE):
        return made_from_run(source)
    rows = [
        f"* `{file.name}`, sha256 `{_sha256(file)}`" for file in [*files, *filter(None, [probe])]
    ]
    said = "Converted without rounding by `python -m conversion.from_torch` from"
    return Origin("\n".join([f"{said}\n", *rows]))


def made_from_run(folder: Path, step: int | None = None) -> Origin:
    """Describes a training run by the page in its folder.

    Args:
        folder: of the run.
        step: after which the weights were saved, where it is known.

    Raises:
        InputError: the page cannot be read.
    """
    page = read_json_object(folder / RUN_FILE, "name the folder of a run")
    config = _without_places(page.get("config", {}))
    start = config.get("start") or {}
    begun = {name: start.get(name) for name in ("checkpoint", "encoder", "decoder")}
    known = [f"{name} `{place}`" for name, place in begun.items() if place]
    after = f" after step {step}" if step is not None else ""
    lines = [
        f"Saved{after} of a run of tinymu_jax that began with "
        f"{', '.join(known) or 'random weights'}.",
        "",
        *(
            f"* Data ({name}): fingerprint `{value}`"
            for name, value in (page.get("data") or {}).items()
            if value
        ),
        "",
        "<details><summary>Config of the run</summary>",
        "",
        "```json",
        json.dumps(config, indent=2),
        "```",
        "",
        "</details>",
    ]
    bases = tuple(place for place in begun.values() if place and _is_on_the_hub(place))
    report = folder / REPORT_FILE
    return Origin("\n".join(lines), bases, report if exists(report) else None)


def origin_of(folder: Path) -> Origin:
    """Describes a checkpoint folder by what lies around it: a run, or what its config tells."""
    own = folder.resolve()
    # Other folders of a run hold what it began with.
    if own.name == MODEL_FOLDER and exists(own.parent / RUN_FILE):
        return made_from_run(own.parent)
    _, source = read_config(folder)
    report = folder / REPORT_FILE
    found = report if exists(report) else None
    if "epoch" in source:
        said = "Converted from a published PyTorch checkpoint, whose file is not known any more."
        return Origin(said, report=found)
    return Origin(UNKNOWN.text, report=found)


def _is_on_the_hub(name: str) -> bool:
    """Tells a hub name from a folder, also from one of a run that was on another machine."""
    return is_hub_name(name) and not name.startswith("runs/") and not exists(name)


def _without_places(value: Any) -> Any:
    """Returns a config whose places on one machine are cut to their last names."""
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    if isinstance(value, str) and (value[:1] in ("/", "~") or "://" in value or ".." in value):
        return Path(value).name
    return value


def _sha256(file: Path) -> str:
    """Returns the fingerprint of a file without holding it in memory."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path") from error
