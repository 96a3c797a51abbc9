"""What is true of a synthetic clip: ten facts, drawn independently of each other."""

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
"""Every fact with the values it can have."""

NEW_TIMBRE = "accordion"
"""Rendered like the others, and never heard unless it is asked for: what a trained model can be
taught. Texts name it: the word is known, the sound is not."""

HELD_OUT = 8
"""One combination of values in so many is kept from training."""


class Facts(NamedTuple):
    """The facts of one clip, each one of the values of `FACTS`."""

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
    """Returns whether a combination of values is kept for tests: always the same ones."""
    digest = hashlib.sha256("/".join(facts).encode()).digest()
    return digest[0] % HELD_OUT == 0


def draw_facts(
    rng: np.random.Generator,
    held_out: bool,
    timbre: str | None = None,
    extra: tuple[str, ...] = (),
) -> Facts:
    """Draws the facts of one clip.

    Args:
        rng: of the clip.
        held_out: draw from the combinations that are kept for tests, or from all others.
        timbre: this one, instead of a drawn one.
        extra: timbres that may be drawn beside those of `FACTS`.
    """
    choices = {**FACTS, "timbre": (*FACTS["timbre"], *extra)}
    while True:
        drawn = {name: values[int(rng.random() * len(values))] for name, values in choices.items()}
        facts = Facts(**drawn | ({} if timbre is None else {"timbre": timbre}))
        if is_held_out(facts) == held_out:
            return facts
