"""Fields: closed questions about recordings, read from a yaml file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tinymu_jax.errors import InputError, translate
from tinymu_jax.inference.scoring import NORMALIZE
from tinymu_jax.utils.files import read_text

_KEYS = {"prompt", "options", "threshold", "normalize"}
_REMEDY = "see docs/caption.md for the format"


@dataclass(frozen=True)
class Field:
    """A closed question about a recording."""

    name: str
    """Name of the field, such as "genre"."""
    prompt: str
    """The question."""
    values: tuple[str, ...]
    """Possible values."""
    options: tuple[str, ...]
    """For each value, the answer to the prompt that is scored."""
    threshold: float = 0.5
    """Probability below which the value is unknown."""
    normalize: str = "pmi"
    """How options are compared, as in `Assistant.score`."""


def read_fields(path: Path | None = None) -> tuple[Field, ...]:
    """Read the fields of a yaml file; None: of `music_fields.yaml` in this package.

    The file maps the name of each field to `prompt`, `options` (a list, or a mapping of values to
    answers) and, if they differ from the defaults, `threshold` and `normalize`.

    Raises:
        InputError: the file is missing or no yaml; a field is incomplete, or has fewer than two
            options, or equal or empty ones.
    """
    name = "music_fields.yaml" if path is None else str(path)
    if path is None:
        text = files("tinymu_jax.library").joinpath(name).read_text("utf-8")
    else:
        text = read_text(path, "name a yaml file of fields")
    # Without a schema, all scalars are texts: "no" and "80" are options as they stand.
    with translate(f"{name}: is not yaml ({{reason}}); {_REMEDY}"):
        content = yaml.load(text, Loader=yaml.BaseLoader)
        _check_keys(yaml.compose(text), name)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{name}: holds no fields; {_REMEDY}")
    return tuple(_to_field(field, entry, f"{name}: {field}") for field, entry in content.items())


def _check_keys(node: Any, name: str) -> None:
    """Raise `InputError` if a mapping has a key twice, of which yaml would take the last."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                line = key.start_mark.line + 1
                raise InputError(f"{name}: line {line}: {key.value} is there twice; keep one")
            _check_keys(value, name)


def _to_field(name: Any, entry: Any, where: str) -> Field:
    """Convert an entry of a yaml file; `where` begins the error messages."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: is no name; give each field a name")
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: has no prompt and options; {_REMEDY}")
    unknown = sorted(set(entry) - _KEYS, key=str)
    if unknown:
        raise InputError(f"{where}: {unknown[0]} is unknown; use {', '.join(sorted(_KEYS))}")
    prompt, options = entry.get("prompt"), entry.get("options")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where}: has no prompt; give the question that the options answer")
    pairs = _pairs(options, where)
    for kind, texts in (("value", [v for v, _ in pairs]), ("option", [o for _, o in pairs])):
        if len(pairs) < 2 or len(set(texts)) < len(texts) or not all(t.strip() for t in texts):
            raise InputError(f"{where}: give at least two {kind}s, all different and none empty")
    threshold = entry.get("threshold", "0.5")
    with translate(f"{where}: threshold {threshold!r} is no number; give one from 0 to 1"):
        probability = float(threshold)
    if not 0 <= probability <= 1:
        raise InputError(f"{where}: threshold is {threshold}; give a probability, 0 to 1")
    normalize = entry.get("normalize", "pmi")
    if not isinstance(normalize, str) or normalize not in NORMALIZE:
        raise InputError(f"{where}: normalize {normalize!r}; use one of {', '.join(NORMALIZE)}")
    values, answers = zip(*pairs, strict=True)
    return Field(name, prompt.strip(), values, answers, probability, normalize)


def _pairs(options: Any, where: str) -> list[tuple[str, str]]:
    """Return the (value, answer) pairs of a list of options, or of a mapping."""
    if isinstance(options, Mapping):
        pairs = list(options.items())
    elif isinstance(options, Sequence) and not isinstance(options, str):
        pairs = [(option, option) for option in options]
    else:
        raise InputError(f"{where}: has no list of options; {_REMEDY}")
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise InputError(f"{where}: an option is no text; {_REMEDY}")
    return [(value.strip(), answer.strip()) for value, answer in pairs]
