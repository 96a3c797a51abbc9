"""Pre-training crops of recordings from a data set or a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import refusal
from tokenizer_fixture import tokenizer_text

from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.crops import CropBatches, open_corpus, stored_corpus
from tinymu_jax.data.prepare import prepare

FRAMES = 48
SECONDS = [0.6, 0.2, 0.9, 0.5, 0.7, 1.2]
RATE = 22_050
# Frames of a recording: 1 + (16,000 seconds - 400) // 160.
LONG = [0, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stereo recordings of noise; one of them too short for a crop, one that is none."""
    place = tmp_path_factory.mktemp("recordings")
    (place / "below").mkdir()
    rng = np.random.default_rng(0)
    for number, seconds in enumerate(SECONDS):
        name = f"below/{number}.flac" if number % 2 else f"{number}.wav"
        soundfile.write(place / name, rng.normal(0, 0.1, (int(seconds * RATE), 2)), RATE)
    (place / "9.wav").write_bytes(b"RIFF, but no more")
    (place / "notes.txt").write_text("not heard")
    return place


@pytest.fixture(scope="module")
def stored(folder, tmp_path_factory):
    """The same as a prepared data set."""
    names = [f"below/{n}.flac" if n % 2 else f"{n}.wav" for n in range(len(SECONDS))]
    fields = {"input_text": "?", "target_text": "Noise.", "dataset": "Made", "task": "QA"}
    place = tmp_path_factory.mktemp("list")
    (place / "list.json").write_text(json.dumps([{"file_name": n, **fields} for n in names]))
    features = FeatureConfig("log_mel", "mean", "kaiser-best", 30.0)
    config = PrepareConfig(features, workers=1)
    prepare([place / "list.json"], [folder], place / "data", tokenizer_text(), config)
    return place / "data"


def batches_of(corpus, clips=2, blocks=2, part=(0, 1), epochs=3, steps=0, seed=4):
    return CropBatches(corpus, FRAMES, clips, blocks, part, epochs, steps, seed)


def test_short_and_unusable_recordings_are_skipped_and_counted(folder, stored):
    result = open_corpus(folder, FRAMES, 16)
    assert (len(result), result.num_short, len(result.bad)) == (5, 1, 1)
    assert sorted(result.name(i) for i in range(5)) == sorted(
        f"below/{n}.flac" if n % 2 else f"{n}.wav" for n in LONG
    )
    same = open_corpus(stored, FRAMES, 16)
    assert (len(same), same.num_short, len(same.bad)) == (5, 1, 0)


def test_lengths_are_those_of_the_samples(tmp_path, capfd):
    samples = np.random.default_rng(0).normal(0, 0.1, (RATE, 2))
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21:26] = content[21] & 0xF0, 0, 0, 0, 0  # the length, as from a program with a pipe
    (tmp_path / "a.flac").write_bytes(content)
    soundfile.write(tmp_path / "b.ogg", samples, RATE)
    (tmp_path / "b.ogg").write_bytes(2 * (tmp_path / "b.ogg").read_bytes())
    soundfile.write(tmp_path / "c.wav", samples, RATE)
    (tmp_path / "c.wav").write_bytes((tmp_path / "c.wav").read_bytes()[: 3 * RATE])
    corpus = open_corpus(tmp_path, FRAMES, 16, keep_damaged=True)
    assert [len(corpus.log_mel(i)) for i in range(len(corpus))] == [98, 198, 73]
    for _ in range(2):
        corpus.log_mel(2)
    message = f"note: {tmp_path}/c.wav: damaged after 0.7 s of 1.0 s; what can be read is used\n"
    assert capfd.readouterr() == ("", message)
    strict = open_corpus(tmp_path, FRAMES, 16)
    assert len(strict) == 2
    (entry,) = strict.bad
    assert "c.wav: damaged after 0.7 s of 1.0 s" in str(entry)


