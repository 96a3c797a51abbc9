"""The page beside exported weights: what the model is, how it was made, how it is used.

It says what its folder shows, and where that is nothing, that it is not known.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.checkpoint import (
    MODEL_FOLDER,
    RUN_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    read_config,
)
from tinymu_jax.checkpoints.hub import is_hub_name
from tinymu_jax.checkpoints.safetensors import map_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SmolLM2Config, TinyMUConfig, smollm2_preset
from tinymu_jax.utils.files import exists, read_json_object, read_text, write_text
from tinymu_jax.utils.tree import Tree, flatten

CARD_FILE = "README.md"

MARK = (
    "<!-- Written by tinymu_jax, and written anew with the weights; without this line it stays. -->"
)

NOT_LEARNT = re.compile(
    r"((encoder|predictor)/)?log_mel/.*|.*head/norm/(mean|variance|count)|centre"
)
"""Tables and statistics, which nobody counts as parameters."""


def count_parameters(params: Tree | Mapping[str, np.ndarray]) -> int:
    """Returns how many parameters a tree has, or a table of its leaves by their paths."""
    return sum(int(leaf.size) for path, leaf in flatten(params) if not NOT_LEARNT.fullmatch(path))


def parameters(folder: Path) -> int:
    """Returns how many parameters the model of a checkpoint folder has."""
    return count_parameters(map_safetensors(folder / WEIGHTS_FILE))


def is_written_by_us(card: Path) -> bool:
    """Tells a card that was generated from one that somebody wrote."""
    return exists(card) and MARK in read_text(card, "it is to be Markdown")


@dataclass(frozen=True)
class Origin:
    """Where weights come from, as far as it is known."""

    text: str
    """A paragraph or more of Markdown."""
    base_models: tuple[str, ...] = ()
    """Hub names of what the training began with."""
    report: Path | None = None
    """report.json of an evaluation."""


def write_card(
    folder: Path, origin: Origin, name: str | None = None, license: str | None = None
) -> Path:
    """Writes the card of a checkpoint folder and returns its path; somebody's own card stays."""
    card = folder / CARD_FILE
    if not exists(card) or is_written_by_us(card):
        write_text(card, card_text(folder, origin, name, license))
    return card


