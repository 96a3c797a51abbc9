"""Composes scores: parts of one to five instruments, and drums, in a key, a tempo and a metre.

Everything is drawn from a random generator, so that a score is the same on every machine.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.data.real_music.instruments import INSTRUMENTS

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TEMPOS = {"slow": (50, 80), "moderate": (92, 120), "fast": (138, 184)}
"""Word for a tempo -> its least and greatest beats per minute; between the words are gaps."""
BEATS = {"triple": 3, "quadruple": 4}
PROGRESSIONS = {
    "major": ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 1, 4, 0), (0, 2, 3, 4), (0, 3, 0, 4)),
    "minor": ((0, 3, 4, 0), (0, 5, 2, 6), (0, 6, 5, 4), (0, 3, 6, 2), (0, 5, 3, 4), (0, 2, 3, 4)),
}
"""Mode -> chords of four bars, as scale degrees of their roots, counted from 0."""
RHYTHMS = ((1.0,), (0.5, 0.5), (1.0,), (0.5, 0.5), (0.25, 0.25, 0.5), (0.75, 0.25), (1 / 3,) * 3)
"""Lengths of notes that fill a beat, in beats."""
DYNAMICS = ("steady", "steady", "swelling", "fading")
MIN_CLASSES = 5
"""Number of different notes, without octaves, from which the mode of a scale is known."""
REGISTERS = {"low": (0, 54), "middle": (55, 71), "high": (72, 127)}
"""Word for a register -> lowest and highest MIDI note of a melody's median."""


class Event(NamedTuple):
    """A note of a part."""

    start: float
    """Seconds from the start of the clip."""
    seconds: float
    pitch: int
    """MIDI note."""
    velocity: float
    """0 to 1."""


class Hit(NamedTuple):
    """A hit of a drum."""

    drum: str
    start: float
    velocity: float


class Part(NamedTuple):
    """What one instrument plays."""

    instrument: str
    events: Sequence[Event]
    lone_line: bool = False
    """Whether the notes are one melody or bass line, without chords."""


class Score(NamedTuple):
    """A piece for one clip, with its facts."""

    parts: Sequence[Part]
    hits: Sequence[Hit]
    tempo: str
    metre: str
    mode: str
    dynamics: str
    register: str | None
    """Register of a piece that is one lone line; None if it is not, or is near the edge of two."""

    @property
    def has_mode(self) -> bool:
        """Whether enough notes of the scale are played to tell its mode."""
        classes = {event.pitch % 12 for part in self.parts for event in part.events}
        return len(classes) >= MIN_CLASSES

    @property
    def has_metre(self) -> bool:
        """Whether drums, chords or a bass mark the bars."""
        return bool(self.hits) or not all(part.lone_line for part in self.parts[:1])


class _Frame(NamedTuple):
    """What the parts of a piece have in common."""

    beat: float
    """Seconds of a beat."""
    beats: int
    """Beats of a bar."""
    tonic: int
    scale: Sequence[int]
    chords: Sequence[int]
    """Root of each bar's chord, as a scale degree."""
    start: float
    seconds: float

    def nearest_degree(self, pitch: int) -> int:
        """Return the scale degree whose note is nearest to a MIDI note."""
        return min(range(80), key=lambda degree: abs(self.pitch(degree) - pitch))

    def pitch(self, degree: int) -> int:
        """Return the MIDI note of a scale degree, from the tonic at or above note 0."""
        octave, step = divmod(degree, 7)
        return self.tonic + 12 * octave + self.scale[step]


