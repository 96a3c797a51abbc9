"""Tempo and key of music that is rendered from known scores, and of what has neither."""

import copy
import tracemalloc
import warnings

import numpy as np
import pytest
from helpers import noise

from tinymu_jax.data.synthetic.compose import KEYS, TEMPO_BPM, TONICS, compose, write_melody
from tinymu_jax.data.synthetic.facts import draw_facts
from tinymu_jax.library.tempo_key import (
    NOTES,
    PIECE_SECONDS,
    TempoKeyEstimator,
    best_key,
    estimate_tempo_and_key,
    fold_chroma,
    sum_chroma,
)

RATE = 16_000
NUM_CLIPS = 30


def make_clip(seed, seconds=15.0):
    """Returns the facts, tempo, key and samples of a synthetic clip."""
    facts = draw_facts(np.random.default_rng([78, seed]), held_out=False)
    rng = np.random.default_rng([79, seed])
    # What `compose` draws: the tempo is the first number, and the key the first after the melody.
    slowest, fastest = TEMPO_BPM[facts.tempo]
    tempo = slowest + (fastest - slowest) * copy.deepcopy(rng).random()
    after_melody = copy.deepcopy(rng)
    notes = write_melody(facts, seconds, after_melody)
    assert notes[-1].start - notes[0].start == pytest.approx(
        60 / tempo * round((notes[-1].start - notes[0].start) * tempo / 30) / 2
    )
    tonic = TONICS[facts.register] + KEYS[int(after_melody.random() * len(KEYS))]
    samples = compose(facts, seconds, rng).astype(np.float32) / 32_768
    return facts, tempo, f"{NOTES[tonic % 12]} {facts.mode}", samples


