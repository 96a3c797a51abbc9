"""Synthetic music: reproducible clips, audible facts, complete folders."""

import csv
import hashlib
import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from helpers import refusal

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.musicskills import read_lists
from tinymu_jax.data.synthetic import instruments
from tinymu_jax.data.synthetic.compose import compose, write_melody
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE, Facts, draw_facts
from tinymu_jax.data.synthetic.generate import (
    LISTS,
    TEXT_LISTS,
    draw_clip_facts,
    make_clip,
    make_text,
    synthesize,
)
from tinymu_jax.data.synthetic.instruments import INSTRUMENTS

RATE = 16_000
PLAIN = {"drums": "none", "voices": "one", "room": "dry", "dynamics": "loud"}
ONLY_OPEN = {"captions": 0, "open": 4, "choice": 0, "binary": 0}
SMALL = SynthesisConfig(clips=6, texts=3, seconds=1.0, workers=1)


# --- facts -------------------------------------------------------------------------------------


SIZES = [len(values) for values in FACTS.values()]
DRAWS, COMBINATIONS = 6000, int(np.prod(SIZES))


@pytest.fixture(scope="module", params=[False, True], ids=["training", "test"])
def drawn(request):
    """Facts of many clips as numbers of their values, and how many draws these are worth.

    Which combinations are kept for tests is a draw of its own: few, they are less even.
    """
    config = SynthesisConfig(held_out=request.param)
    facts = [draw_clip_facts(config, number)[0] for number in range(DRAWS)]
    values = np.array([[FACTS[n].index(v) for n, v in f._asdict().items()] for f in facts])
    kinds = COMBINATIONS / 8 * (1 if request.param else 7)
    return values, 1 / (1 / DRAWS + 1 / kinds)


def assert_by_chance(counts, expected, freedom, worth):
    """Holds counts against what is expected: chi-square within five standard deviations."""
    distance = ((counts - expected) ** 2 / expected).sum() * worth / DRAWS
    assert distance < freedom + 5 * (2 * freedom) ** 0.5


def test_values_are_equally_frequent(drawn):
    values, worth = drawn
    for column, size in zip(values.T, SIZES, strict=True):
        counts = np.bincount(column, minlength=size)
        assert_by_chance(counts, DRAWS / size, size - 1, worth)


def test_facts_are_independent(drawn):
    values, worth = drawn
    for i, j in itertools.combinations(range(len(SIZES)), 2):
        table = np.zeros((SIZES[i], SIZES[j]))
        np.add.at(table, (values[:, i], values[:, j]), 1)
        expected = table.sum(1, keepdims=True) * table.sum(0) / DRAWS
        assert_by_chance(table, expected, (SIZES[i] - 1) * (SIZES[j] - 1), worth)


def test_combinations_for_tests_are_disjoint_from_training():
    rng = np.random.default_rng(0)
    training = {draw_facts(rng, held_out=False) for _ in range(8000)}
    test = {draw_facts(rng, held_out=True) for _ in range(8000)}
    assert not training & test
    # So many draws find nearly all that there are: one combination in eight.
    assert len(test) / COMBINATIONS == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("timbre", ["organ", NEW_TIMBRE])
def test_all_clips_have_the_requested_timbre(timbre):
    config = SynthesisConfig(timbre=timbre, extra=(NEW_TIMBRE,))
    others = [draw_clip_facts(config, number)[0] for number in range(50)]
    assert {facts.timbre for facts in others} == {timbre}
    assert len(set(others)) > 45


def test_the_new_timbre_is_in_texts_but_not_in_clips():
    reported = [make_text(SynthesisConfig(), number) for number in range(200)]
    named = [text for facts, text, _ in reported if facts.timbre == NEW_TIMBRE]
    assert len(named) > 10
    assert all(NEW_TIMBRE in text for text in named)
    encoded = [draw_clip_facts(SynthesisConfig(), number)[0].timbre for number in range(200)]
    assert set(encoded) == set(FACTS["timbre"])