def compose(
    rng: np.random.Generator, instruments: Sequence[str], drums: bool, seconds: float
) -> Score:
    """Compose a piece of `seconds` seconds: the first instrument has the melody."""
    tempo, metre, mode = (pick(rng, list(table)) for table in (TEMPOS, BEATS, SCALES))
    dynamics = pick(rng, DYNAMICS)
    low, high = TEMPOS[tempo]
    beat = 60 / (low + (high - low) * rng.random())
    progression = pick(rng, PROGRESSIONS[mode])
    frame = _Frame(
        beat,
        BEATS[metre],
        int(12 * rng.random()),
        SCALES[mode],
        progression,
        0.3 * rng.random(),
        seconds,
    )
    parts = [
        _play(rng, frame, name, place, len(instruments)) for place, name in enumerate(instruments)
    ]
    hits = _drum(rng, frame) if drums else []
    parts = [p._replace(events=_shape(p.events, dynamics, seconds)) for p in parts]
    hits = _shape(hits, dynamics, seconds)
    return Score(parts, hits, tempo, metre, mode, dynamics, _register(parts))


def pick(rng: np.random.Generator, values: Sequence) -> Any:
    """Draw one of some values."""
    return values[int(rng.random() * len(values))]


def _shape(events: Sequence, dynamics: str, seconds: float) -> list:
    """Return notes or hits with the velocities of a crescendo or decrescendo."""
    if dynamics == "steady":
        return list(events)
    shaped = []
    for event in events:
        at = min(1.0, event.start / seconds)
        at = at if dynamics == "swelling" else 1 - at
        shaped.append(event._replace(velocity=event.velocity * (0.12 + 0.88 * at**1.5)))
    return shaped


def _register(parts: Sequence[Part]) -> str | None:
    """Return the register of a lone line; that of several parts is open to dispute."""
    if len(parts) != 1 or not parts[0].lone_line:
        return None
    median = float(np.median([event.pitch for event in parts[0].events]))
    for name, (low, high) in REGISTERS.items():
        # Within two semitones of an edge, a register is open to dispute too.
        least, most = low + 2 * (low > 0), high - 2 * (high < 127)
        if least <= median <= most:
            return name
    return None


def _play(rng: np.random.Generator, frame: _Frame, name: str, place: int, count: int) -> Part:
    """Compose the part of an instrument, by its place among `count` instruments."""
    instrument = INSTRUMENTS[name]
    if instrument.family == "bass" and (count > 1 or rng.random() < 0.5):
        return Part(name, _bass(rng, frame, name), lone_line=True)
    if count == 1 and instrument.chords:
        kind = rng.random()
        if kind < 0.3:
            return Part(name, _chords(rng, frame, name))
        if kind < 0.65:
            chords = _chords(rng, frame, name, below=True)
            return Part(name, _melody(rng, frame, name) + chords)
        return Part(name, _melody(rng, frame, name), lone_line=True)
    if place == 0 or not instrument.chords:
        return Part(name, _melody(rng, frame, name, slower=place > 0), lone_line=True)
    return Part(name, _chords(rng, frame, name))


def _fit(pitch: int, low: int, high: int) -> int:
    """Move a note by octaves into a range of at least an octave."""
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


