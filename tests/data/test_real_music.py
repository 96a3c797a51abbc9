"""Music from recorded notes and soundfonts: what is played is what the labels say."""

import csv
import ctypes.util
import io
import re
import struct
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile
from helpers import refusal

from tinymu_jax.data.config import RenderConfig
from tinymu_jax.data.real_music import captions, effects, generate
from tinymu_jax.data.real_music import clips as clips_module
from tinymu_jax.data.real_music.clips import ATTRIBUTES, LABELS, draw_clip, draw_music
from tinymu_jax.data.real_music.instruments import DRUMS, FAMILIES, INSTRUMENTS
from tinymu_jax.data.real_music.material import (
    Recording,
    drum_of,
    inspect,
    is_permissive,
    is_validation,
    read_index,
    read_material,
)
from tinymu_jax.data.real_music.render import Renderer, Soundfont, play_hits, play_notes
from tinymu_jax.data.real_music.score import BEATS, SCALES, TEMPOS, Event, Hit, Part, compose
from tinymu_jax.qa_builder.tags.vocabulary import read_vocabulary

RATE = 16_000
fluidsynth = [
    pytest.mark.fluidsynth,
    pytest.mark.skipif(
        not ctypes.util.find_library("fluidsynth"), reason="FluidSynth is not installed"
    ),
]


def tone(pitch, seconds=1.0, partials=4):
    """Returns a decaying note, float32."""
    at = np.arange(int(seconds * RATE)) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    waves = [np.sin(2 * np.pi * n * frequency * at) / n for n in range(1, partials + 1)]
    return (0.4 * sum(waves) * np.exp(-2 * at)).astype(np.float32)


def pyin_pitch(samples):
    """Returns the MIDI note that librosa's pYIN finds most of the time."""
    frequencies, voiced, _ = librosa.pyin(samples, fmin=40, fmax=2000, sr=RATE)
    return float(np.median(librosa.hz_to_midi(frequencies[voiced])))


# --- instruments -------------------------------------------------------------------------------


def test_twenty_instruments_of_eight_families():
    assert (len(INSTRUMENTS), len(FAMILIES)) == (20, 8)
    programs = [p for instrument in INSTRUMENTS.values() for p in instrument.programs]
    assert len(programs) == len(set(programs))
    assert len(LABELS) == len(set(LABELS))


# --- scores ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores():
    """Scores of one, and of four, random instruments."""
    names = list(INSTRUMENTS)
    drawn = []
    for number in range(300):
        rng = np.random.default_rng(number)
        count = 1 if number % 2 else 4
        parts = [names[int(i)] for i in rng.permutation(len(names))[:count]]
        drawn.append(compose(rng, parts, number % 4 == 0, 10.0))
    return drawn


def test_notes_are_in_the_range_of_their_instruments(scores):
    for score in scores:
        for part in score.parts:
            instrument = INSTRUMENTS[part.instrument]
            assert part.events
            for event in part.events:
                assert instrument.low <= event.pitch <= instrument.high, part.instrument
                assert 0 <= event.start < 10.0
                assert event.seconds > 0
                assert 0 < event.velocity <= 1


def test_all_notes_are_in_one_key_of_the_mode(scores):
    for score in scores:
        classes = {event.pitch % 12 for part in score.parts for event in part.events}
        scale = SCALES[score.mode]
        assert any({(p - tonic) % 12 for p in classes} <= set(scale) for tonic in range(12))


def test_drums_tell_tempo_and_metre(scores):
    for score in scores:
        if not score.hits:
            continue
        beats = sorted({hit.start for hit in score.hits if hit.drum == "hat"})
        step = float(np.median(np.diff(beats)))
        bpms = (60 / step, 30 / step)  # hats sound on beats, or twice a beat
        low, high = TEMPOS[score.tempo]
        assert any(low - 0.1 <= bpm <= high + 0.1 for bpm in bpms)
        snares = sorted(hit.start for hit in score.hits if hit.drum == "snare")
        beat = next(60 / bpm for bpm in bpms if low - 0.1 <= bpm <= high + 0.1)
        gaps = {round(float(gap) / beat) for gap in np.diff(snares)}
        assert gaps == ({2} if BEATS[score.metre] == 4 else {1, 2}), score.metre


