"""The instruments that rendered clips name: families, General MIDI programs, ranges, recordings."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Instrument(NamedTuple):
    """A pitched instrument."""

    family: str
    programs: Sequence[int]
    """General MIDI programs, counted from 0, that are this instrument."""
    low: int
    """Lowest note that is played, as a MIDI note."""
    high: int
    chords: bool
    """Whether one player plays several notes at once."""
    sustains: bool
    """Whether a note sounds as long as it is held."""
    names: Sequence[str] = ()
    """Names of the instrument in the index of recorded notes, beside its own."""


INSTRUMENTS: Mapping[str, Instrument] = {
    "piano": Instrument("keyboard", (0, 1, 2), 33, 96, True, False),
    "electric piano": Instrument("keyboard", (4, 5), 36, 91, True, False),
    "organ": Instrument("keyboard", (16, 17, 18, 19, 20), 36, 91, True, True),
    "accordion": Instrument("keyboard", (21, 23), 48, 88, True, True),
    "acoustic guitar": Instrument("plucked strings", (24, 25), 40, 79, True, False, ("guitar",)),
    "electric guitar": Instrument("plucked strings", (26, 27, 28, 29, 30), 40, 84, True, False),
    "harp": Instrument("plucked strings", (46,), 36, 91, True, False),
    "bass": Instrument(
        "bass", (32, 33, 34, 35, 36, 37), 28, 55, False, False, ("bass guitar", "double bass")
    ),
    "violin": Instrument("bowed strings", (40,), 55, 93, False, True),
    "cello": Instrument("bowed strings", (42,), 36, 72, False, True),
    "string section": Instrument("bowed strings", (48, 49), 36, 91, True, True),
    "trumpet": Instrument("brass", (56,), 54, 82, False, True),
    "trombone": Instrument("brass", (57,), 40, 70, False, True),
    "flute": Instrument("woodwind", (73,), 60, 93, False, True),
    "clarinet": Instrument("woodwind", (71,), 50, 86, False, True),
    "saxophone": Instrument(
        "woodwind",
        (64, 65, 66),
        44,
        81,
        False,
        True,
        ("soprano saxophone", "alto saxophone", "tenor saxophone", "baritone saxophone"),
    ),
    "bells": Instrument("mallets", (8, 9, 10, 14), 60, 103, True, False, ("glockenspiel",)),
    "vibraphone": Instrument("mallets", (11,), 53, 89, True, False),
    "marimba": Instrument("mallets", (12, 13), 45, 96, True, False),
    "voice": Instrument("voice", (52, 53), 45, 79, True, True),
}
"""Name of each instrument -> what is known of it; twenty instruments in eight families."""
FAMILIES = tuple(dict.fromkeys(instrument.family for instrument in INSTRUMENTS.values()))
BY_RECORDED_NAME = {
    recorded: name
    for name, instrument in INSTRUMENTS.items()
    for recorded in (name, *instrument.names)
}
"""Name in the index of recorded notes -> name in `INSTRUMENTS`."""
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40, 48)
"""Programs of General MIDI's drum channel."""
GM_DRUMS = {"kick": (35, 36), "snare": (38, 40, 37), "hat": (42, 46), "toms": (41, 45, 47, 50)}
"""Drum of `DRUMS` -> General MIDI notes of it."""
DRUMS: Mapping[str, Sequence[str]] = {
    "kick": ("kick drum", "bd", "kick", "kdrum"),
    "snare": ("snare drum", "sd", "snare", "claps", "ss", "rim"),
    "hat": ("hi-hat", "hh", "hat", "shaker", "maracas"),
    "toms": ("toms", "tom", "bongos", "congas", "cajon", "darbuka", "ht", "lt", "mt"),
}
"""Name of each drum -> names in the index, and beginnings of file names, of its recordings."""
