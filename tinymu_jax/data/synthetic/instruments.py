"""Synthesizes notes of each timbre and drum hits with numpy, identically on every machine."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.log_mel import SAMPLE_RATE

Samples = Float32[np.ndarray, "n"]
TABLE = 2048
"""Number of samples in a wavetable, which is one period of a wave."""
HIGHEST = 7600.0
"""Highest frequency of a note's harmonics in Hz, below the Nyquist frequency to avoid aliasing."""


def read_table(table: Samples, cycles: np.ndarray) -> Samples:
    """Return a wavetable's values at positions `cycles`, in periods, by linear interpolation."""
    position = (cycles - np.floor(cycles)).astype(np.float32) * TABLE
    index = position.astype(np.int32)
    fraction = position - index
    # Rounding to float32 may turn a position just below `TABLE` into `TABLE`.
    index = index & (TABLE - 1)
    here = table[index]
    return here + (table[index + 1] - here) * fraction


@lru_cache(maxsize=512)
def _sum_of_sines(amplitudes: tuple[float, ...]) -> Samples:
    """Return a wavetable (peak 1) of harmonics 1, 2, ...; its last sample repeats the first."""
    cycle = np.arange(TABLE + 1) / TABLE
    wave = sum(
        a * np.sin(2 * np.pi * (k * cycle + 0.17 * k * k)) for k, a in enumerate(amplitudes, 1) if a
    )
    return (wave / np.abs(wave).max()).astype(np.float32)


SINE = (np.sin(2 * np.pi * np.arange(TABLE + 1) / TABLE)).astype(np.float32)


def _harmonics(frequency: float, most: int) -> range:
    return range(1, max(1, min(most, int(HIGHEST / frequency))) + 1)


def _seconds(count: int) -> np.ndarray:
    return np.arange(count) / SAMPLE_RATE


def _attack_release(count: int, attack: float, release: float) -> Samples:
    """Return an envelope of `count` samples with a linear attack and release, given in seconds."""
    number = np.arange(count, dtype=np.float32)
    rising = number / np.float32(max(1.0, attack * SAMPLE_RATE))
    falling = (count - number) / np.float32(max(1.0, release * SAMPLE_RATE))
    return np.minimum(np.minimum(rising, falling), np.float32(1))


def _decay(count: int, seconds: float) -> Samples:
    """Return an exponential decay from 1 over `count` samples; `seconds` is the time constant."""
    return np.exp(-_seconds(count) / seconds).astype(np.float32)


def _cycles(frequency: float, count: int, vibrato: float = 0.0, phase: float = 0.0) -> np.ndarray:
    """Return the phase of a tone, in periods, at each of `count` samples.

    `vibrato` is the depth, in periods, of a vibrato at 5.5 Hz. `phase` is the phase at the start.
    """
    seconds = _seconds(count)
    cycles = frequency * seconds + phase
    if vibrato:
        cycles += vibrato * read_table(SINE, 5.5 * seconds)
    return cycles