def test_dynamics_are_in_the_velocities(scores):
    for score in scores:
        events = [event for part in score.parts for event in part.events]
        first = np.mean([e.velocity for e in events if e.start < 3.5])
        last = np.mean([e.velocity for e in events if e.start > 6.5])
        if score.dynamics == "steady":
            assert 0.8 < last / first < 1.25
        else:
            assert (last / first > 1.5) == (score.dynamics == "swelling")


def test_the_register_is_that_of_a_lone_line(scores):
    seen = Counter(score.register for score in scores)
    assert min(seen[name] for name in ATTRIBUTES["register"]) > 3
    for score in scores:
        if score.register is None:
            continue
        (part,) = score.parts
        starts = [event.start for event in part.events]
        assert len(set(starts)) == len(starts)  # no chords
        median = np.median([event.pitch for event in part.events])
        assert (median < 55, median > 71) == (score.register == "low", score.register == "high")


def test_melodies_move_by_small_steps_through_their_range(scores):
    steps, reach = [], []
    for score in scores:
        for part in score.parts[:1]:
            pitches = [event.pitch for event in part.events]
            if part.lone_line and INSTRUMENTS[part.instrument].family != "bass":
                steps += np.abs(np.diff(pitches)).tolist()
                reach.append(max(pitches) - min(pitches))
    assert np.mean(np.array(steps) >= 9) < 0.05
    assert np.median(reach) > 9


def test_what_nothing_marks_is_unknown(scores):
    for score in scores:
        unknown = clips_module._unknown(score)
        classes = {event.pitch % 12 for part in score.parts for event in part.events}
        assert (set(SCALES) <= unknown) == (len(classes) < 5)
        lone = score.parts[0].lone_line and not score.hits
        assert (set(BEATS) <= unknown) == lone


# --- material ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("CC0-1.0", True),
        ("CC-BY-4.0", True),
        ("public domain (README)", True),
        ("BSD-2-Clause (someone)", True),
        ("berklee: CC-BY-3.0 (OLPC)", True),
        ("CC-BY-SA-3.0", False),
        ("CC-BY-NC-4.0", False),
        ("CC0 (some); others: CC Sampling Plus 1.0", False),
        ("GPL-2", False),
        ("CC BY 4.0", True),
        ("Creative Commons Attribution 4.0", True),
        ("Apache-2.0", True),
        ("Limited licence, no redistribution permitted", False),
        ("All rights reserved (Discogs)", False),
        ("CC-BY-ShareAlike 3.0", False),
        ("CC-BY-NoDerivatives 4.0", False),
        ("CC-BY-NC4.0", False),
        ("CC BY NC 4.0", False),
        ("Free for non commercial use (public domain recordings)", False),
        ("not public domain", False),
        ("", False),
    ],
)
def test_only_permissive_licences_are_used(licence, permissive):
    assert is_permissive(licence) == permissive


@pytest.fixture(scope="module")
def material_folder(tmp_path_factory):
    """A folder of recorded notes, drums, tracks and sounds with its index, all made here."""
    folder = tmp_path_factory.mktemp("material")
    rows = []
    rng = np.random.default_rng(0)

    def add(name, samples, instrument="", source="makers/tones@1", licence="CC0-1.0", file=""):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, RATE)
        row = {"file": name, "instrument": instrument, "source": source}
        rows.append(row | {"source_file": file or path.name, "licence": licence})

    for pitch in range(40, 88, 4):
        note = librosa.midi_to_note(pitch, unicode=False)
        add(f"oneshots/piano{pitch}.flac", tone(pitch), "piano", file=f"{note}.flac")
    add("oneshots/wrong.flac", tone(60), "piano", file="F4.flac")
    add("oneshots/noise.flac", rng.standard_normal(RATE).astype("f4") * 0.1, "piano", file="x.wav")
    add("oneshots/broken.flac", tone(60), "piano")
    (folder / "oneshots/broken.flac").write_bytes(b"fLaC, or not")
    add("oneshots/restricted.flac", tone(61), "piano", licence="CC-BY-NC-4.0")
    for drum, (label, *_) in DRUMS.items():
        hit = rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / 400)
        add(f"oneshots/{drum}.flac", hit.astype("f4") * 0.2, label, "makers/drums@2")
    for number in range(12):
        add(f"tracks/{number}.flac", tone(50 + number, 4.0), "piano" if number % 2 else "")
        add(f"not_music/{number}.flac", rng.standard_normal(RATE).astype("f4") * 0.1)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / "index.csv").write_text(text.getvalue())
    return folder