# --- clips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1.0, 2.5, 4.0, 12.0])
def test_clips_have_the_requested_length_and_a_valid_level(seconds):
    for number in range(6):
        _, samples, _ = make_clip(SynthesisConfig(seconds=seconds), number)
        assert samples.dtype == np.int16
        assert samples.shape == (round(seconds * RATE),)
        # Full scale is not reached: nothing was clipped.
        assert 1000 < np.abs(samples.astype(int)).max() < 32_767
        assert np.abs(samples[: RATE // 2]).max() > 100


def test_a_clip_depends_on_seed_and_number():
    config = SynthesisConfig(seconds=1.0)
    forth = {number: make_clip(config, number) for number in range(4)}
    back = {number: make_clip(config, number) for number in reversed(range(4))}
    for number, (facts, samples, asked) in forth.items():
        assert (facts, asked) == (back[number][0], back[number][2])
        np.testing.assert_array_equal(samples, back[number][1])
    others = [replace(config, seed=1), replace(config, held_out=True)]
    clips = [forth[0][1], forth[1][1], *(make_clip(other, 0)[1] for other in others)]
    assert len({clip.tobytes() for clip in clips}) == 4


def test_audio_does_not_depend_on_the_questions():
    config = SynthesisConfig(seconds=1.0)
    facts, samples, _ = make_clip(config, 0)
    for other in (replace(config, choice=0), replace(config, open=10), replace(config, clips=5)):
        again, encoded, _ = make_clip(other, 0)
        assert again == facts
        np.testing.assert_array_equal(encoded, samples)


def test_clips_are_the_same_on_every_machine():
    """Pinned from this code, for nothing else gives them; new sounds need a new pin."""
    digest = hashlib.sha256()
    for config in (
        SynthesisConfig(),
        SynthesisConfig(held_out=True, seed=3, timbre=NEW_TIMBRE, extra=(NEW_TIMBRE,)),
    ):
        for number in (0, 1, 77):
            digest.update(make_clip(config, number)[1].astype("<i2").tobytes())
    assert digest.hexdigest() == PINNED


PINNED = "2c1e4902ea7af71a663f24ae8bd5dd9366e7ffb66b997eba35fdb12846c8124a"


# --- what can be heard -------------------------------------------------------------------------


def level(samples):
    return float(np.sqrt((samples.astype(float) ** 2).mean()))


def envelope(samples):
    """Returns the level of every 5 ms, at most 1."""
    frames = samples[: len(samples) // 80 * 80].astype(float).reshape(-1, 80)
    levels = np.sqrt((frames**2).mean(1))
    return levels / levels.max()


def pitch_of(samples):
    """Returns the frequency in Hz of the lowest of the strong peaks."""
    size = 1 << 15
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    spectrum[: 180 * size // RATE] = 0
    inner = spectrum[1:-1]
    peaks = (inner > spectrum[:-2]) & (inner >= spectrum[2:]) & (inner > 0.25 * spectrum.max())
    return (np.flatnonzero(peaks)[0] + 1) * RATE / size


def notes_in(samples):
    """Returns (seconds, Hz) of the notes of one dry voice."""
    loud = envelope(samples) > 0.05
    begin = np.flatnonzero(loud[1:] & ~loud[:-1]) + 1
    end = [start + int(np.argmin(np.append(loud[start:], False))) for start in begin]
    spans = [(a, b) for a, b in zip(begin, end, strict=True) if b - a > 8]
    return [(a / 200, pitch_of(samples[80 * a + 160 : 80 * b - 80])) for a, b in spans]


def draw_clips(count, **inputs):
    """Yields facts and samples of clips that have some facts in common."""
    for number in range(count):
        rng = np.random.default_rng([5, number])
        facts = Facts(**{n: v[rng.integers(len(v))] for n, v in FACTS.items()})._replace(**inputs)
        yield facts, compose(facts, 4.0, rng)


@pytest.fixture(scope="module")
def melodies():
    """Clips of one dry voice: facts, samples, notes."""
    timbres = ("organ", "square")
    made = [clip for timbre in timbres for clip in draw_clips(40, timbre=timbre, **PLAIN)]
    return [(facts, samples, notes_in(samples)) for facts, samples in made]


def test_loud_is_louder_than_soft():
    result = {"loud": [], "soft": []}
    for dynamics, local in result.items():
        local += [level(samples) for _, samples in draw_clips(30, dynamics=dynamics)]
    assert min(result["loud"]) > 1.2 * max(result["soft"])
    assert np.median(result["loud"]) > 8 * np.median(result["soft"])


def test_swelling_clips_get_louder():
    result = {}
    for dynamics in FACTS["dynamics"]:
        clips = [samples for _, samples in draw_clips(40, dynamics=dynamics)]
        result[dynamics] = [level(x[-RATE:]) / level(x[:RATE]) for x in clips]
    steady = result["loud"] + result["soft"]
    assert np.mean(np.array(steady) < 2) > 0.95
    assert np.mean(np.array(result["swelling"]) > 2) > 0.9


def test_the_register_is_the_height_of_the_lowest_note(melodies):
    for facts, _, notes in melodies:
        lowest = min(pitch for _, pitch in notes)
        assert (lowest > 600) == (facts.register == "high"), facts


def test_the_contour_is_the_way_from_the_first_note_to_the_last(melodies):
    for facts, _, notes in melodies:
        pitches = [pitch for _, pitch in notes]
        first, last = pitches[0], pitches[-1]
        if max(pitches) > 1.25 * max(first, last):
            result = "arched"
        else:
            result = "rising" if last > first else "falling"
        assert result == facts.contour, (facts, pitches)


def beat_of(notes):
    """Returns the seconds between most notes; the longer of two in the middle."""
    steps = sorted(np.diff([start for start, _ in notes]))
    return steps[len(steps) // 2]


def test_the_tempo_is_the_time_between_notes(melodies):
    for facts, _, notes in melodies:
        beats = 60 / beat_of(notes)
        result = "slow" if beats < 92 else "medium" if beats < 132 else "fast"
        assert result == facts.tempo, (facts, beats)


def test_the_metre_is_the_strength_of_the_third_beat(melodies):
    for facts, samples, notes in melodies:
        start = round(200 * (notes[0][0] + 2 * beat_of(notes)))
        strength = envelope(samples)[start + 5 : start + 14].mean()
        assert (strength > 0.45) == (facts.metre == "four"), (facts, strength)


def test_the_mode_is_the_third_above_the_tonic(melodies):
    reported = 0
    for facts, _, notes in melodies:
        pitches = np.array([pitch for _, pitch in notes])
        tonic = pitches[0] if facts.contour != "falling" else pitches.min()
        steps = {round(step) % 12 for step in 12 * np.log2(pitches / tonic)}
        if {3, 4} & steps:
            reported += 1
            assert ("major" if 4 in steps else "minor") == facts.mode, (facts, steps)
    assert reported > 0.9 * len(melodies)


def test_every_melody_has_a_note_that_shows_its_mode():
    # The third, sixth and seventh are what major and minor differ in.
    facts = Facts("organ", "none", "slow", "four", "major", "arched", "low", "loud", "one", "dry")
    for number in range(300):
        rng = np.random.default_rng(number)
        for tempo, contour in itertools.product(FACTS["tempo"], FACTS["contour"]):
            melody = write_melody(facts._replace(tempo=tempo, contour=contour), 4.0, rng)
            degrees = {note.degree % 7 for note in melody}
            assert degrees & {2, 5, 6}, (number, tempo, contour, degrees)


def test_reverb_sounds_between_notes():
    result = {"dry": [], "room": []}
    inputs = PLAIN | {"timbre": "organ"}
    for room, local in result.items():
        clips = draw_clips(20, **inputs | {"room": room})
        local += [np.percentile(envelope(samples), 10) for _, samples in clips]
    assert max(result["dry"]) < 0.005 < 0.01 < min(result["room"])


def test_drums_sound_below_every_voice():
    result = {"drums": [], "none": []}
    for drums, local in result.items():
        for _, samples in draw_clips(20, drums=drums, room="dry"):
            power = np.abs(np.fft.rfft(samples.astype(float))) ** 2
            hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
            local.append(power[(hertz > 40) & (hertz < 110)].sum() / power.sum())
    assert max(result["none"]) < 1e-3 < 5e-3 < min(result["drums"])


# --- instruments -------------------------------------------------------------------------------


def play(name, hertz, count=RATE):
    return INSTRUMENTS[name](hertz, count, np.random.default_rng(1)).astype(float)


def mean_frequency(wave, near):
    """Returns the mean slope of the phase of what lies around a frequency, in Hz."""
    spectrum = np.fft.fft(wave * np.hanning(len(wave)))
    hertz = np.fft.fftfreq(len(wave), 1 / RATE)
    spectrum[(hertz < 0.7 * near) | (hertz > 1.4 * near)] = 0
    signal = np.fft.ifft(spectrum)
    inside = slice(len(wave) // 8, -len(wave) // 8)
    seconds, phase = np.arange(len(wave)) / RATE, np.unwrap(np.angle(signal))
    weights = np.abs(signal)[inside]
    return np.polyfit(seconds[inside], phase[inside], 1, w=weights)[0] / (2 * np.pi)


@pytest.mark.parametrize("name", sorted(set(INSTRUMENTS) - {NEW_TIMBRE}))
def test_an_instrument_is_in_tune(name):
    for hertz in (330.0, 440.0, 932.0, 1480.0):
        cents = 1200 * np.log2(mean_frequency(play(name, hertz), hertz) / hertz)
        assert abs(cents) < 10, (hertz, cents)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_a_note_stays_within_full_scale(name):
    for hertz, count in itertools.product((160.0, 330.0, 1000.0, 3000.0), (300, 4000, 12_000)):
        wave = play(name, hertz, count)
        assert wave.shape == (count,)
        assert 0.05 < np.abs(wave).max() <= 1


@pytest.mark.parametrize("name", ["organ", "square", "brass", "bass"])
@pytest.mark.parametrize("hertz", [1244.5, 1975.5, 2793.8])
def test_high_notes_have_no_aliasing(name, hertz):
    steady = play(name, hertz)[2000:14_000]
    power = np.abs(np.fft.rfft(steady * np.blackman(len(steady)))) ** 2
    result = np.fft.rfftfreq(len(steady), 1 / RATE)
    between = np.abs(result - np.round(result / hertz) * hertz) > 80
    beyond = result > instruments.HIGHEST + 100
    for part in (between, beyond):
        assert 10 * np.log10(power[part].sum() / power.sum()) < -40


def bands(wave):
    """Returns the levels in dB of octaves, in each quarter of a note."""
    result = []
    for part in np.array_split(wave, 4):
        power = np.abs(np.fft.rfft(part * np.hanning(len(part)), 8192)) ** 2
        octaves = np.add.reduceat(power, [10 * 2**k for k in range(9)])
        result.append(10 * np.log10(octaves / 1e4 + 1e-4))
    return np.concatenate(result)


def test_instruments_sound_different():
    result = {name: bands(play(name, 440.0, 8000)) for name in INSTRUMENTS}
    for one, other in itertools.combinations(result, 2):
        distance = np.sqrt(((result[one] - result[other]) ** 2).mean())
        assert distance > 1.5, (one, other, distance)


# --- the folder --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("synthetic"), SMALL)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_lists_are_read_as_those_of_musicskills(made):
    lists = [made / name for name in LISTS.values()]
    result = read_lists(lists, [made / "clips"])
    assert [clip.path.name for clip in result.clips] == [f"{n:06d}.wav" for n in range(6)]
    for number, clip in enumerate(result.clips):
        _, samples, asked = make_clip(SMALL, number)
        assert set(clip.questions) == {(q.prompt, q.answer, q.task) for q in asked}
        encoded, rate = soundfile.read(clip.path, dtype="int16")
        assert (rate, soundfile.info(clip.path).subtype) == (RATE, "PCM_16")
        np.testing.assert_array_equal(encoded, samples)
    for task, name in LISTS.items():
        assert {record["task"] for record in json.loads((made / name).read_text())} == {task}


def test_the_table_holds_the_facts_of_each_clip(made):
    with (made / "facts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("file_name") for row in rows] == [f"{n:06d}.wav" for n in range(SMALL.clips)]
    assert [Facts(**row) for row in rows] == [
        draw_clip_facts(SMALL, n)[0] for n in range(SMALL.clips)
    ]


def test_texts_name_all_facts_and_have_questions(made):
    lists = [made / name for name in TEXT_LISTS.values()]
    result = read_lists(lists, [made / "texts"] * len(lists))
    assert [clip.path.name for clip in result.clips] == [f"{n:06d}.txt" for n in range(SMALL.texts)]
    for number, clip in enumerate(result.clips):
        facts, text, asked = make_text(SMALL, number)
        assert clip.path.read_text() == text
        assert len(text.split(", ")) == len(facts)
        assert set(clip.questions) == {(q.prompt, q.answer, q.task) for q in asked}
        assert facts != make_clip(SMALL, number)[0]


def test_a_complete_folder_is_not_written_again(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("[!.]*")}
    assert synthesize(made, replace(SMALL, workers=2)) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("[!.]*")} == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"clips": 7}, {"held_out": True}, {"open": 5}])
def test_other_settings_are_rejected(made, changes):
    message = refusal(synthesize, made, replace(SMALL, **changes))
    assert message.startswith(f"{made}: holds clips of other settings; name another folder")


def test_a_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "thesis.tex").write_text("Dear")
    assert "holds other files; name a new or empty folder" in refusal(synthesize, tmp_path, SMALL)
    assert [name for name in contents(tmp_path) if name != ".lock"] == ["thesis.tex"]


class KilledError(Exception):
    pass


def kill_halfway(folder):
    """Leaves what a kill may leave: not all clips, one of them cut short, no lists."""

    def progress(done, total):
        if done == 4:
            raise KilledError

    with pytest.raises(KilledError):
        synthesize(folder, SMALL, progress)
    cut = folder / "clips" / "000003.wav"
    cut.write_bytes(cut.read_bytes()[:1000])


def test_an_interrupted_run_is_completed(made, tmp_path):
    kill_halfway(tmp_path)
    synthesize(tmp_path, SMALL)
    assert contents(tmp_path) == contents(made)
    for name in ("synthetic.json", "mcq.json", "texts/000001.txt", "clips/000004.wav"):
        (tmp_path / name).unlink()
    synthesize(tmp_path, SMALL)
    assert contents(tmp_path) == contents(made)


def test_a_run_interrupted_while_writing_a_list_is_completed(made, tmp_path):
    kill_halfway(tmp_path)
    (tmp_path / "qa.json.4711.partial").write_text("[")
    synthesize(tmp_path, SMALL)
    assert contents(tmp_path) == contents(made)


def test_other_settings_do_not_continue_an_interrupted_run(tmp_path):
    kill_halfway(tmp_path)
    message = refusal(synthesize, tmp_path, replace(SMALL, clips=2))
    assert message.startswith(f"{tmp_path}: holds clips of other settings; ")


def test_a_clip_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "clips" / "000000.wav").mkdir(parents=True)
    message = refusal(synthesize, tmp_path, SMALL)
    assert message.startswith(f"{tmp_path / 'clips' / '000000.wav'}: cannot be written (")


def test_processes_render_the_same_clips(tmp_path):
    config = SynthesisConfig(clips=200, seconds=1.0, **ONLY_OPEN, workers=2)
    reported = []
    synthesize(tmp_path, config, lambda done, total: reported.append((done, total)))
    assert reported == [(done, 200) for done in range(1, 201)]
    questions = Counter(r["file_name"] for r in json.loads((tmp_path / "qa.json").read_text()))
    assert questions == {f"{number:06d}.wav": 4 for number in range(200)}
    assert {p.name for p in tmp_path.iterdir()} == {
        ".lock",
        "clips",
        "qa.json",
        "facts.csv",
        "synthetic.json",
    }
    for number in (0, 31, 32, 150, 199):
        encoded, _ = soundfile.read(tmp_path / "clips" / f"{number:06d}.wav", dtype="int16")
        np.testing.assert_array_equal(encoded, make_clip(config, number)[1])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clips": 0}, "clips: give 1 or more"),
        ({"seconds": 0.5}, "seconds: give"),
        ({"seconds": float("nan")}, "seconds: give"),
        ({"seed": -1}, "no negative number"),
        ({"texts": -1}, "no negative number"),
        ({"workers": -1}, "no negative number"),
        ({"open": 11}, "there are 10 facts to ask for"),
        ({"binary": 11}, "there are 10 facts to ask for"),
        ({"captions": 0, "open": 0, "choice": 0, "binary": 0}, "ask something"),
        ({"choice": -1}, "ask something"),
        ({"extra": ("flute",)}, "timbres beside the usual ones, each once"),
        ({"extra": (NEW_TIMBRE, NEW_TIMBRE)}, "timbres beside the usual ones, each once"),
        ({"timbre": "kazoo"}, "timbre 'kazoo', extra (): use some of pluck, organ, "),
    ],
)
def test_invalid_settings_are_rejected_before_anything_is_written(tmp_path, changes, named):
    folder = tmp_path / "new"
    assert named in refusal(synthesize, folder, replace(SMALL, **changes))
    assert not folder.exists()
