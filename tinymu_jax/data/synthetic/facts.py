"""Facts of synthetic clips: ten independent attributes."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FACTS: Mapping[str, tuple[str, ...]] = {
    "timbre": ("pluck", "organ", "flute", "brass", "bell", "bass", "square", "voice"),
    "drums": ("drums", "none"),
    "tempo": ("slow", "medium", "fast"),
    "metre": ("three", "four"),
    "mode": ("major", "minor"),
    "contour": ("rising", "falling", "arched"),
    "register": ("low", "high"),
    "dynamics": ("loud", "soft", "swelling"),
    "voices": ("one", "several"),
    "room": ("dry", "room"),
}
"""Values of each fact."""

NEW_TIMBRE = "accordion"
"""A timbre for finetuning a trained model. Clips have it only on request; texts name it, so that
its word is known and its sound is not."""

HELD_OUT = 8
"""One combination of values in `HELD_OUT` is reserved for tests."""


class Facts(NamedTuple):
    """The facts of a clip."""

    timbre: str
    drums: str
    tempo: str
    metre: str
    mode: str
    contour: str
    register: str
    dynamics: str
    voices: str
    room: str


def is_held_out(facts: Facts) -> bool:
    """Returns whether a combination of values is reserved for tests."""
    digest = hashlib.sha256("/".join(facts).encode()).digest()
    return digest[0] % HELD_OUT == 0


def draw_facts(
    rng: np.random.Generator,
    held_out: bool,
    timbre: str | None = None,
    extra: tuple[str, ...] = (),
) -> Facts:
    """Draws facts from the combinations reserved for tests, or from all others.

    The timbre may be fixed, or drawn from `extra` timbres too.
    """
    choices = {**FACTS, "timbre": (*FACTS["timbre"], *extra)}
    while True:
        drawn = {name: values[int(rng.random() * len(values))] for name, values in choices.items()}
        facts = Facts(**drawn | ({} if timbre is None else {"timbre": timbre}))
        if is_held_out(facts) == held_out:
            return facts
