"""Renders scores: parts on recorded notes or soundfonts, drums, and the mix of all."""

import ctypes
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.real_music.instruments import DRUM_KITS, GM_DRUMS, INSTRUMENTS
from tinymu_jax.data.real_music.material import Material, Note, read_note
from tinymu_jax.data.real_music.score import Event, Hit, Part, Score, pick
from tinymu_jax.errors import InputError

Samples = Float32[np.ndarray, "n"]
OVERSAMPLING = 2
"""Soundfonts are played at twice the rate, so that what is above 8 kHz does not fold back."""
DRUM_CHANNEL, DRUM_BANK = 9, 128
BLOCK = 64
"""Samples that FluidSynth computes at a time; a clip is a whole number of these."""
_BUFFER = (("buffer", ctypes.c_void_p), ("offset", ctypes.c_int), ("step", ctypes.c_int))
RELEASE = 0.12
"""Seconds in which a recorded note fades after its end."""
MIN_NOTES = 5
"""Least notes of a source by which an instrument is played."""
MAX_SHIFT = 4
"""Semitones beyond a source's lowest and highest note that it plays."""
SILENT = 1e-4
"""Peak below which a part of a soundfont does not sound; some presets lack some notes."""


class Renderer:
    """Renders scores with some recordings and soundfonts.

    Args:
        material: recordings of notes and drums; None plays soundfonts alone.
        soundfonts: paths of General MIDI soundfonts (sf2 or sf3).
    """

    def __init__(self, material: Material | None, soundfonts: Sequence[str | Path]) -> None:
        self.material = material
        self.soundfonts = [Soundfont(path) for path in soundfonts]
        self._in_clip: list[Soundfont] = []

    def sources(self, part: Part) -> list[str]:
        """Return the sources with enough recorded notes, of the range of a part."""
        if self.material is None:
            return []
        pitches = [event.pitch for event in part.events]
        return [
            source
            for source, notes in self.material.notes.get(part.instrument, {}).items()
            if len(notes) >= MIN_NOTES
            and notes[0].pitch - MAX_SHIFT <= min(pitches)
            and max(pitches) <= notes[-1].pitch + MAX_SHIFT
        ]

    def render(self, score: Score, seconds: float, rng: np.random.Generator) -> Samples:
        """Render a score to a mix of `seconds` seconds at 16 kHz, with a peak of 1.

        No part is more than 8 dB softer than another. Raises `InputError` if a soundfont does not
        play an instrument.
        """
        count = round(seconds * SAMPLE_RATE)
        self._in_clip.clear()
        stems = [self._part(part, count, rng) for part in score.parts]
        if score.hits:
            stems.append(self._drums(score.hits, count, rng))
        mix = np.zeros(count, np.float32)
        for stem in stems:
            loudness = np.sqrt((stem**2).mean()) or 1.0
            gain = 10 ** (-8 * rng.random() / 20) if len(stems) > 1 else 1.0
            mix += np.float32(gain / loudness) * stem
        return mix / (np.abs(mix).max() or np.float32(1))

    def _part(self, part: Part, count: int, rng: np.random.Generator) -> Samples:
        sources = self.sources(part)
        if sources and rng.random() < 0.5:
            source = pick(rng, sources)
            return play_notes(self.material.notes[part.instrument][source], part, count, rng)
        soundfont = self._soundfont(rng)
        programs = soundfont.presets(INSTRUMENTS[part.instrument].programs)
        for number in rng.permutation(len(programs)):
            stem = soundfont.play(part.events, programs[int(number)], count)
            if np.abs(stem).max() > SILENT:
                return stem
        raise InputError(
            f"{soundfont.path}: does not play {part.instrument}; name a General MIDI soundfont"
        )

    def _drums(self, hits: Sequence[Hit], count: int, rng: np.random.Generator) -> Samples:
        kits = [] if self.material is None else list(self.material.drums.values())
        if kits and rng.random() < 0.6:
            kit = pick(rng, kits)
            sounds = {drum: pick(rng, hit) for drum, hit in kit.items()}
            return play_hits(sounds, hits, count)
        soundfont = self._soundfont(rng)
        kits = soundfont.presets(DRUM_KITS, drums=True)
        if not kits:
            raise InputError(f"{soundfont.path}: has no drums; name a General MIDI soundfont")
        kit = pick(rng, kits)
        pitches = {drum: pick(rng, of) for drum, of in GM_DRUMS.items()}
        events = [Event(hit.start, 0.1, pitches[hit.drum], hit.velocity) for hit in hits]
        return soundfont.play(events, kit, count, drums=True)

    def _soundfont(self, rng: np.random.Generator) -> "Soundfont":
        soundfont = pick(rng, self.soundfonts)
        if soundfont not in self._in_clip:
            soundfont.renew()
            self._in_clip.append(soundfont)
        return soundfont


def play_notes(notes: Sequence[Note], part: Part, count: int, rng: np.random.Generator) -> Samples:
    """Render a part to `count` samples at 16 kHz from recorded notes, which are sorted by pitch."""
    pitches = np.array([note.pitch for note in notes])
    sustains = INSTRUMENTS[part.instrument].sustains
    mix = np.zeros(count, np.float32)
    for event in part.events:
        distance = np.abs(pitches - event.pitch)
        near = np.flatnonzero(distance <= max(distance.min() + 0.6, 1.2))
        note = notes[int(pick(rng, near))]
        wave = shift(read_note(note.path), event.pitch - note.pitch)
        # A note that decays rings on for a moment, as under a pianist's finger.
        release = RELEASE if sustains else 2 * RELEASE
        wave = _release(wave, event.seconds, release)
        _add(mix, wave * np.float32(event.velocity / 32768), event.start)
    return mix


