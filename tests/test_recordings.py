"""Real recordings, alone and in batches, through the golden checkpoint."""

import numpy as np
import pytest
import soundfile

from tinymu_jax.audio import load_audio, read_clip

PROMPT = [30, 31, 32, 33]


@pytest.fixture(scope="module")
def recordings(shared_dir):
    found = sorted((shared_dir / "audio").glob("*.ogg"))
    assert len(found) == 7
    return found


def test_a_batch_of_recordings_is_answered_as_each_alone(recordings, assistant):
    alone = [assistant.generate_tokens(path, PROMPT, 24) for path in recordings]
    assert assistant.generate_token_batch(recordings, [PROMPT] * 7, 24) == alone


def test_crops_of_different_length_are_answered_as_each_alone(recordings, assistant):
    crops = [load_audio(path, seconds) for path in recordings[:4] for seconds in (1.0, 3.0, 10.0)]
    prompts = [PROMPT + list(range(40, 40 + i)) for i in range(len(crops))]
    alone = [assistant.generate_tokens(*pair, 16) for pair in zip(crops, prompts, strict=True)]
    assert assistant.generate_token_batch(crops, prompts, 16) == alone


def test_questions_about_one_recording_share_its_vectors(recordings, assistant, monkeypatch):
    from tinymu_jax import hearing

    heard = []
    listen = hearing.listen
    monkeypatch.setattr(
        hearing, "listen", lambda p, clips, c: heard.append(len(clips)) or listen(p, clips, c)
    )
    assistant.hearing.forget()
    prompts = [PROMPT, PROMPT[:2], PROMPT[1:]]
    together = assistant.generate_token_batch([recordings[0]] * 3, prompts, 8)
    assert sum(heard) == 1
    assert together == [assistant.generate_tokens(recordings[0], p, 8) for p in prompts]


def test_what_was_heard_is_told(recordings):
    for path in recordings:
        clip, total = read_clip(path), soundfile.info(path).duration
        assert clip.total_seconds == pytest.approx(total)
        assert clip.heard_seconds == pytest.approx(min(10.0, total), abs=1e-3)
        assert len(clip.samples) == pytest.approx(16_000 * clip.heard_seconds, abs=1)
        assert 0.001 < np.abs(clip.samples).max() <= 1.5
