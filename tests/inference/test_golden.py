"""The model gives the numbers that the authors' own code gave."""

import jax.numpy as jnp
import numpy as np
import pytest

from tinymu_jax.audio.load import load_audio
from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.inference.chunked_encoding import encode_clips, project

CLIPS = ["stereo_48k_11s", "mono_44k_3p2s", "mono_8k_too_short"]
TEXTS = ["bang_in_answer", "prompt_129", "prompt_128", "answer_cut", "answer_128", "greedy_ends"]
CASES = CLIPS + [f"text/{name}" for name in TEXTS]
NEW_TOKENS = 40
"""As many as the golden greedy answers were given."""


@pytest.fixture(scope="module")
def waveforms(golden_dir):
    """Each recording as published: only the comparison turns a short clip into zeros."""
    return {
        clip: load_audio(
            golden_dir / "audio" / f"{clip}.wav", silence_if_short=clip == "mono_8k_too_short"
        )
        for clip in CLIPS
    }


def inputs(golden, waveforms, case):
    """Returns a case's waveform, prompt and answer, the answer without its end token."""
    clip = case if case in CLIPS else str(golden["text/audio"])
    arguments = golden.get(f"{case}/answer_given")
    answer = golden[f"{case}/target"][:-1] if arguments is None else arguments
    return waveforms[clip], golden[f"{case}/prompt"].tolist(), answer.tolist()


@pytest.mark.parametrize("clip", CLIPS)
def test_waveform(golden, waveforms, clip):
    expected = golden[f"{clip}/waveform"]
    assert waveforms[clip].dtype == np.float32
    np.testing.assert_allclose(waveforms[clip], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip", CLIPS)
def test_log_mel(golden, waveforms, clip):
    made = log_mel(jnp.asarray(waveforms[clip]))
    np.testing.assert_allclose(made, golden[f"{clip}/logmel_norm"].T, rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_embeddings(golden, waveforms, assistant, clip):
    made = assistant.embed(waveforms[clip])
    np.testing.assert_allclose(made, golden[f"{clip}/embeddings"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_fast_embeddings_in_the_published_order(golden, waveforms, assistant, clip):
    made = assistant.embed(waveforms[clip], "fast-interleaved")
    np.testing.assert_allclose(made, golden[f"{clip}/embeddings_fast"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_fast_embeddings_in_time_order(golden, waveforms, assistant, clip):
    expected = golden[f"{clip}/embeddings_fast"]
    columns = assistant.config.encoder.columns
    chunks = len(expected) // columns
    in_time = [expected[t * chunks + chunk] for chunk in range(chunks) for t in range(columns)]
    made = assistant.embed(waveforms[clip], "fast")
    np.testing.assert_allclose(made, np.stack(in_time), rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_every_layer(golden, waveforms, assistant, clip):
    made = assistant.embed(waveforms[clip], all_layers=True)
    expected = golden[f"{clip}/layers_mean_time"]
    np.testing.assert_allclose(made.mean(axis=1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_audio_prefix(golden, waveforms, assistant, clip):
    config, params = assistant.config, assistant.params
    vectors = encode_clips(params["encoder"], [waveforms[clip]], config.encoder)[0]
    made, count = project({"projector": params["projector"]}, vectors[0], config)
    made = made[:count]
    np.testing.assert_allclose(made, golden[f"{clip}/prefix_audio"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_target_logits(golden, waveforms, assistant, case):
    made = assistant.target_logits(*inputs(golden, waveforms, case))
    np.testing.assert_allclose(made, golden[f"{case}/target_logits"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("case", CASES)
def test_loss(golden, waveforms, assistant, case):
    made = assistant.loss_tokens(*inputs(golden, waveforms, case))
    np.testing.assert_allclose(made, golden[f"{case}/loss"], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_greedy_answer_alone(golden, waveforms, assistant, case):
    waveform, prompt, _ = inputs(golden, waveforms, case)
    made = assistant.generate_tokens(waveform, prompt, NEW_TOKENS)
    assert made == golden[f"{case}/greedy"].tolist()


def test_greedy_answers_in_one_batch(golden, waveforms, assistant):
    clips, prompts, _ = zip(*(inputs(golden, waveforms, case) for case in CASES), strict=True)
    made = assistant.generate_token_batch(clips, prompts, NEW_TOKENS)
    assert made == [golden[f"{case}/greedy"].tolist() for case in CASES]


def test_answers_tell_whether_they_ended(golden, waveforms, assistant):
    cases = [f"text/{name}" for name in TEXTS]
    clip, _, _ = inputs(golden, waveforms, cases[0])
    prompts = [golden[f"{case}/prompt"].tolist() for case in cases]
    texts = [assistant.tokenizer.decode(prompt) for prompt in prompts]
    answers = assistant.answers(clip, texts, NEW_TOKENS)
    assert [list(a.tokens) for a in answers] == [
        golden[f"{case}/greedy"].tolist() for case in cases
    ]
    assert [a.ended for a in answers] == [bool(golden[f"{case}/ended"]) for case in cases]


def test_stacked_parameters_give_the_golden_answer_too(golden, waveforms, golden_checkpoint):
    from tinymu_jax.inference.assistant import Assistant

    stacked = Assistant(golden_checkpoint.config, golden_checkpoint.params)
    waveform, prompt, _ = inputs(golden, waveforms, "text/greedy_ends")
    made = stacked.generate_tokens(waveform, prompt, NEW_TOKENS)
    assert made == golden["text/greedy_ends/greedy"].tolist()
