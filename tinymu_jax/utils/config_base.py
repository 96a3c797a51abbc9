"""Frozen dataclasses to and from plain dictionaries, held against their types and rules."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from tinymu_jax.errors import InputError


class ConfigBase:
    """To and from plain dictionaries, refusing keys that no field reads."""

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
        """Builds the config from `to_dict()`'s result.

        Args:
            values: by field; what is left out takes its default.
            where: what messages begin with.
            names: what the user calls a field, where that is not its own name.

        Raises:
            InputError: a key that is no field, a value of another kind or out of range, sizes that
                do not go together; named with `where` it was found.
        """
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected an object with fields, found {values!r}")
        known = {f.name: f for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(
                    f"{where}: unknown key {key!r}; remove it or use one of {', '.join(known)}"
                )
        kinds, made = get_type_hints(cls), {}
        for key, value in values.items():
            name, nested = names.get(key, key), known[key].metadata.get("config")
            if nested is None:
                made[key] = _checked(value, kinds[key], f"{where}: {name}")
            elif value is None and known[key].default is None:
                made[key] = None
            else:
                made[key] = nested.from_dict(value, f"{where}.{name}", names)
        config = cls(**made)
        for fits, rule in config.rules():
            if not fits:
                raise InputError(f"{where}: {rule}; correct the sizes")
        return config

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between fields: whether it does, and the rule in words."""
        return []


def _checked(value: Any, kind: Any, name: str) -> Any:
    """Returns a field's value if it is of the field's kind and not out of range."""
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
    may_be_zero = name.endswith(("_token", "dropout", "_weight", "_momentum", "_warmup", "_decay"))
    if kind in (int, float) and not (value > 0 or (value == 0 and may_be_zero)):
        raise InputError(f"{name} is {value!r}; give a number above 0")
    return value


def nested(config: type, default: bool = True) -> Any:
    """Returns a field that holds another config, or None if there is no `default`."""
    if default:
        return field(default_factory=config, metadata={"config": config})
    return field(default=None, metadata={"config": config})
