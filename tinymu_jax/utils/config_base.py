"""Frozen dataclasses that convert to and from plain dictionaries, with validation."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from tinymu_jax.errors import InputError


class ConfigBase:
    """Base of configs that are stored as json; unknown keys and invalid values are errors."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain containers, ready for json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(
        cls,
        values: dict[str, Any],
        where: str = "config",
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Builds a config from the result of `to_dict()`.

        Args:
            values: values by field; missing fields get their defaults.
            where: prefix of error messages.
            names: names that users know fields by, where these differ.

        Raises:
            InputError: an unknown key, a value of the wrong type or out of range, or a violated
                rule.
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
        """Returns the constraints between fields: whether each holds, and its wording."""
        return []


_MAY_BE_ZERO = ("_token", "dropout", "_weight", "_momentum", "_warmup", "_decay")
"""Endings of the names of numbers that may be 0; all others must be positive."""


def _checked(value: Any, kind: Any, name: str) -> Any:
    """Returns a field's value, converted to its type.

    Raises:
        InputError: the value is of another type, or out of range.
    """
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name} is {value!r}; use one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} is {value!r}; give it as a list")
        return tuple(_checked(item, get_args(kind)[0], name) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name} is {value!r}; give it as {kind.__name__}")
    allow_zero = name.endswith(_MAY_BE_ZERO)
    if kind in (int, float) and not (value > 0 or (value == 0 and allow_zero)):
        raise InputError(f"{name} is {value!r}; give a number above 0")
    return value


def nested(config: type, default: bool = True) -> Any:
    """Returns a field of another config's type, with its defaults or (no `default`) None."""
    if default:
        return field(default_factory=config, metadata={"config": config})
    return field(default=None, metadata={"config": config})