def renamed(text: str, name: str, license: str | None = None) -> str:
    """Returns a generated card under the hub name, and licence, that its weights get."""
    text = re.sub(r"^# .*$", f"# {name.rsplit('/', 1)[-1]}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r'(load|open_checkpoint)\("[^"]*"\)', rf'\1("{name}")', text)
    if license is None:
        return text
    text = re.sub(r"^license: .*$", f"license: {license}", text, count=1, flags=re.MULTILINE)
    return text.replace(_NO_LICENSE, "")


_NO_LICENSE = "* The licence of the weights is not known; who publishes them is to state it.\n"


def card_text(
    folder: Path, origin: Origin, name: str | None = None, license: str | None = None
) -> str:
    """Returns the card of a checkpoint folder; without a name it is called as its folder."""
    config, source = read_config(folder)
    leaves = map_safetensors(folder / WEIGHTS_FILE)
    what, task, tags, use = _kind(config)
    name = name or folder.resolve().name
    bases = "".join(f"\n- {base}" for base in origin.base_models)
    front = [
        "---",
        "library_name: tinymu_jax",
        f"license: {license or 'unknown'}",
        f"pipeline_tag: {task}",
        "tags:\n" + "\n".join(f"- {tag}" for tag in (*tags, "music", "audio", "jax", "tinymu_jax")),
        *([f"base_model:{bases}"] if bases else []),
        "---",
    ]
    count = count_parameters(leaves)
    size = f"{count / 1e6:.2f} M parameters ({_types(leaves)})"
    parts = [
        "\n".join(front),
        f"# {name.rsplit('/', 1)[-1]}",
        f"{what} {size}; all sizes are in `config.json`.",
        "## How it was made\n\n" + "\n\n".join([origin.text, *_told_by_source(source)]),
        f"## How to use it\n\n```python\n{use.format(name=name)}\n```",
        "## Limits\n\n" + _limits(config, folder, leaves, license),
        "## Scores\n\n" + _scores(origin.report),
        MARK,
    ]
    return "\n\n".join(parts) + "\n"


def _kind(config: ModelConfig) -> tuple[str, str, tuple[str, ...], str]:
    """Returns what a model is, its task on the hub, its tags, and three lines that use it."""
    load = 'import tinymu_jax\n\nmodel = tinymu_jax.load("{name}")\n'
    if isinstance(config, TinyMUConfig):
        what = (
            "A TinyMU ([arXiv 2604.15849](https://arxiv.org/abs/2604.15849)): it listens to music "
            "and answers questions about it. A MATPAC encoder of "
            f"{config.encoder.depth} layers of width {config.encoder.width}, a "
            f"{config.projector.kind} projector, a SmolLM2 decoder of {config.decoder.depth} "
            f"layers of width {config.decoder.width};"
        )
        ask = 'print(model.ask("song.mp3", "What is the main instrument?"))'
        return what, "audio-text-to-text", ("tinymu",), load + ask
    if isinstance(config, SmolLM2Config):
        what = (
            f"A SmolLM2 language model of {config.depth} layers of width {config.width}, the part "
            "of a TinyMU that writes; alone it cannot listen;"
        )
        use = (
            "from tinymu_jax.inference.load import open_checkpoint\n\n"
            'decoder = open_checkpoint("{name}")\nprint(decoder.config)'
        )
        return what, "text-generation", ("smollm2",), use
    own = config if isinstance(config, MatpacConfig) else config.encoder
    layers = f"{own.depth} layers of width {own.width}"
    vectors = 'print(model.embed("song.mp3").shape)'
    if not isinstance(config, MatpacConfig):
        what = f"All of a MATPAC pre-training, its teachers included; the encoder has {layers};"
        return what, "feature-extraction", ("matpac",), load + vectors
    if config.head is None:
        what = f"A MATPAC encoder of {layers}: recordings to vectors;"
        return what, "feature-extraction", ("matpac",), load + vectors
    what = (
        f"A MATPAC encoder of {layers} with a head ({config.head.kind}) of "
        f"{config.head.num_classes} classes: recordings to tags;"
    )
    return what, "audio-classification", ("matpac",), load + 'print(model.tag("song.mp3"))'


def _told_by_source(source: Mapping[str, Any]) -> list[str]:
    """Returns what the description of a published file says of its training."""
    model = (source.get("config") or {}).get("model") or {}
    decoder = (model.get("decoder") or {}).get("textdec_name")
    found = []
    if decoder and smollm2_preset(str(decoder)):
        found.append(f"Its description names `{decoder}` as its decoder.")
    if source.get("epoch"):
        found.append(f"It gives {source['epoch']} as its epoch.")
    return [" ".join(found)] if found else []


def _limits(
    config: ModelConfig, folder: Path, leaves: Mapping[str, np.ndarray], license: str | None
) -> str:
    """Lists what the config shows, and what is not known."""
    lines = []
    if isinstance(config, TinyMUConfig):
        lines += [
            f"It hears the first {config.max_seconds:g} s of a recording, in mono at 16 kHz.",
            f"A question is at most {config.max_text_tokens} tokens.",
            "It answers whatever is asked; that an answer is there says nothing of its truth.",
        ]
    elif not isinstance(config, SmolLM2Config):
        lines.append("It hears mono at 16 kHz.")
    if any(leaf.dtype == np.float16 for leaf in leaves.values()):
        lines.append("Its weights are rounded to float16: three digits.")
    if isinstance(config, TinyMUConfig | SmolLM2Config) and not exists(folder / TOKENIZER_FILE):
        lines.append("No tokenizer lies beside it; that of its decoder is needed.")
    lines.append(
        "What music it was trained on, and does well on, is known as far as it stands here."
    )
    text = "".join(f"* {line}\n" for line in lines)
    return (text + (_NO_LICENSE if license is None else "")).rstrip("\n")


def _types(leaves: Mapping[str, np.ndarray]) -> str:
    """Names the type that most numbers have."""
    sizes: dict[str, int] = {}
    for leaf in leaves.values():
        sizes[leaf.dtype.name] = sizes.get(leaf.dtype.name, 0) + leaf.size
    return max(sizes, key=sizes.__getitem__, default="no numbers")


def _scores(report: Path | None) -> str:
    """Returns a table of the headlines of a report."""
    if report is None:
        return "No evaluation lies beside these weights."
    remedy = "write it again with this version's `tinymu evaluate`"
    lines = ["| evaluation | of | measure | value | 95 % | questions |", "| --- " * 6 + "|"]
    try:
        for one in read_json_object(report, remedy)["results"]:
            for name, measure in one["headline"].items():
                value, low, high = (
                    _number(measure[key], measure["is_fraction"])
                    for key in ("value", "low", "high")
                )
                between = f"{low} to {high}" if measure["low"] is not None else ""
                lines.append(
                    f"| {one['title']} | {Path(one['checkpoint']).name} | {name} | {value} | "
                    f"{between} | {measure['count'] or ''} |"
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{report}: is not a report of this version; {remedy}") from error
    return "\n".join(lines)


def _number(value: float | None, share: bool) -> str:
    """Writes a share in percent, another number as it is."""
    if value is None:
        return "not available"
    return f"{100 * value:.1f} %" if share else f"{value:.3g}"


REPORT_FILE = "report.json"

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
    start = config.get("init") or {}
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
