"""The facts of a synthetic clip: the values of ten independent musical attributes."""

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
"""Name of each fact -> its possible values."""
NEW_TIMBRE = "accordion"
"""A timbre to finetune a model on: texts name it by default, clips have it only on request."""
HELD_OUT = 8
"""One in `HELD_OUT` combinations of fact values is reserved for tests."""


class Facts(NamedTuple):
    """The facts of a synthetic clip: musical attributes, each with one of its values in `FACTS`."""

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
    """Return whether clips with these facts are reserved for tests, by a hash of the facts."""
    digest = hashlib.sha256("/".join(facts).encode()).digest()
    return digest[0] % HELD_OUT == 0


def draw_facts(
    rng: np.random.Generator, held_out: bool, timbre: str | None = None, extra: tuple[str, ...] = ()
) -> Facts:
    """Draw the facts of a clip.

    `held_out` is whether to draw from the combinations reserved for tests, or from all others. The
    timbre is `timbre`; if None, it is drawn from the timbres in `FACTS` and in `extra`.
    """
    choices = {**FACTS, "timbre": (*FACTS["timbre"], *extra)}
    while True:
        drawn = {name: values[int(rng.random() * len(values))] for name, values in choices.items()}
        facts = Facts(**drawn | ({} if timbre is None else {"timbre": timbre}))
        if is_held_out(facts) == held_out:
            return facts
