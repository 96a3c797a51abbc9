"""Continuous batching: answers that come and go give the tokens that each gives alone."""

import numpy as np
import pytest
from helpers import noise, refusal

import tinymu_jax
from tinymu_jax.inference.audio_cache import AudioCache
from tinymu_jax.inference.continuous import ContinuousDecoder
from tinymu_jax.inference.generate import Sampling

QUESTIONS = (
    "What is the main instrument?",
    "Describe the music you hear.",
    "Is the tempo fast or slow?",
)


@pytest.fixture(scope="module")
def model():
    return tinymu_jax.load("nano")


@pytest.fixture(scope="module")
def clips():
    tones = np.sin(np.arange(64_000) * 0.17).astype(np.float32) * 0.3
    return [noise(64_000), tones, tones[::-1].copy() * np.linspace(0, 1, 64_000, dtype=np.float32)]


@pytest.fixture(scope="module")
def encoded(model, clips):
    cache = AudioCache(model.config, model.params)
    return cache.encode(clips)


class Case:
    """A request, and the tokens that `generate_tokens` gives for it alone."""

    def __init__(self, model, clips, encoded, number, **sampling):
        clip = number // 3 % len(clips)
        self.audio, self.length = encoded[clip], 1 + (7 * number) % 23
        self.prompt = model.encode_prompt(QUESTIONS[number % 3])
        self.sampling = Sampling(**sampling)
        self.expected = model.generate_tokens(clips[clip], self.prompt, self.length, **sampling)

    def join(self, decoder, num_top=0):
        return decoder.add(self.audio, self.prompt, self.length, self.sampling, num_top)


@pytest.fixture(scope="module")
def cases(model, clips, encoded):
    sampled = ({"seed": 2**32 - 5}, {"top_p": 1.0})
    options = ({}, {}, *({"strategy": "top-p", "temperature": 2.0} | one for one in sampled))
    return [Case(model, clips, encoded, n, **options[n // 2 % 4]) for n in range(24)]


@pytest.mark.parametrize("order", [0, 1])
def test_answers_that_join_and_leave_are_those_alone(model, cases, order):
    rng = np.random.default_rng(order)
    decoder = ContinuousDecoder(model.params, model.config, max_rows=4)
    waiting, answers = list(rng.permutation(len(cases))), {}
    most = 0
    while waiting or decoder.answers:
        while waiting and not decoder.is_full and rng.random() < 0.5:
            number = waiting.pop()
            answers[number] = cases[number].join(decoder)
        most = max(most, len(decoder.answers))
        decoder.step()
    assert most == 4
    for number, answer in answers.items():
        assert answer.tokens == cases[number].expected, number
        assert answer.is_done
        assert answer.ended == (len(answer.tokens) < answer.max_new_tokens)
    assert len(answers) == len(cases)


def test_an_answer_that_is_removed_frees_its_row(model, cases):
    decoder = ContinuousDecoder(model.params, model.config, max_rows=2)
    long = [case for case in cases if len(case.expected) > 6][:3]
    gone, stays = long[0].join(decoder), long[1].join(decoder)
    decoder.step()
    assert decoder.is_full
    with pytest.raises(RuntimeError):
        long[2].join(decoder)
    decoder.remove(gone)
    joined = long[2].join(decoder)
    while decoder.answers:
        decoder.step()
    assert stays.tokens == long[1].expected
    assert joined.tokens == long[2].expected
    assert len(gone.tokens) == 2
    decoder.remove(gone)
    assert decoder.step() == []


def test_the_cache_grows_for_long_answers(model, clips, encoded):
    prompt = model.encode_prompt(QUESTIONS[1])
    # Almost uniform sampling, which rarely draws the end token.
    options = {"strategy": "top-p", "top_p": 1.0, "temperature": 1000.0}
    decoder = ContinuousDecoder(model.params, model.config)
    seeds = (1, 2)
    answers = [
        decoder.add(encoded[seed], prompt, 110, Sampling(**options, seed=seed)) for seed in seeds
    ]
    while decoder.answers:
        decoder.step()
    for seed, answer in zip(seeds, answers, strict=True):
        expected = model.generate_tokens(clips[seed], prompt, 110, **options, seed=seed)
        assert answer.tokens == expected
    # With the prompt, that is more than the 128 columns of the first cache.
    assert max(len(answer.tokens) for answer in answers) == 110


def test_log_probabilities_are_those_of_the_logits(model, clips, encoded):
    prompt = model.encode_prompt(QUESTIONS[0])
    decoder = ContinuousDecoder(model.params, model.config)
    sampling = Sampling("top-p", top_p=0.95, temperature=2.0, seed=1)
    answer = decoder.add(encoded[1], prompt, 8, sampling, num_top=3)
    other = decoder.add(encoded[0], prompt, 8, Sampling())
    while decoder.answers:
        decoder.step()
    logits = model.target_logits(clips[1], prompt, answer.tokens).astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert len(answer.tokens) > 1
    for row, choice in zip(expected, answer.choices, strict=False):
        assert choice.log_probability == pytest.approx(row[choice.token], abs=1e-4)
        assert len(choice.top) == 3
        assert [value for _, value in choice.top] == pytest.approx(sorted(row)[:-4:-1], abs=1e-4)
        for token, value in choice.top:
            assert value == pytest.approx(row[token], abs=1e-4)
    assert not any(choice.top for choice in other.choices)


@pytest.mark.parametrize(
    ("length", "num_top", "message"),
    [(0, 0, "max_new_tokens is 0"), (4, 21, "num_top is 21: ask for 0 to 20")],
)
def test_numbers_out_of_range_are_refused(model, encoded, length, num_top, message):
    decoder = ContinuousDecoder(model.params, model.config)
    assert message in refusal(decoder.add, encoded[0], [5], length, Sampling(), num_top)
    assert not decoder.answers