def pluck(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render `count` samples of a plucked string at a frequency in Hz (Karplus and Strong)."""
    string = _string(int(rng.random() * STRINGS), frequency > 500)
    # Averaging two samples per period delays by half a sample, which lowers the pitch.
    speed = frequency * PERIOD / (1 - 0.5 / PERIOD)
    position = np.minimum(_seconds(count) * speed, len(string) - 2)
    index = position.astype(np.int32)
    fraction = (position - index).astype(np.float32)
    here = string[index]
    wave = here + (string[index + 1] - here) * fraction
    return wave * _attack_release(count, 0.001, 0.03)


STRINGS, PERIOD = 32, 64
"""Number of different plucked strings, and length of a string's period in samples."""


@lru_cache(maxsize=2 * STRINGS)
def _string(number: int, high: bool) -> Samples:
    """Return 1000 periods of a plucked string; `number` seeds its noise, smoother if `high`."""
    state = np.random.default_rng([7, number]).random(PERIOD) - 0.5
    for _ in range(3 if high else 1):
        state = (state + np.roll(state, 1)) / 2
    state -= state.mean()
    rounds = []
    for _ in range(1000):
        rounds.append(state)
        state = 0.498 * (state + np.roll(state, 1))
    return (np.concatenate(rounds) / np.abs(rounds[0]).max()).astype(np.float32)


def organ(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of an organ: harmonics at octaves and fifths, with a steep envelope."""
    drawbars = (1.0, 0.8, 0.6, 0.6, 0.0, 0.4, 0.0, 0.5)
    table = _sum_of_sines(drawbars[: len(_harmonics(frequency, 8))])
    wave = read_table(table, _cycles(frequency, count, 0, rng.random()))
    return 0.6 * wave * _attack_release(count, 0.012, 0.02)


def flute(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of a flute: nearly a sine, with vibrato and breath noise."""
    table = _sum_of_sines((1.0, 0.12, 0.05)[: len(_harmonics(frequency, 3))])
    wave = read_table(table, _cycles(frequency, count, frequency * 0.0006, rng.random()))
    breath = noise(count, rng) * np.float32(0.06)
    return (0.8 * wave + breath) * _attack_release(count, 0.06, 0.05)


def _between(
    dull: Samples, bright: Samples, cycles: np.ndarray, share: Samples | np.ndarray
) -> Samples:
    low = read_table(dull, cycles)
    return low + (read_table(bright, cycles) - low) * share


def brass(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of a brass instrument: high harmonics grow during the attack."""
    numbers = _harmonics(frequency, 16)
    bright = _sum_of_sines(tuple(k**-0.5 for k in numbers))
    dull = _sum_of_sines(tuple(k**-2.5 for k in numbers))
    cycles = _cycles(frequency, count, 0, rng.random())
    opened = _attack_release(count, 0.09, 0.06)
    return 0.7 * _between(dull, bright, cycles, opened) * _attack_release(count, 0.04, 0.04)


def bell(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of a bell: decaying frequency modulation at an inharmonic ratio."""
    fading = _decay(count, 0.25)
    modulated = 0.35 * fading * read_table(SINE, _cycles(3.53 * frequency, count, 0, rng.random()))
    wave = read_table(SINE, _cycles(frequency, count) + modulated)
    high = read_table(SINE, _cycles(min(2.76 * frequency, HIGHEST), count))
    wave = 0.7 * wave + 0.3 * high * fading
    return wave * _decay(count, 0.5) * _attack_release(count, 0.001, 0.04)


def bass(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of a synthesizer bass: a sawtooth whose high harmonics decay fast."""
    numbers = _harmonics(frequency, 24)
    bright = _sum_of_sines(tuple(1 / k for k in numbers))
    dull = _sum_of_sines(tuple(k**-3.5 for k in numbers))
    cycles = _cycles(frequency, count, 0, rng.random())
    wave = _between(dull, bright, cycles, _decay(count, 0.05))
    return 0.9 * wave * _decay(count, 0.6) * _attack_release(count, 0.003, 0.03)


def square(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of a square wave: odd harmonics at a steady level."""
    amplitudes = tuple((k % 2) / k for k in _harmonics(frequency, 31))
    wave = read_table(_sum_of_sines(amplitudes), _cycles(frequency, count, 0, rng.random()))
    return 0.55 * wave * _attack_release(count, 0.004, 0.01)


FORMANTS = ((750.0, 1.0, 90.0), (1180.0, 0.6, 110.0), (2600.0, 0.3, 160.0), (3400.0, 0.15, 200.0))
"""Centre in Hz, strength, and half width in Hz of each formant of an open vowel."""


@lru_cache(maxsize=256)
def _vowel(semitone: int) -> Samples:
    frequency = 55 * 2 ** (semitone / 12)
    strengths = tuple(
        0.03 / k
        + sum(a / (1 + ((k * frequency - centre) / width) ** 2) for centre, a, width in FORMANTS)
        for k in _harmonics(frequency, 40)
    )
    return _sum_of_sines(strengths)


def voice(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a sung note: an open vowel with wide vibrato and a slow attack."""
    table = _vowel(round(12 * math.log2(frequency / 55)))
    wave = read_table(table, _cycles(frequency, count, frequency * 0.0012, rng.random()))
    return 0.8 * wave * _attack_release(count, 0.08, 0.07)


def accordion(frequency: float, count: int, rng: np.random.Generator) -> Samples:
    """Render a note of an accordion: two reeds detuned by 9 Hz, which beat."""
    table = _sum_of_sines(tuple(k**-0.8 for k in _harmonics(frequency, 20)))
    start = rng.random()
    wave = read_table(table, _cycles(frequency, count, 0, start))
    wave = wave + read_table(table, _cycles(frequency + 9.0, count, 0, start + 0.5 * rng.random()))
    return 0.4 * wave * _attack_release(count, 0.03, 0.03)


Instrument = Callable[[float, int, np.random.Generator], Samples]
INSTRUMENTS: Mapping[str, Instrument] = {
    instrument.__name__: instrument
    for instrument in (pluck, organ, flute, brass, bell, bass, square, voice, accordion)
}
"""Timbre -> function that renders a note (peak about 1); see `pluck` for its arguments."""


@lru_cache(maxsize=1)
def _noise() -> Samples:
    return (2 * np.random.default_rng(11).random(8 * SAMPLE_RATE) - 1).astype(np.float32)


def noise(count: int, rng: np.random.Generator) -> Samples:
    """Return `count` samples of uniform noise in -1 to 1, cut at random from a fixed sequence."""
    sequence = _noise()
    start = int(rng.random() * max(len(sequence) - count, 0))
    return np.resize(sequence[start : start + count], count)


def kick(rng: np.random.Generator) -> Samples:
    """Render a hit of a kick drum: a decaying sine with a falling pitch."""
    seconds = _seconds(int(0.18 * SAMPLE_RATE))
    cycles = 48 * seconds + 2.6 * (1 - np.exp(-seconds / 0.03))
    return 0.9 * read_table(SINE, cycles) * _decay(len(seconds), 0.06)


def snare(rng: np.random.Generator) -> Samples:
    """Render a hit of a snare drum: a burst of noise."""
    count = int(0.14 * SAMPLE_RATE)
    return 0.5 * noise(count, rng) * _decay(count, 0.04)


def hat(rng: np.random.Generator) -> Samples:
    """Render a hit of a hi-hat: a short burst of high-passed noise."""
    count = int(0.05 * SAMPLE_RATE)
    return 0.35 * np.diff(noise(count + 1, rng)) * _decay(count, 0.012)
