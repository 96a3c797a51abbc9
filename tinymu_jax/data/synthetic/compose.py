"""Renders the waveform of a clip from its facts: melody, instrument, drums, reverb and level."""

from typing import NamedTuple

import numpy as np

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.synthetic.facts import Facts
from tinymu_jax.data.synthetic.instruments import INSTRUMENTS, Samples, hat, kick, noise, snare

TEMPO_BPM = {"slow": (70, 82), "medium": (104, 118), "fast": (150, 170)}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TONICS = {"low": 64, "high": 82}
"""Lowest tonic of each register, as a MIDI note."""
KEYS = (0, 2, 4)
"""Possible tonics in semitones above a register's lowest tonic. They differ by whole tones, so that
the major third of one key is never the minor third of another."""
FIRST, HALF, WEAK = 1.0, 0.7, 0.3
"""Loudness of notes on a bar's first beat, on the third of four beats, and on all other beats."""
BARS = {"three": (FIRST, WEAK, WEAK), "four": (FIRST, WEAK, HALF, WEAK)}
CHORD = (0, 2, 4, 7, 9)
"""Chord tones used in melodies, in scale degrees above the tonic."""


class Note(NamedTuple):
    """A note of a melody, before it is rendered in a key."""

    start: float
    """Onset in seconds."""
    seconds: float
    degree: int
    """Number of scale degrees above the tonic."""
    strength: float


def _heights(contour: str, count: int) -> list[float]:
    """Return a melody's height at each of `count` beats, 0 to 1, by `contour` ("rising", ...)."""
    shares = [number / max(count - 1, 1) for number in range(count)]
    heights = {
        "rising": shares,
        "falling": [1 - share for share in shares],
        "arched": [1 - abs(2 * share - 1) for share in shares],
    }[contour]
    return [height / (max(heights) or 1) for height in heights]


def write_melody(facts: Facts, seconds: float, rng: np.random.Generator) -> list[Note]:
    """Compose a melody of chord tones and their neighbours, with one or two notes per beat."""
    low, high = TEMPO_BPM[facts.tempo]
    beat = 60 / (low + (high - low) * rng.random())
    start = 0.02 + 0.1 * rng.random()
    bar = BARS[facts.metre]
    count = int((seconds - start) / beat + 0.4)
    notes: list[Note] = []
    for number, height in enumerate(_heights(facts.contour, count)):
        degree = CHORD[round(height * (len(CHORD) - 1))]
        # The third is never altered, since it shows the mode.
        if rng.random() < 0.15 and 0 < number < count - 1 and degree % 7 != 2:
            degree += 1 if rng.random() < 0.5 else -1
        at, strength = start + number * beat, bar[number % len(bar)]
        kind = rng.random()
        if strength == WEAK and kind < 0.12:
            halves = ((at, degree), (at + beat / 2, degree + 1))
            notes += [Note(when, 0.4 * beat, step, strength) for when, step in halves]
        else:
            length = 0.5 if strength == WEAK else 0.95
            notes.append(Note(at, length * beat, degree, strength))
    return notes


def _frequency(facts: Facts, tonic: float, degree: int) -> float:
    octave, step = divmod(degree, 7)
    pitch = tonic + 12 * octave + SCALES[facts.mode][step]
    return 440 * 2 ** ((pitch - 69) / 12)


def play(facts: Facts, notes: list[Note], count: int, rng: np.random.Generator) -> Samples:
    """Render a melody to `count` samples on the clip's instrument, in a random key."""
    key = KEYS[int(rng.random() * len(KEYS))]
    tonic = TONICS[facts.register] + key + 0.3 * (rng.random() - 0.5)
    instrument = INSTRUMENTS[facts.timbre]
    chord = (0, -2, -4) if facts.voices == "several" else (0,)
    loudness = 0.6 if facts.voices == "several" else 1.0
    mix = np.zeros(count, np.float32)
    for note in notes:
        start = int(note.start * SAMPLE_RATE)
        length = min(int(note.seconds * SAMPLE_RATE), count - start)
        if length < 200:
            continue
        for step in chord:
            wave = instrument(_frequency(facts, tonic, note.degree + step), length, rng)
            mix[start : start + length] += np.float32(loudness * note.strength) * wave
    return mix


def play_drums(facts: Facts, notes: list[Note], count: int, rng: np.random.Generator) -> Samples:
    """Render drums to `count` samples: at each note's start, the hits that its strength selects."""
    mix = np.zeros(count, np.float32)
    level = np.float32(0.7 + 0.3 * rng.random())
    for note in notes:
        sounds = {FIRST: (kick, hat), HALF: (snare,), WEAK: (hat,)}[note.strength]
        for hit in (sound(rng) for sound in sounds):
            start = int(note.start * SAMPLE_RATE)
            length = min(len(hit), count - start)
            mix[start : start + length] += level * hit[:length]
    return mix


ECHOES = ((1116, 0.84), (1188, 0.83), (1277, 0.82), (1356, 0.81))
"""Delay (in samples, for a room of size 1) and feedback of each of Schroeder's comb filters."""


def add_reverb(dry: Samples, rng: np.random.Generator) -> Samples:
    """Add the reverb of a room of random size: Schroeder's comb filters, then all-pass filters."""
    size = 0.45 + 0.15 * rng.random()
    wet = np.zeros_like(dry)
    for delay, feedback in ECHOES:
        wet += _delay_line(dry, int(delay * size), np.float32(feedback))[: len(dry)]
    for delay in (225, 81):
        half = np.float32(0.5)
        line = _delay_line(wet, delay, half)
        wet = line[: len(wet)] - half * line[delay:]
    return dry + np.float32(0.35) * wet


def _delay_line(x: Samples, delay: int, feedback: np.float32) -> Samples:
    """Return a delay line with input `x`: line[t + delay] = x[t] + feedback * line[t]."""
    line = np.zeros(len(x) + delay, np.float32)
    for start in range(0, len(x), delay):
        stop = min(start + delay, len(x))
        piece = line[delay + start : delay + stop]
        np.multiply(line[start:stop], feedback, out=piece)
        piece += x[start:stop]
    return line


def set_level(facts: Facts, mix: Samples, rng: np.random.Generator) -> Samples:
    """Scale a mix to the level of the clip's dynamics, and add soft noise."""
    peak = np.float32(np.abs(mix).max() or 1)
    share = np.arange(len(mix), dtype=np.float32) / len(mix)
    loud, soft = 0.6 + 0.35 * rng.random(), 0.04 + 0.04 * rng.random()
    level = {
        "loud": np.float32(loud),
        "soft": np.float32(soft),
        "swelling": np.float32(soft) + np.float32(loud - soft) * share * share,
    }[facts.dynamics]
    hiss = np.float32(2e-4 + 6e-4 * rng.random())
    return mix / peak * level + hiss * noise(len(mix), rng)


def compose(facts: Facts, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Render a clip of `seconds` seconds with the given facts; return int16 samples at 16 kHz."""
    count = round(seconds * SAMPLE_RATE)
    notes = write_melody(facts, seconds, rng)
    mix = play(facts, notes, count, rng)
    mix /= np.float32(np.abs(mix).max() or 1)
    if facts.drums == "drums":
        mix += np.float32(0.8) * play_drums(facts, notes, count, rng)
    if facts.room == "room":
        mix = add_reverb(mix, rng)
    samples = set_level(facts, mix, rng)
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