def test_recordings_are_long_enough_to_the_frame(stored):
    frames = sorted(1 + (int(np.ceil(int(s * RATE) * 16000 / RATE)) - 400) // 160 for s in SECONDS)
    for size in (*frames, *(n + 1 for n in frames)):
        assert len(stored_corpus(stored, size, 16)) == sum(n >= size for n in frames)


def test_a_folder_and_a_data_set_give_the_same_log_mels(folder, stored):
    result, same = open_corpus(folder, FRAMES, 16), open_corpus(stored, FRAMES, 16)
    by_name = {Path(same.name(i)).name: same.log_mel(i) for i in range(len(same))}
    for i in range(len(result)):
        np.testing.assert_array_equal(result.log_mel(i), by_name[Path(result.name(i)).name])
    # The mean of both channels, and not the first.
    expected = read_clip(folder / "0.wav", None, mono="mean")
    number = [result.name(i) for i in range(5)].index("0.wav")
    encoded = np.asarray(log_mel(expected.samples))
    assert np.abs(result.log_mel(number) - encoded)[:, :70].mean() < 0.05


def test_every_recording_is_used_once_per_epoch_and_steps_are_reproducible(stored):
    corpus = open_corpus(stored, FRAMES, 16)
    batches = batches_of(corpus, clips=1, blocks=5, part=range(5), epochs=4)
    assert len(batches) == 4
    steps = [batches[step] for step in range(4)]
    for step, batch in enumerate(steps):
        assert batch.log_mel.shape == (5, 1, FRAMES, 80)
        assert len(set(batches.names(step))) == 5
        assert batch.number.tolist() == list(range(5 * step, 5 * step + 5))
    assert batches.names(0) != batches.names(1)
    np.testing.assert_array_equal(
        batches_of(corpus, 1, 5, [3], 4)[2].log_mel[0], steps[2].log_mel[3]
    )


def test_crops_start_anywhere_in_their_recordings(stored):
    corpus = open_corpus(stored, FRAMES, 16)
    whole = {corpus.name(i): corpus.log_mel(i) for i in range(len(corpus))}
    starts = set()
    batches = batches_of(corpus, clips=5, blocks=1, part=[0], epochs=0, steps=12)
    for step in range(12):
        for name, crop in zip(batches.names(step), batches[step].log_mel[0], strict=True):
            result = [
                start
                for start in range(len(whole[name]) - FRAMES + 1)
                if np.array_equal(whole[name][start : start + FRAMES], crop)
            ]
            assert len(result) == 1
            starts |= {(name, result[0])}
    longest = max(whole, key=lambda name: len(whole[name]))
    assert len({start for name, start in starts if name == longest}) > 6


def test_unusable_recordings_are_replaced_and_reported_once(folder, tmp_path, capsys):
    import shutil

    place = shutil.copytree(folder, tmp_path / "copy")
    cut = place / "0.wav"
    whole = cut.read_bytes()
    corpus = open_corpus(place, FRAMES, 16)
    expected = {name: i for i, name in enumerate(corpus.name(i) for i in range(5))}
    # The header says what is no longer there.
    cut.write_bytes(whole[: len(whole) // 3])
    batches = batches_of(corpus, clips=5, blocks=1, part=[0], epochs=3)
    for step in range(3):
        assert batches[step].log_mel.shape == (1, 5, FRAMES, 80)
    said = capsys.readouterr().err
    assert said.count("0.wav") == 1
    assert "another recording is used in its place" in said
    first, place_of = batches[0].log_mel[0], batches.names(0).index("0.wav")
    encoded = corpus.log_mel((expected["0.wav"] + 1) % 5)
    starts = range(len(encoded) - FRAMES + 1)
    assert any(np.array_equal(encoded[s : s + FRAMES], first[place_of]) for s in starts)


def test_a_corpus_without_usable_recordings_is_rejected(folder, stored, tmp_path):
    assert "has no recordings (.wav" in refusal(open_corpus, tmp_path, FRAMES, 16)
    message = refusal(open_corpus, stored, 608, 16)
    assert "none of its 6 recordings has the 608 frames (6.08 s) of a crop" in message
    (tmp_path / "x.wav").write_bytes(b"no sound")
    message = refusal(open_corpus, tmp_path, FRAMES, 16)
    assert "(1 cannot be used, the first: " in message
    assert "x.wav: is text, not a recording" in message
    corpus = open_corpus(folder, FRAMES, 16)
    message = refusal(batches_of, corpus, clips=4, blocks=2)
    assert "has 5 clips that can be used, and a step takes 8" in message