@pytest.fixture(scope="module")
def clips():
    return [make_clip(seed) for seed in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def estimates(clips):
    """Tempo and key that are estimated of each clip."""
    return [estimate_tempo_and_key(samples, RATE) for _, _, _, samples in clips]


def related_keys(key):
    """Returns the relative and the parallel key of a key, and the keys a fifth above and below."""
    note, mode = key.split()
    tonic, other = NOTES.index(note), "minor" if mode == "major" else "major"
    relative = tonic + (9 if mode == "major" else 3)
    places = [(relative, other), (tonic, other), (tonic + 7, mode), (tonic + 5, mode)]
    return {f"{NOTES[place % 12]} {name}" for place, name in places}


def test_tempo_of_rendered_scores(clips, estimates):
    pairs = [(e[0], clip[1]) for e, clip in zip(estimates, clips, strict=True)]
    ratios = np.array([bpm / true for bpm, true in pairs if bpm])
    assert len(ratios) >= 0.9 * NUM_CLIPS
    exact = np.abs(ratios - 1) < 0.01
    octaves = np.any([np.abs(ratios * factor - 1) < 0.01 for factor in (0.5, 1, 2)], axis=0)
    assert exact.sum() >= 0.6 * NUM_CLIPS
    assert octaves.sum() >= 0.85 * NUM_CLIPS


def test_key_of_rendered_scores(clips, estimates):
    # Several voices are chords below the melody, which belong to other keys as well.
    pairs = zip(estimates, clips, strict=True)
    pairs = [(e[1], clip[2]) for e, clip in pairs if clip[0].voices == "one"]
    assert len(pairs) >= 12
    exact = sum(key == true for key, true in pairs)
    near = sum(key in related_keys(true) for key, true in pairs)
    assert exact >= 0.6 * len(pairs)
    assert exact + near >= 0.75 * len(pairs)


def play_chords(tonic, mode, detune=0.0, seconds=12):
    """Returns the samples of a cadence (I IV V I) whose tonic is so many semitones above C."""
    third = 4 if mode == "major" else 3
    triads = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    time = np.arange(RATE * seconds // 4) / RATE
    waves = []
    for triad in triads:
        hertz = [440 * 2 ** ((tonic + note - 9 + detune) / 12) for note in triad]
        waves.append(sum(np.sin(2 * np.pi * h * n * time) / n**2 for h in hertz for n in (1, 2, 3)))
    return (0.1 * np.concatenate(waves)).astype(np.float32)


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("detune", [0.0, 0.35, -0.318])  # the last is A = 432 Hz
def test_key_of_cadences_in_any_tuning(mode, detune):
    chromas = [sum_chroma(play_chords(tonic, mode, detune), RATE) for tonic in range(12)]
    keys = [best_key(fold_chroma(chroma))[0] for chroma in chromas]
    assert keys == [f"{note} {mode}" for note in NOTES]


@pytest.mark.parametrize("bpm", [63.0, 90.0, 120.0, 128.0, 141.5])
def test_tempo_of_a_metronome(bpm):
    samples = 1e-4 * noise(RATE * 25)
    click = np.sin(2 * np.pi * 1_000 * np.arange(400) / RATE) * np.linspace(1, 0, 400)
    for beat in np.arange(0.3, 24.5, 60 / bpm):
        start = round(beat * RATE)
        samples[start : start + 400] += click.astype(np.float32)
    tempo, _ = estimate_tempo_and_key(samples, RATE)
    assert min(abs(tempo * factor / bpm - 1) for factor in (0.5, 1, 2)) < 0.005
    assert tempo == round(tempo, 1)


def pink_noise():
    bands = np.fft.rfft(np.random.default_rng(3).standard_normal(RATE * 20))
    sound = np.fft.irfft(bands / np.sqrt(np.maximum(np.arange(len(bands)), 1)))
    return (0.1 * sound / np.abs(sound).max()).astype(np.float32)


def test_silence_and_noise_have_neither():
    sounds = {
        "silence": np.zeros(RATE * 20, np.float32),
        "white noise": noise(RATE * 20),
        "faint noise": 1e-4 * noise(RATE * 10),
        "pink noise": pink_noise(),
        "a click": np.eye(1, RATE * 8, RATE, dtype=np.float32)[0],
        "nothing": np.zeros(0, np.float32),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        results = {name: estimate_tempo_and_key(x, RATE) for name, x in sounds.items()}
    assert {name for name, (bpm, _) in results.items() if bpm is not None} == set()
    del results["a click"]
    assert {name for name, (_, key) in results.items() if key is not None} == set()


def test_a_held_chord_has_a_key_but_no_tempo():
    smooth = sum(0.1 * np.sin(2 * np.pi * h * np.arange(RATE * 15) / RATE) for h in (294, 370, 440))
    assert estimate_tempo_and_key(smooth.astype(np.float32), RATE) == (None, "D major")


def test_estimates_do_not_depend_on_how_the_recording_is_cut(clips):
    samples = np.concatenate([clips[0][3], clips[0][3], clips[0][3][: RATE * 7]])  # 37 s
    whole = TempoKeyEstimator()
    whole.add(samples)
    blocks = TempoKeyEstimator()
    for start in range(0, len(samples), 7_777):
        blocks.add(samples[start : start + 7_777])
    windows = TempoKeyEstimator()
    # The last window is moved back to be full, as `read_windows` does it.
    for start in (0, 10, 20, 27):
        windows.add(samples[start * RATE : (start + 10) * RATE], float(start))
    expected = whole.tempo(), whole.key()
    assert None not in expected
    assert (blocks.tempo(), blocks.key()) == expected
    assert (windows.tempo(), windows.key()) == expected


def test_long_recordings_take_no_more_memory(clips):
    def peak(pieces):
        estimator = TempoKeyEstimator()
        tracemalloc.start()
        for _ in range(pieces * PIECE_SECONDS // 10):
            estimator.add(clips[0][3][: RATE * 10].copy())
        estimator.tempo()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(6) < 1.2 * peak(2)