def shift(samples: np.ndarray, semitones: float) -> Samples:
    """Return a recorded note at another pitch, by playing it faster or slower."""
    factor = 2 ** (semitones / 12)
    at = np.arange(int((len(samples) - 1) / factor)) * factor
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def _release(wave: Samples, seconds: float, release: float) -> Samples:
    """End a note after `seconds`, and fade it out; the end of the recording is faded too."""
    hold, fade = int(seconds * SAMPLE_RATE), int(release * SAMPLE_RATE)
    wave = wave[: hold + fade].copy()
    fade = min(fade, len(wave))
    wave[len(wave) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32) ** 2
    return wave


def play_hits(sounds: dict[str, Path], hits: Sequence[Hit], count: int) -> Samples:
    """Render drums to `count` samples at 16 kHz; a drum without a recording is silent."""
    mix = np.zeros(count, np.float32)
    for hit in hits:
        if hit.drum in sounds:
            wave = read_note(sounds[hit.drum]).astype(np.float32) / 32768
            _add(mix, wave * np.float32(hit.velocity), hit.start)
    return mix


def _add(mix: Samples, wave: Samples, seconds: float) -> None:
    start = int(seconds * SAMPLE_RATE)
    wave = wave[: max(0, len(mix) - start)]
    mix[start : start + len(wave)] += wave


class Soundfont:
    """A General MIDI soundfont, played by FluidSynth.

    Raises:
        InputError: FluidSynth is not installed, or the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import fluidsynth
        except ImportError as error:
            raise InputError(
                "soundfonts need FluidSynth: apt install fluidsynth (or brew install fluid-synth), "
                "and pip install 'tinymu_jax[render]'"
            ) from error
        self.path, self.rate = path, OVERSAMPLING * SAMPLE_RATE
        # FluidSynth caches the samples for as long as one synthesizer uses them.
        self._cached = self._load(fluidsynth)
        self._write_float = fluidsynth.cfunc(
            "fluid_synth_write_float",
            ctypes.c_int,
            ("synth", ctypes.c_void_p, 1),
            ("frames", ctypes.c_int, 1),
            *((f"{side}_{name}", kind, 1) for side in ("left", "right") for name, kind in _BUFFER),
        )
        self.renew()

    def renew(self) -> None:
        """Make a new synthesizer; the sound of another depends on what it has played before."""
        import fluidsynth

        if hasattr(self, "synth"):
            self.synth.delete()
        self.synth, self.id = self._load(fluidsynth)

    def _load(self, fluidsynth: Any) -> tuple[Any, int]:
        synth = fluidsynth.Synth(gain=0.5, samplerate=float(self.rate))
        synth.setting("synth.reverb.active", 0)
        synth.setting("synth.chorus.active", 0)
        number = synth.sfload(os.fspath(self.path)) if Path(self.path).is_file() else -1
        if number < 0:
            raise InputError(f"{self.path}: is no soundfont; name an sf2 or sf3 file")
        return synth, number

    def presets(self, programs: Sequence[int], drums: bool = False) -> list[int]:
        """Return those of `programs` that the soundfont has, of instruments or of drums."""
        bank = DRUM_BANK if drums else 0
        return [p for p in programs if self.synth.sfpreset_name(self.id, bank, p) is not None]

    def play(
        self, events: Sequence[Event], program: int, count: int, drums: bool = False
    ) -> Samples:
        """Render notes on a program to `count` samples at 16 kHz, without reverb and chorus."""
        from scipy.signal import resample_poly

        self._silence()
        channel, bank = (DRUM_CHANNEL, DRUM_BANK) if drums else (0, 0)
        self.synth.program_select(channel, self.id, bank, program)
        total = -(-count * OVERSAMPLING // BLOCK) * BLOCK
        stereo, at = np.zeros((2, total), np.float32), 0
        for moment, pitch, velocity in _messages(events, self.rate):
            if moment >= total:
                break
            self._write(stereo[:, at:moment])
            at = moment
            if velocity:
                self.synth.noteon(channel, pitch, velocity)
            else:
                self.synth.noteoff(channel, pitch)
        self._write(stereo[:, at:])
        return resample_poly(stereo.mean(axis=0), 1, OVERSAMPLING).astype(np.float32)[:count]

    def _silence(self) -> None:
        """Reset the synthesizer, and let the notes of the part before die away."""
        self.synth.system_reset()
        rest = np.ones((2, 64 * BLOCK), np.float32)
        while np.abs(rest).max() > 0:
            self._write(rest)

    def _write(self, stereo: Float32[np.ndarray, "2 n"]) -> None:
        # As floats: 16-bit samples are dithered, by numbers that go on from clip to clip.
        left, right = (row.ctypes.data_as(ctypes.c_void_p) for row in stereo)
        self._write_float(self.synth.synth, stereo.shape[1], left, 0, 1, right, 0, 1)


def _messages(events: Sequence[Event], rate: int) -> list[tuple[int, int, int]]:
    """Return (sample, note, velocity) of all note-ons and note-offs (velocity 0), in order."""
    messages, next_starts = [], dict[int, float]()
    for event in sorted(events, key=lambda event: -event.start):
        velocity = max(1, min(127, round(127 * event.velocity)))
        # A note would else be ended by the end of an earlier note of its pitch.
        end = min(event.start + event.seconds, next_starts.get(event.pitch, math.inf))
        if end <= event.start:
            continue
        next_starts[event.pitch] = event.start
        messages.append((int(event.start * rate), event.pitch, velocity))
        messages.append((int(end * rate), event.pitch, 0))
    # At one moment, notes end before others begin, so that a repeated note sounds again.
    return sorted(messages, key=lambda message: (message[0], message[2] > 0))