@pytest.fixture(scope="module")
def pitches(material_folder):
    results = {one.file: inspect(one) for one in read_index(material_folder)}
    return {file: pitch for file, (readable, pitch) in results.items() if readable}


def test_pitches_are_those_of_the_notes(pitches):
    for pitch in range(40, 88, 4):
        assert abs(pitches[f"oneshots/piano{pitch}.flac"] - pitch) < 0.15
    assert pitches["oneshots/wrong.flac"] is None  # is a C, and called an F
    assert pitches["oneshots/noise.flac"] is None
    assert "oneshots/restricted.flac" not in pitches
    assert "oneshots/broken.flac" not in pitches


def test_notes_and_drums_are_sorted_by_instrument_and_source(material_folder, pitches):
    parts = [read_material(material_folder, pitches, split) for split in (False, True)]
    notes = {source for part in parts for of in part.notes.values() for source in of}
    assert notes == {"makers/tones"}
    (kit,) = [kit for part in parts for kit in part.drums.values()]
    assert set(kit) == set(DRUMS)
    assert sum(len(part.tracks) for part in parts) == 12


def test_a_source_is_in_one_split(material_folder):
    splits = {}
    for recording in read_index(material_folder):
        if recording.kind == "oneshots":
            splits.setdefault(recording.source, set()).add(is_validation(recording))
    assert all(len(of) == 1 for of in splits.values())


@pytest.mark.parametrize(
    ("instrument", "file", "drum"),
    [
        ("kick drum", "x.wav", "kick"),
        ("drum machine", "bd2500.ogg", "kick"),
        ("drum machine", "SD_03.ogg", "snare"),
        ("drum kit", "hh_vl2_rr1.wav", "hat"),
        ("drum machine", "cowbell.ogg", None),
        ("piano", "bd.wav", None),
    ],
)
def test_drums_are_known_by_label_or_file_name(tmp_path, instrument, file, drum):
    assert drum_of(Recording("oneshots/a.ogg", tmp_path / "a.ogg", instrument, "s", file)) == drum


def test_a_folder_without_an_index_is_named(tmp_path):
    assert f"{tmp_path}" in refusal(read_index, tmp_path)


# --- rendering ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(material_folder, pitches):
    split = not read_material(material_folder, pitches, False).notes
    return read_material(material_folder, pitches, split)


