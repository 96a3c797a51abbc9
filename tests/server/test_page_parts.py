"""What the page is made of: the picture of a track, and its parts as HTML."""

import contextlib

import numpy as np
import pytest
import soundfile
from helpers import refusal

import tinymu_jax
from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import make_clip
from tinymu_jax.inference.whole_recording import WholeAnswer, WindowAnswer
from tinymu_jax.server import page_html as html
from tinymu_jax.server.page_handlers import describe_with
from tinymu_jax.server.track import MAX_COLUMNS, read_track

LOCK = contextlib.nullcontext()


def test_a_clip_of_one_window_has_its_own_log_mel(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    track, columns = read_track(str(tmp_path / "a.wav"), 4.0, LOCK)
    assert (track.name, track.seconds, track.silent) == ("a.wav", 2.0, False)
    np.testing.assert_allclose(columns, np.asarray(log_mel(samples)), atol=1e-4)


def test_columns_of_a_long_recording_lie_where_its_sound_does(tmp_path):
    # 61 s: a click every 5 s, and silence at the start; the last window is moved back.
    samples = np.zeros(61 * 16_000, np.float32)
    clicks = np.arange(10, 61, 5)
    for second in clicks:
        samples[second * 16_000 : second * 16_000 + 1_600] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    track, columns = read_track(str(tmp_path / "a.wav"), 4.0, LOCK)
    assert track.silent_start
    assert not track.silent
    assert MAX_COLUMNS / 2 < len(columns) <= MAX_COLUMNS
    loud = columns.mean(axis=1) > columns.mean() + 1
    starts = np.flatnonzero(loud[1:] & ~loud[:-1]) / len(columns) * track.seconds
    starts = starts[np.diff(starts, prepend=-9) > 1]
    np.testing.assert_allclose(starts, clicks, atol=0.15)


def test_texts_are_escaped():
    text = '<script>"&'
    safe = "&lt;script&gt;&quot;&amp;"
    window = WindowAnswer(0.0, 4.0, text)
    whole = WholeAnswer(text, 0.0, (window,), 4.0)
    for part in (
        html.notice(text),
        html.answers([html.Answer(text, text)]),
        html.bars({text: 1.0}),
        html.strip([window], 4.0),
        html.window_list(whole),
        html.track_picture(text, 4.0, 4.0, b""),
        html.title(text, 4.0),
    ):
        assert text not in part
        assert safe in part


def test_equal_answers_have_equal_colours_and_silence_has_none():
    answers = ["a", "b", None, "a", *map(str, range(9))]
    windows = [WindowAnswer(n, n + 1.0, answer) for n, answer in enumerate(answers)]
    blocks = html.strip(windows, len(windows)).split("<button")[1:]
    colours = [block.split('"')[3].removeprefix("block ") for block in blocks]
    assert colours[:4] == ["c0", "c1", "silence", "c0"]
    assert colours[4:] == ["c2", "c3", "c4", "c5", "c6", "c7", "c8", "c8", "c8"]
    assert "(silence)" in blocks[2]


def test_times_are_written_as_a_clock():
    assert html.clock(187.9) == "3:07"
    assert html.clock(3787) == "1:03:07"
    assert html.clock(2.25, 4.0) == "2.2 s"


class Unknown:
    """Says nothing of tempo and key; the real estimator compiles for long."""

    def add(self, samples, start):
        pass

    def tempo(self):
        return None

    key = tempo


def test_fields_are_those_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tinymu_jax.library.description.TempoKeyEstimator", Unknown)
    samples = make_clip(SynthesisConfig(seconds=4, seed=1), 0)[1]
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    (tmp_path / "f.yaml").write_text("plays:\n  prompt: What plays?\n  options: [bell, flute]\n")
    nano = tinymu_jax.load("nano")
    description = describe_with(nano, tmp_path / "f.yaml")(str(tmp_path / "a.wav"))
    assert description.file == "a.wav"
    probability = max(nano.score(tmp_path / "a.wav", "What plays?", ["bell", "flute"]).values())
    assert description.fields["plays"].probability == pytest.approx(probability, abs=1e-3)
    table = html.fields_table(description)
    assert f"<td>plays</td><td>{description.fields['plays'].value or ''}" in table
    assert "missing.wav" in refusal(describe_with(nano), str(tmp_path / "missing.wav"))
