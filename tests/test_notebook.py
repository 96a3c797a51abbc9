"""Helpers of the notebooks: csv tables, recordings, plots."""

import base64
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from helpers import refusal

from tinymu_jax import notebook


def test_read_questions(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('file,question,answer\na.wav,"Fast, or slow?", fast\n', "utf-8")
    assert notebook.read_questions(path) == [
        {
            "file_name": "a.wav",
            "input_text": "Fast, or slow?",
            "target_text": "fast",
            "dataset": "mine",
            "task": "QA",
        }
    ]
    # As Excel's "CSV UTF-8" is, with a mark in front.
    path.write_text("file,question,answer\na.wav,Fast?,no\n", "utf-8-sig")
    assert notebook.read_questions(path)[0]["file_name"] == "a.wav"
    path.write_text("file,question,answer\n", "utf-8")
    assert "mine.csv: has no rows; write" in refusal(notebook.read_questions, path)
    path.write_text("", "utf-8")
    assert "has no column file, question, answer; save" in refusal(notebook.read_questions, path)
    path.write_text("file,question\na.wav,Fast?\n", "utf-8")
    assert "has no column answer; save a csv" in refusal(notebook.read_questions, path)
    path.write_text("file,question,answer\na.wav,Fast?\n", "utf-8")
    assert "line 2 has 2 fields" in refusal(notebook.read_questions, path)
    path.write_text("file,question,answer\na.wav,Fast?,\n", "utf-8")
    assert "line 2 has an empty answer" in refusal(notebook.read_questions, path)


def test_label_by_folder(tmp_path):
    for name in ("jazz/a.wav", "rock/deep/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    table = notebook.label_by_folder(tmp_path, tmp_path / "labels.csv")
    assert table.read_text() == "file,label\njazz/a.wav,jazz\nrock/deep/b.wav,rock\n"
    (tmp_path / "c.wav").touch()
    assert "c.wav: is not in a folder" in refusal(notebook.label_by_folder, tmp_path, table)


def test_a_recording_comes_from_a_browser_or_a_path(tmp_path, monkeypatch):
    path = tmp_path / "song.wav"
    path.touch()
    assert notebook.get_recording(str(path), tmp_path) == path
    assert "no such file" in refusal(notebook.get_recording, str(tmp_path / "no.wav"), tmp_path)
    monkeypatch.setattr("builtins.input", lambda prompt: f" {path} ")
    assert notebook.get_recording("record", tmp_path) == path

    samples = np.array([0, 1, -32768, 32767], np.int16)
    sent = [base64.b64encode(samples.tobytes()).decode(), "", RuntimeError("denied")]

    def eval_js(code, timeout_sec):
        assert "1000 * 3" in code
        assert "sampleRate: 16000" in code
        answer = sent.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    uploads = [{"a/b.wav": b"abc"}, {}]
    colab = SimpleNamespace(
        output=SimpleNamespace(eval_js=eval_js),
        files=SimpleNamespace(upload=lambda: uploads.pop(0)),
    )
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(notebook, "in_colab", lambda: True)
    recorded = notebook.get_recording("record", tmp_path / "new", 3)
    remaining, rate = soundfile.read(recorded, dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(remaining, samples)
    assert "sent no sound" in refusal(notebook.get_recording, "record", tmp_path, 3)
    assert "denied" in refusal(notebook.get_recording, "record", tmp_path, 3)
    uploaded = notebook.get_recording("upload", tmp_path / "new")
    assert (uploaded.name, uploaded.read_bytes()) == ("b.wav", b"abc")
    assert "nothing was uploaded" in refusal(notebook.get_recording, "upload", tmp_path)


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, "float32"),
        ("gpu", "7.5", "float32"),
        ("gpu", "8.0", "bfloat16"),
        ("gpu", "12.0", "bfloat16"),
        ("gpu", "gfx90a", "float32"),
        ("tpu", None, "bfloat16"),
    ],
)
def test_best_compute_dtype(platform, capability, expected, monkeypatch):
    device = SimpleNamespace(platform=platform)
    if capability:
        device.compute_capability = capability
    monkeypatch.setattr("jax.devices", lambda: [device])
    assert notebook.best_compute_dtype() == expected


def test_pca_keeps_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((30, 2)) * [9.0, 4.0]
    turned = np.linalg.qr(rng.standard_normal((8, 8)))[0][:2]
    flat = notebook.pca_2d((plane @ turned + 5).astype(np.float32))
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    result = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.testing.assert_allclose(result, distances, atol=1e-3)


def test_html_table_escapes_texts():
    table = notebook.html_table({"a": ["<b>"], "b": ["1 & 2"]})
    assert "&lt;b&gt;" in table
    assert "1 &amp; 2" in table