@pytest.mark.parametrize("pitch", [43, 54, 66, 75, 87])
def test_a_recorded_instrument_plays_the_note(material, pitch):
    notes = material.notes["piano"]["makers/tones"]
    part = Part("piano", [Event(0.5, 0.6, pitch, 0.9)])
    samples = play_notes(notes, part, 2 * RATE, np.random.default_rng(0))
    assert np.abs(samples[: int(0.49 * RATE)]).max() == 0
    assert np.abs(samples[int(1.4 * RATE) :]).max() == 0
    assert abs(pyin_pitch(samples[RATE // 2 : RATE]) - pitch) < 0.2


def test_a_source_plays_what_is_in_its_range(material):
    renderer = Renderer(material, ())
    for pitches, sources in (([40, 88], ["makers/tones"]), ([30, 60], []), ([60, 92], [])):
        part = Part("piano", [Event(0.0, 0.8, pitch, 0.9) for pitch in pitches])
        assert renderer.sources(part) == sources


def test_hits_are_where_the_score_has_them(material_folder):
    path = material_folder / "oneshots" / "kick.flac"
    hits = [Hit("kick", 0.25, 1.0), Hit("kick", 0.75, 0.5), Hit("toms", 0.1, 1.0)]
    samples = play_hits({"kick": path}, hits, RATE)
    expected = np.zeros(RATE, np.float32)
    wave = soundfile.read(path, dtype="float32")[0]
    for start, gain in ((4000, 1.0), (12000, 0.5)):
        expected[start : start + len(wave)] += gain * wave
    np.testing.assert_allclose(samples, expected, atol=1e-4)


def write_soundfont(path):
    """Writes a soundfont whose presets, and drums, all play a sine: MIDI note 69 is 440 Hz.

    After the SoundFont 2.01 specification, section 4: chunks of RIFF, and records of fixed sizes.
    """
    rate, cycles = 44_100, 100
    count = round(rate * cycles / 440)
    sine = np.sin(2 * np.pi * cycles * np.arange(count) / count)
    data = (20_000 * np.tile(sine, 2)).astype("<i2").tobytes() + bytes(92)

    def chunk(name, body):
        return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    def name(text):
        return text.encode().ljust(20, b"\0")

    presets = [*((0, program) for program in range(128)), (128, 0)]
    generators = [(54, 1), (58, 69), (53, 0)]  # sampleModes: loop; root key; sampleID
    records = {
        b"phdr": b"".join(
            name(f"{bank} {preset}") + struct.pack("<HHHIII", preset, bank, number, 0, 0, 0)
            for number, (bank, preset) in enumerate(presets)
        ) + name("EOP") + struct.pack("<HHHIII", 0, 0, len(presets), 0, 0, 0),
        b"pbag": b"".join(struct.pack("<HH", n, 0) for n in range(len(presets) + 1)),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HH", 41, 0) * len(presets) + bytes(4),
        b"inst": name("sine") + struct.pack("<H", 0) + name("EOI") + struct.pack("<H", 1),
        b"ibag": struct.pack("<HH", 0, 0) + struct.pack("<HH", len(generators), 0),
        b"imod": bytes(10),
        b"igen": b"".join(struct.pack("<HH", *g) for g in generators) + bytes(4),
        b"shdr": name("sine") + struct.pack("<IIIIIBbHH", 0, 2 * count, 0, count, rate, 69, 0, 0, 1)
        + name("EOS") + bytes(26),
    }  # fmt: skip
    info = chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"INAM", b"sine\0\0")
    lists = [
        chunk(b"LIST", b"INFO" + info),
        chunk(b"LIST", b"sdta" + chunk(b"smpl", data)),
        chunk(b"LIST", b"pdta" + b"".join(chunk(k, v) for k, v in records.items())),
    ]
    path.write_bytes(chunk(b"RIFF", b"sfbk" + b"".join(lists)))
    return path


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory):
    return write_soundfont(tmp_path_factory.mktemp("soundfont") / "sine.sf2")


class TestSoundfont:
    pytestmark = fluidsynth

    @pytest.mark.parametrize("pitch", [48, 69, 81])
    def test_it_plays_the_note_when_the_score_says(self, soundfont, pitch):
        samples = Soundfont(soundfont).play([Event(0.5, 0.8, pitch, 0.9)], 0, 2 * RATE)
        assert len(samples) == 2 * RATE
        assert np.abs(samples[: int(0.49 * RATE)]).max() < 1e-4
        middle = samples[int(0.6 * RATE) : int(1.2 * RATE)]
        assert np.abs(middle).max() > 0.01
        assert abs(pyin_pitch(middle) - pitch) < 0.1

    def test_a_clip_does_not_depend_on_the_clips_before(self, soundfont):
        renderer = Renderer(None, [soundfont])
        first = [draw_music(renderer, np.random.default_rng(n), 3.0, 2).samples for n in (1, 2)]
        again = [draw_music(renderer, np.random.default_rng(n), 3.0, 2).samples for n in (2, 1)]
        np.testing.assert_array_equal(first[0], again[1])
        np.testing.assert_array_equal(first[1], again[0])

    def test_a_note_is_not_ended_by_the_end_of_an_earlier_one(self, soundfont):
        events = [Event(0.0, 0.6, 69, 0.9), Event(0.5, 1.0, 69, 0.9)]
        samples = Soundfont(soundfont).play(events, 0, 2 * RATE)
        assert np.abs(samples[int(1.2 * RATE) : int(1.4 * RATE)]).max() > 0.01

    def test_a_wrong_path_leaves_no_folder_behind(self, soundfont, material_folder, tmp_path):
        good = RenderConfig(str(material_folder), (str(soundfont),), clips=2, seconds=2.0)
        for wrong in (
            replace(good, material=str(tmp_path / "none")),
            replace(good, soundfonts=("none.sf2",)),
        ):
            refusal(generate.render_clips, tmp_path / "out", wrong)
            assert not (tmp_path / "out").exists()

    def test_a_folder_with_notes_alone_renders(self, soundfont, material):
        bare = material._replace(tracks=[], not_music=[])
        renderer = Renderer(bare, [soundfont])
        kinds = {draw_clip(renderer, bare, np.random.default_rng(n), 2.0).kind for n in range(40)}
        assert "track" not in kinds

    def test_a_file_that_is_no_soundfont_is_named(self, tmp_path):
        path = tmp_path / "x.sf2"
        assert f"{path}: is no soundfont" in refusal(Soundfont, path)
        path.write_bytes(b"nothing")
        assert f"{path}: is no soundfont" in refusal(Soundfont, path)

    def test_a_killed_run_goes_on_and_gives_the_same_clips(
        self, soundfont, material_folder, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(generate, "PART_CLIPS", 4)
        config = RenderConfig(
            str(material_folder), (str(soundfont),), clips=10, texts=3, seconds=2.0, workers=1
        )
        config = replace(config, validation=not has_notes(material_folder))
        whole = generate.render_clips(tmp_path / "whole", config)
        calls = []

        def stop(done, total):
            calls.append(done)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            generate.render_clips(tmp_path / "cut", config, stop)
        assert not (tmp_path / "cut" / generate.LABELS_FILE).exists()
        cut = generate.render_clips(tmp_path / "cut", config)
        for name in (generate.LABELS_FILE, *(f"clips/{n:06d}.flac" for n in range(10))):
            assert (whole / name).read_bytes() == (cut / name).read_bytes()
        rows = list(csv.DictReader((whole / generate.LABELS_FILE).open()))
        assert [row["file"] for row in rows] == [f"{n:06d}.flac" for n in range(10)]
        assert soundfile.info(whole / "clips" / "000003.flac").frames == 2 * RATE
        other = replace(config, seed=1)
        assert "other settings" in refusal(generate.render_clips, whole, other)


def has_notes(folder):
    return any(
        not is_validation(one) and one.instrument == "piano"
        for one in read_index(folder)
        if one.kind == "oneshots"
    )


def test_a_soundfont_must_be_named(tmp_path):
    assert "soundfonts" in refusal(generate.render_clips, tmp_path / "x", RenderConfig())


# --- effects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_effects_keep_length_level_and_pitch(seed):
    before = np.tile(tone(64, 0.5), 8)
    after = effects.add_effects(before, np.random.default_rng(seed))
    assert after.dtype == np.float32
    assert len(after) == len(before)
    assert np.isfinite(after).all()
    assert np.abs(after).max() <= 1.2
    assert abs(pyin_pitch(after) - 64) < 0.5


@pytest.mark.parametrize("number", [0.0, 0.49, 0.51, 1 - 2**-53])
def test_a_codec_takes_every_quality(number):
    rng = SimpleNamespace(random=lambda: number)
    before = tone(64)
    after = effects.recode(before, rng)
    assert len(after) == len(before)
    assert abs(pyin_pitch(after) - 64) < 0.2


def test_a_room_rings_on():
    dry = np.zeros(RATE, np.float32)
    dry[:100] = 0.5
    wet = effects.add_room(dry, np.random.default_rng(0))
    assert np.abs(wet[200:]).max() > 1e-3


# --- labels ------------------------------------------------------------------------------------


class Silent:
    """A renderer that renders nothing, to draw many clips quickly."""

    def render(self, score, seconds, rng):
        return np.full(round(seconds * RATE), 0.1, np.float32)


@pytest.fixture(scope="module")
def drawn(material):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "add_effects", lambda samples, rng: samples)
        return [draw_clip(Silent(), material, np.random.default_rng(n), 3.0) for n in range(1500)]


def test_kinds_have_their_shares(drawn):
    counts = Counter(clip.kind for clip in drawn)
    for kind, share in clips_module.KINDS.items():
        deviation = (len(drawn) * share * (1 - share)) ** 0.5
        assert abs(counts[kind] - len(drawn) * share) < 5 * deviation, kind


def test_labels_fit_together(drawn):
    for clip in drawn:
        assert len(clip.samples) == 3 * RATE
        assert clip.present | clip.unknown <= set(LABELS)
        assert not clip.present & clip.unknown
        assert ("music" in clip.present) == (clip.kind != "sound")
        instruments = clip.present & set(INSTRUMENTS)
        families = {INSTRUMENTS[name].family for name in instruments}
        if clip.kind in ("solo", "ensemble", "drums"):
            assert clip.present & set(FAMILIES) - {"voice", "bass"} == families - {"voice", "bass"}
            for name, values in ATTRIBUTES.items():
                known = set(values) - clip.unknown
                assert len(known & clip.present) == (1 if known else 0), name
        if "solo" in clip.present:
            assert len(instruments) == 1
            assert "drums" not in clip.present
        if clip.kind == "sound":
            assert not clip.present | clip.unknown


def test_a_track_says_only_what_its_index_says(drawn):
    tracks = [clip for clip in drawn if clip.kind == "track"]
    assert {frozenset(clip.present) for clip in tracks} == {
        frozenset({"music"}),
        frozenset({"music", "piano", "keyboard"}),
    }
    assert all(clip.present | clip.unknown == set(LABELS) for clip in tracks)


# --- tables and texts --------------------------------------------------------------------------


def test_tags_are_those_of_the_builders_vocabulary():
    vocabulary = read_vocabulary()
    tags = captions.tags_of(set(LABELS))
    for column in ("instrument", "tempo", "voice"):
        for name in tags[column]:
            assert vocabulary.meaning(name, column) is not None, name
    for name in captions.tags_of(set())["not"]:
        assert vocabulary.meaning(name) is not None, name
    assert set(tags["instrument"]) == {*INSTRUMENTS, "drums"} - {"voice"}
    assert captions.tags_of({"piano", "music", "solo"}) == {
        "instrument": ["piano"],
        "tempo": [],
        "voice": [],
        "not": ["drums", "vocals"],
        "exhaustive": ["instrument", "voice"],
    }


def test_texts_name_what_their_table_names(tmp_path):
    config = RenderConfig(None, ("x.sf2",), texts=40)
    generate._write_texts(tmp_path, config)
    rows = list(csv.DictReader((tmp_path / generate.TEXTS_FILE).open()))
    assert len(rows) == 40
    for row in rows:
        words = set((tmp_path / "texts" / row["file"]).read_text().split(", "))
        cells = [name for c in ("instrument", "tempo", "voice") for name in row[c].split(";")]
        absent = [f"no {name}" for name in row["not"].split(";")]
        assert words == {*cells, *absent} - {"", "no "}
    (tmp_path / "again").mkdir()
    generate._write_texts(tmp_path / "again", config)
    first, again = (folder / generate.TEXTS_FILE for folder in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_a_caption_says_what_the_labels_say():
    names = {name: "choir" if name == "voice" else name for name in INSTRUMENTS}
    for number in range(300):
        rng = np.random.default_rng(number)
        labels = clips_module.draw_labels(rng, 10.0)
        caption = captions.write_caption(labels, rng)
        assert caption[0] == "A"
        assert caption.endswith(".")
        said = caption.replace("electric piano", "epiano")
        for name, noun in names.items():
            noun = "epiano" if name == "electric piano" else noun
            assert (name in labels) == bool(re.search(rf"\b{noun}\b", said)), caption
        tempos = [name for name in TEMPOS if name in caption]
        assert set(tempos) <= labels
        others = {"major", "minor", "low", "high", "middle"}
        assert {name for name in others if re.search(rf"\b{name}\b", caption)} <= labels
        if "drums" in labels:
            assert re.search(r"with drums|drum pattern", caption)
