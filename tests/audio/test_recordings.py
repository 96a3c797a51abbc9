"""Real recordings, alone and in batches, through the golden checkpoint."""

import csv
import json

import numpy as np
import pytest
import soundfile
from helpers import run_cli

from tinymu_jax.audio.load import load_audio, read_clip

PROMPT = [30, 31, 32, 33]


@pytest.fixture(scope="module")
def recordings(shared_dir):
    result = sorted((shared_dir / "audio").glob("*.ogg"))
    assert len(result) == 7
    return result


def test_batched_recordings_match_single_ones(recordings, assistant):
    alone = [assistant.generate_tokens(path, PROMPT, 24) for path in recordings]
    assert assistant.generate_token_batch(recordings, [PROMPT] * 7, 24) == alone


def test_batched_crops_of_different_length_match_single_ones(recordings, assistant):
    crops = [load_audio(path, seconds) for path in recordings[:4] for seconds in (1.0, 3.0, 10.0)]
    prompts = [PROMPT + list(range(40, 40 + i)) for i in range(len(crops))]
    alone = [assistant.generate_tokens(*pair, 16) for pair in zip(crops, prompts, strict=True)]
    assert assistant.generate_token_batch(crops, prompts, 16) == alone


def test_questions_about_one_recording_encode_it_once(recordings, assistant, monkeypatch):
    from tinymu_jax.inference import audio_cache

    encoded = []
    encode = audio_cache.encode_clips
    monkeypatch.setattr(
        audio_cache,
        "encode_clips",
        lambda p, clips, *a, **k: encoded.append(len(clips)) or encode(p, clips, *a, **k),
    )
    assistant.audio_cache.clear()
    prompts = [PROMPT, PROMPT[:2], PROMPT[1:]]
    together = assistant.generate_token_batch([recordings[0]] * 3, prompts, 8)
    assert sum(encoded) == 1
    assert together == [assistant.generate_tokens(recordings[0], p, 8) for p in prompts]


def test_encoded_and_total_seconds(recordings):
    for path in recordings:
        clip, total = read_clip(path), soundfile.info(path).duration
        assert clip.total_seconds == pytest.approx(total)
        assert clip.encoded_seconds == pytest.approx(min(10.0, total), abs=1e-3)
        assert len(clip.samples) == pytest.approx(16_000 * clip.encoded_seconds, abs=1)
        assert 0.001 < np.abs(clip.samples).max() <= 1.5


def test_a_probe_distinguishes_recordings_by_their_windows(
    recordings, checkpoint_file, tmp_path, capsys, monkeypatch
):
    rows, music = [], {"humpback_whale": "no", "robin_call": "no"}
    for path in recordings:
        samples = load_audio(path, 24.0)
        for number, start in enumerate(range(0, len(samples) - 16_000, 16_000)):
            name = f"{path.stem}_{number}.wav"
            soundfile.write(tmp_path / name, samples[start : start + 16_000], 16_000)
            part = ("train", "test", "train", "valid")[number % 4]
            rows.append([name, path.stem, music.get(path.stem, "yes"), part])
    with (tmp_path / "windows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "recording", "music", "split"], *rows])
    arguments = ["evaluate", "probe", tmp_path / "windows.csv", "--audio", tmp_path, "--checkpoint"]
    arguments += [checkpoint_file, "--label-column", "recording", "music", "--seeds", "2"]
    code, out, _ = run_cli(capsys, monkeypatch, *arguments, "--output", tmp_path / "out")
    assert code == 0, out
    result = json.loads((tmp_path / "out" / "probe.json").read_text())["trained"]
    # The golden encoder's weights are random: what it hears is still not the same.
    assert result["windows, recording"]["mean"] > result["windows, recording"]["chance"] + 0.3
    assert result["windows, music"]["mean"] > result["windows, music"]["chance"], result
