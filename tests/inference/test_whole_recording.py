"""Whole recordings with nano: how windows are combined, checked against single windows."""

import numpy as np
import pytest
from helpers import refusal
from scipy.special import softmax

import tinymu_jax
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.audio.windows import read_windows, seconds_of_each
from tinymu_jax.data.synthetic.compose import compose
from tinymu_jax.data.synthetic.facts import draw_facts
from tinymu_jax.inference.whole_recording import encode_windows

PROMPT = "What instrument is playing?"
OPTIONS = ("flute", "trumpet", "bell", "organ")


@pytest.fixture(scope="module")
def assistant():
    return tinymu_jax.load("nano")


@pytest.fixture(scope="module")
def recording():
    """Returns 15 s: two instruments, then silence, then a rest of half a window."""
    rng = np.random.default_rng(5)
    parts = [compose(draw_facts(rng, True, timbre), 4, rng) for timbre in ("flute", "bell")]
    parts += [np.zeros(4 * SAMPLE_RATE, np.int16), compose(draw_facts(rng, True, "bell"), 3, rng)]
    return np.concatenate(parts).astype(np.float32) / 32768


def test_scores_are_the_mean_of_the_windows(assistant, recording):
    windows = [w for w in read_windows(recording, 4.0) if not w.is_silent]
    single = [assistant.score_details(w.samples, PROMPT, OPTIONS) for w in windows]
    mean = np.average(
        [[row.log_likelihood for row in rows] for rows in single], axis=0, weights=[4, 4, 3]
    )
    result = assistant.whole_scores(recording, PROMPT, OPTIONS)
    assert [row.log_likelihood for row in result.options] == pytest.approx(mean.tolist(), abs=1e-4)
    by_option = assistant.score(recording, PROMPT, OPTIONS, whole=True)
    assert list(by_option.values()) == pytest.approx(softmax(mean).tolist(), abs=1e-4)
    best = OPTIONS[int(np.argmax(mean))]
    agreeing = [4, 4, 3] @ np.array([_best(rows) == best for rows in single])
    assert result.agreement == pytest.approx(agreeing / 11)
    prior = np.array([row.prior for row in single[0]])
    over_prior = assistant.score(recording, PROMPT, OPTIONS, "pmi", whole=True)
    assert list(over_prior.values()) == pytest.approx(softmax(mean - prior).tolist(), abs=1e-4)


def _best(rows):
    return max(rows, key=lambda row: row.probability).option


def test_each_window_is_answered_as_it_is_alone(assistant, recording):
    answer = assistant.ask(recording, PROMPT, whole=True)
    windows = list(read_windows(recording, 4.0))
    assert [(w.start, w.end) for w in answer.timeline] == [(0, 4), (4, 8), (8, 12), (12, 15)]
    alone = [None if w.is_silent else assistant.ask(w.samples, PROMPT) for w in windows]
    assert [window.answer for window in answer.timeline] == alone
    assert answer.total_seconds == 15


def test_the_answer_is_the_best_supported_one(assistant, recording):
    answer = assistant.ask(recording, PROMPT, whole=True)
    audible = [w for w in read_windows(recording, 4.0) if not w.is_silent]
    weights = seconds_of_each(audible)
    support = {}
    for text in {window.answer for window in answer.timeline if window.answer}:
        # Two options, since one cannot be scored alone.
        rows = [assistant.score_details(w.samples, PROMPT, [text, "x"])[0] for w in audible]
        gains = [(row.log_likelihood - row.prior) / row.num_tokens for row in rows]
        support[text] = np.average(gains, weights=weights)
    assert len(support) > 1
    assert answer.text == max(support, key=support.get)
    assert answer.support == pytest.approx(support[answer.text], abs=1e-3)


def test_several_questions_and_recordings(assistant, recording):
    both = assistant.ask([recording, recording[: 4 * SAMPLE_RATE]], PROMPT, whole=True)
    assert [len(answer.timeline) for answer in both] == [4, 1]
    assert both[0] == assistant.ask(recording, PROMPT, whole=True)
    assert both[1].text == assistant.ask(recording[: 4 * SAMPLE_RATE], PROMPT)


def test_vectors_do_not_depend_on_how_a_recording_is_given(assistant, recording, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", recording, SAMPLE_RATE, subtype="FLOAT")
    first = encode_windows(assistant.engine, tmp_path / "a.wav")
    second = encode_windows(assistant.engine, recording)
    for one, other in zip(first, second, strict=True):
        assert one[:2] == other[:2]
        assert one.weight == other.weight
        if one.audio is not None:
            assert np.array_equal(one.audio.vectors, other.audio.vectors)


def test_silence_is_not_asked(assistant):
    silence = np.zeros(9 * SAMPLE_RATE, np.float32)
    answer = assistant.ask(silence, PROMPT, whole=True)
    assert answer.text is None
    assert [window.answer for window in answer.timeline] == [None] * 3
    assert assistant.whole_scores(silence, PROMPT, OPTIONS).options == ()
    assert assistant.answers(silence, PROMPT)[0].silent
    assert "silent" in refusal(assistant.score, silence, PROMPT, OPTIONS, whole=True)


def test_hop_and_bad_options(assistant, recording):
    answer = assistant.ask(recording, PROMPT, whole=True, hop=2.0)
    assert [window.start for window in answer.timeline] == [0, 2, 4, 6, 8, 10, 12]
    assert "hop is 0" in refusal(assistant.ask, recording, PROMPT, whole=True, hop=0.0)
    assert "at least two" in refusal(assistant.whole_scores, recording, PROMPT, ["a"])
    errors = assistant.whole_answers(["missing.wav", recording], PROMPT)
    assert "no such file" in str(errors[0])
    assert errors[1].text
    assert not assistant.answers(recording, PROMPT)[0].silent