def _melody(
    rng: np.random.Generator, frame: _Frame, name: str, slower: bool = False
) -> list[Event]:
    """Compose a melody: chord tones on the beat, steps between them, rests and long notes."""
    instrument = INSTRUMENTS[name]
    span = max(14, min(22, instrument.high - instrument.low))
    low = instrument.low + int((instrument.high - instrument.low - span + 1) * rng.random())
    degree = frame.nearest_degree(low + span // 2)
    events, number, at = [], 0, frame.start
    legato = 0.45 + 0.5 * rng.random()
    rest, hold = 0.05 + 0.15 * rng.random(), (0.5 if slower else 0.1) + 0.3 * rng.random()
    while at < frame.seconds:
        root = frame.chords[(number // frame.beats) % len(frame.chords)]
        lengths = pick(rng, RHYTHMS)
        if rng.random() < hold:
            lengths = (pick(rng, (1.0, 2.0)),)
        for place, length in enumerate(lengths):
            if place == 0:
                target = root + pick(rng, (0, 2, 4))
                degree = target + 7 * round((degree - target) / 7)
            else:
                degree += pick(rng, (-1, 1))
            pitch = frame.pitch(degree)
            if not low <= pitch <= low + span:
                # The line turns back to the middle of its range.
                degree += 7 if pitch < low else -7
                pitch = _fit(frame.pitch(degree), low, low + span)
            if rng.random() > rest or not events:
                strength = 0.7 if place else 0.95 if number % frame.beats == 0 else 0.8
                velocity = min(1.0, strength + 0.1 * (rng.random() - 0.5))
                events.append(Event(at, legato * length * frame.beat, pitch, velocity))
            at += length * frame.beat
        number += max(1, round(sum(lengths)))
    return [event for event in events if event.start < frame.seconds]


def _chords(rng: np.random.Generator, frame: _Frame, name: str, below: bool = False) -> list[Event]:
    """Compose chords: held, repeated on beats, after beats, or broken."""
    instrument = INSTRUMENTS[name]
    low = instrument.low + (0 if below else int(12 * rng.random()))
    low = min(low, instrument.high - 19)
    style = pick(rng, ("held", "beats", "after", "broken"))
    velocity = (0.5 if below else 0.65) + 0.2 * rng.random()
    bar = frame.beat * frame.beats
    events = []
    for number in range(int(frame.seconds / bar) + 1):
        root = frame.chords[number % len(frame.chords)]
        pitches = [_fit(frame.pitch(root + step), low, low + 18) for step in (0, 2, 4)]
        start = frame.start + number * bar
        if style == "held":
            events += [Event(start, 0.97 * bar, pitch, velocity) for pitch in pitches]
            continue
        step = frame.beat / (2 if style == "broken" else 1)
        for place in range(round(bar / step)):
            at = start + place * step + (frame.beat / 2 if style == "after" else 0)
            chosen = [pitches[(0, 1, 2, 1)[place % 4]]] if style == "broken" else pitches
            length = (0.95 if style == "broken" else 0.5) * step
            events += [Event(at, length, pitch, velocity) for pitch in chosen]
    return [event for event in events if event.start < frame.seconds]


def _bass(rng: np.random.Generator, frame: _Frame, name: str) -> list[Event]:
    """Compose a bass line: roots, fifths and passing notes."""
    instrument = INSTRUMENTS[name]
    step = frame.beat * pick(rng, (0.5, 1.0, 1.0, 2.0))
    velocity = 0.75 + 0.2 * rng.random()
    events, at = [], frame.start
    while at < frame.seconds:
        number = round((at - frame.start) / frame.beat)
        root = frame.chords[(number // frame.beats) % len(frame.chords)]
        move = 0 if number % frame.beats == 0 else pick(rng, (0, 0, 4, 2, 1))
        pitch = _fit(frame.pitch(root + move), instrument.low, instrument.low + 18)
        events.append(Event(at, 0.9 * step, pitch, velocity))
        at += step
    return events


def _drum(rng: np.random.Generator, frame: _Frame) -> list[Hit]:
    """Compose a drum pattern of one bar, and repeat it with small changes."""
    halves = 2 * frame.beats
    kicks = {0} | {n for n in range(2, halves) if rng.random() < 0.2}
    snares = {2, 6} if frame.beats == 4 else {2, 4}
    eighths = rng.random() < 0.6
    fill = rng.random() < 0.5
    hits = []
    for place in range(int(frame.seconds / (frame.beat / 2)) + 1):
        at, n = frame.start + place * frame.beat / 2, place % halves
        if n in kicks:
            hits.append(Hit("kick", at, 0.9))
        if n in snares:
            hits.append(Hit("snare", at, 0.85))
        if eighths or n % 2 == 0:
            hits.append(Hit("hat", at, 0.5 if n % 2 else 0.65))
        if fill and place % (2 * halves) >= 2 * halves - 2:
            hits.append(Hit("toms", at, 0.7))
    return [hit for hit in hits if hit.start < frame.seconds]
