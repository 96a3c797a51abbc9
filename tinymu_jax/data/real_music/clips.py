"""Draws labelled clips: rendered music, windows of free tracks, and sounds that are no music."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.real_music.effects import Samples, add_effects, colour, set_level
from tinymu_jax.data.real_music.instruments import BY_RECORDED_NAME, FAMILIES, INSTRUMENTS
from tinymu_jax.data.real_music.material import Material, Recording, read_samples
from tinymu_jax.data.real_music.render import Renderer
from tinymu_jax.data.real_music.score import (
    BEATS,
    DYNAMICS,
    REGISTERS,
    SCALES,
    TEMPOS,
    Score,
    compose,
    pick,
)

KINDS = {"solo": 0.46, "ensemble": 0.26, "drums": 0.03, "track": 0.08, "sound": 0.17}
"""Kind of a clip -> its share."""
MAX_PARTS = 5
ENSEMBLE_DRUMS, SOLO_DRUMS = 0.5, 0.06
"""Shares of the clips of several parts, or one, that have drums."""
MUSIC, DRUMS, SOLO, VOICE = "music", "drums", "solo", "voice"
ATTRIBUTES: Mapping[str, Sequence[str]] = {
    "tempo": tuple(TEMPOS),
    "metre": tuple(BEATS),
    "mode": tuple(SCALES),
    "dynamics": tuple(dict.fromkeys(DYNAMICS)),
    "register": tuple(REGISTERS),
}
"""Attribute of a score -> the labels that are its values."""
PLAYED = (*INSTRUMENTS, *(family for family in FAMILIES if family not in INSTRUMENTS), DRUMS)
LABELS = (MUSIC, SOLO, *PLAYED, *(value for values in ATTRIBUTES.values() for value in values))
"""All labels: music, solo, instruments, families, drums, and the values of attributes."""
TRACK_LABELS = {
    "drums": (DRUMS,),
    "kick drum": (DRUMS,),
    "snare drum": (DRUMS,),
    "hi-hat": (DRUMS,),
    "guitar": ("plucked strings",),
}
"""Instrument of a track in the index -> its labels, if it is none of `BY_RECORDED_NAME`, or may be
any of a family."""


class Clip(NamedTuple):
    """A clip of 16 kHz with its labels."""

    kind: str
    samples: Samples
    present: frozenset[str]
    """Labels that hold."""
    unknown: frozenset[str]
    """Labels of which it is not known whether they hold; all others do not."""


def draw_clip(
    renderer: Renderer, material: Material | None, rng: np.random.Generator, seconds: float
) -> Clip:
    """Draw a clip of `seconds` seconds; without `material`, of rendered music alone.

    Raises `InputError` if a recording cannot be read, or a soundfont lacks an instrument.
    """
    absent = {"track", "sound"} if material is None else set() if material.tracks else {"track"}
    kinds = [kind for kind in KINDS if kind not in absent]
    shares = np.cumsum([KINDS[kind] for kind in kinds])
    kind = kinds[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
    if kind == "track":
        return _draw_track(material, rng, seconds)
    if kind == "sound":
        return _draw_sound(material, rng, seconds)
    return draw_music(renderer, rng, seconds, _draw_count(rng, kind))


def _draw_count(rng: np.random.Generator, kind: str) -> int:
    """Draw the number of instruments of a rendered clip."""
    count = {"solo": 1, "drums": 0}.get(kind)
    return 2 + int((MAX_PARTS - 1) * rng.random()) if count is None else count


def draw_labels(rng: np.random.Generator, seconds: float) -> frozenset[str]:
    """Draw the labels of a clip of music that is not rendered."""
    kinds = ("solo", "solo", "ensemble", "ensemble", "ensemble", "drums")
    kind = pick(rng, kinds)
    return _labels(_draw_score(rng, seconds, _draw_count(rng, kind)))


def draw_music(renderer: Renderer, rng: np.random.Generator, seconds: float, count: int) -> Clip:
    """Render a clip of `count` random instruments, or of drums alone if it is 0."""
    score = _draw_score(rng, seconds, count)
    samples = add_effects(renderer.render(score, seconds, rng), rng)
    kind = {0: "drums", 1: "solo"}.get(count, "ensemble")
    return Clip(kind, samples, _labels(score), _unknown(score))


def _draw_score(rng: np.random.Generator, seconds: float, count: int) -> Score:
    names = list(INSTRUMENTS)
    # Every combination is as probable as any other, also those that nobody plays.
    instruments = [names[int(i)] for i in rng.permutation(len(names))[:count]]
    drums = count == 0 or rng.random() < (SOLO_DRUMS if count == 1 else ENSEMBLE_DRUMS)
    return compose(rng, instruments, drums, seconds)


def _labels(score: Score) -> frozenset[str]:
    names = [part.instrument for part in score.parts]
    labels = {MUSIC, *names, *(INSTRUMENTS[name].family for name in names)}
    labels |= {DRUMS} if score.hits else set()
    labels |= {SOLO} if len(names) == 1 and not score.hits else set()
    values = {score.tempo, score.metre, score.mode, score.dynamics, score.register} - {None}
    return frozenset(labels | values) - _unknown(score)


def _unknown(score: Score) -> frozenset[str]:
    """Return the labels of attributes that cannot be heard from a score."""
    known = {
        "register": score.register is not None,
        "mode": score.has_mode,
        "metre": score.has_metre,
    }
    attributes = [name for name, is_known in known.items() if not is_known]
    return frozenset(value for name in attributes for value in ATTRIBUTES[name])


def _draw_track(material: Material, rng: np.random.Generator, seconds: float) -> Clip:
    """Return a window of a free track, of which little more is known than that it is music."""
    tracks = material.tracks
    if rng.random() < 0.3:
        tracks = [track for track in tracks if "voice" in track.instrument] or tracks
    track = pick(rng, tracks)
    samples = _fill(_read(track), seconds, rng)
    samples = add_effects(samples, rng) if rng.random() < 0.5 else set_level(samples, rng)
    present = {MUSIC}
    for recorded in filter(None, track.instrument.split("|")):
        if recorded in TRACK_LABELS:
            present |= set(TRACK_LABELS[recorded])
        elif name := BY_RECORDED_NAME.get(recorded):
            present |= {name, INSTRUMENTS[name].family}
    return Clip("track", samples, frozenset(present), frozenset(LABELS) - present)


def _draw_sound(material: Material, rng: np.random.Generator, seconds: float) -> Clip:
    """Return a sound that is no music: an effect, ambience, speech, noise, a test tone, silence."""
    kind = rng.random()
    if kind < 0.2 or not material.not_music:
        samples = _signal(rng, round(seconds * SAMPLE_RATE))
    else:
        pool = material.not_music
        samples = _fill(_read(pick(rng, pool)), seconds, rng)
        if kind < 0.4:
            other = _fill(_read(pick(rng, pool)), seconds, rng)
            samples = samples + np.float32(rng.random()) * other
        samples = add_effects(samples, rng) if kind < 0.7 else set_level(samples, rng)
    # Nothing holds of it: speech is not singing, and a sound has no metre.
    return Clip("sound", samples, frozenset(), frozenset())


def _read(recording: Recording) -> Samples:
    return read_samples(recording.path).astype(np.float32) / 32768


def _fill(samples: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """Return `seconds` of a recording from a random place; a shorter one is repeated, or not."""
    count = round(seconds * SAMPLE_RATE)
    if len(samples) >= count:
        start = int((len(samples) - count + 1) * rng.random())
        return samples[start : start + count].copy()
    if rng.random() < 0.5:
        gap = int(SAMPLE_RATE * rng.random())
        return np.resize(np.pad(samples, (0, gap)), count)
    before = int((count - len(samples)) * rng.random())
    return np.pad(samples, (before, count - len(samples) - before))


def _signal(rng: np.random.Generator, count: int) -> Samples:
    """Return silence, noise, a steady tone, a sweep or clicks."""
    kind, at = rng.random(), np.arange(count) / SAMPLE_RATE
    if kind < 0.1:
        return np.zeros(count, np.float32)
    if kind < 0.5:
        samples = colour(rng.standard_normal(count), -7 * rng.random())
    elif kind < 0.75:
        samples = np.sin(2 * np.pi * 50 * 120 ** rng.random() * at)
    elif kind < 0.9:
        low, high = np.sort(50 * 120 ** rng.random(2))
        samples = np.sin(2 * np.pi * (low * at + (high - low) * at**2 / (2 * at[-1])))
    else:
        samples = (rng.random(count) < 20 * rng.random() / SAMPLE_RATE) * rng.standard_normal(count)
    return set_level(samples.astype(np.float32), rng)
