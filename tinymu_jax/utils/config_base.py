"""Base class of configs: frozen dataclasses that are stored as JSON and validated when read."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from tinymu_jax.errors import InputError


class ConfigBase:
    """Base class of frozen dataclasses that are stored as JSON, and validated when read."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as a nested dictionary for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(
        cls,
        values: dict[str, Any],
        where: str = "config",
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Return a validated config with the given values. Inverse of `to_dict`.

        Args:
            values: values by field name; missing fields get their defaults.
            where: source of the values, such as a file name; error messages start with it.
            names: field name -> other name for the field in error messages.

        Raises:
            InputError: a key is unknown, a value has the wrong type or is out of range, or the
                values violate one of `rules`.
        """
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected an object with fields, found {values!r}")
        known = {f.name: f for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(
                    f"{where}: unknown key {key!r}; remove it or use one of {', '.join(known)}"
                )
        kinds, checked = get_type_hints(cls), {}
        for key, value in values.items():
            name, nested = names.get(key, key), known[key].metadata.get("config")
            if nested is None:
                checked[key] = _checked(value, kinds[key], f"{where}: {name}")
            elif value is None and known[key].default is None:
                checked[key] = None
            else:
                checked[key] = nested.from_dict(value, f"{where}.{name}", names)
        config = cls(**checked)
        for holds, rule in config.rules():
            if not holds:
                raise InputError(f"{where}: {rule}; correct the sizes")
        return config

    def rules(self) -> list[tuple[bool, str]]:
        """Return a (holds, description) pair for each constraint on the fields."""
        return []


_MAY_BE_ZERO = ("_token", "dropout", "_weight", "_momentum", "_warmup", "_decay")
"""Endings of the names of numeric fields that may be 0; other numbers must be positive."""
MAX_INT = 2**31 - 1
"""Largest integer in a config, since sizes and token ids are int32 on devices."""
MAX_FLOAT = 2.0**127
"""Bound of the floats in a config, which are float32 on devices."""
_LIMITS = {"depth": 10_000, "num_hidden_layers": 10_000, "num_layers": 10_000}
"""Smaller limits by the ending of a field's name: every layer has keys of its own."""


def _checked(value: Any, kind: Any, name: str) -> Any:
    """Return a JSON value as type `kind`; raise `InputError` for a wrong type or range."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name} is {value!r}; use one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} is {value!r}; give it as a list")
        return tuple(_checked(item, get_args(kind)[0], name) for item in value)
    if kind is float and isinstance(value, int | float) and not abs(value) < MAX_FLOAT:
        raise InputError(f"{name} is {value!r}; give a finite number")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name} is {value!r}; give it as {kind.__name__}")
    limit = next((limit for field, limit in _LIMITS.items() if name.endswith(field)), MAX_INT)
    if kind is int and value > limit:
        raise InputError(f"{name} is {value!r}; give a number up to {limit}")
    allow_zero = name.endswith(_MAY_BE_ZERO)
    if kind in (int, float) and not (value > 0 or (value == 0 and allow_zero)):
        raise InputError(f"{name} is {value!r}; give a number above 0")
    return value


def nested(config: type, default: bool = True) -> Any:
    """Return a dataclass field whose default is `config()`, or None if `default` is False."""
    if default:
        return field(default_factory=config, metadata={"config": config})
    return field(default=None, metadata={"config": config})
