"""Answers token by token: greedy as published, sampling by its rule, batches and streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle

from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.generate import decode, greedy, prefill, sample_top_p
from tinymu_jax.models.sequence import PromptBatch

CASES = ["bang_in_answer", "prompt_129", "prompt_128", "answer_cut", "greedy_ends"]


@pytest.fixture(scope="module")
def clip(golden):
    return golden["mono_44k_3p2s/waveform"]


@pytest.fixture(scope="module")
def long_clip(golden):
    return golden["stereo_48k_11s/waveform"]


@pytest.fixture(scope="module")
def prompts(golden):
    return [golden[f"text/{case}/prompt"].tolist() for case in CASES]


# --- greedy --------------------------------------------------------------------------------------


def test_best_token_is_the_largest():
    logits = np.random.default_rng(0).standard_normal((7, 1000)).astype(np.float32)
    np.testing.assert_array_equal(greedy(jnp.asarray(logits)), logits.argmax(axis=1))


@pytest.mark.parametrize("row", [[1, 3, 3, 2, 3], [5, 5, 5, 5, 5], [0, 0, 0, 0, 9], [-1e30] * 5])
def test_the_first_of_equal_tokens_wins(row):
    assert greedy(jnp.array([row], jnp.float32)).tolist() == [int(np.argmax(row))]


@pytest.fixture(scope="module")
def small(port):
    """A small model with random weights in PyTorch, and what answers in its stead."""
    sizes = {
        "encoder": {"embed_dim": 16, "depth": 1, "num_heads": 2, "n_t": 64},
        "projector": {"d_in": 80, "d_h": 24, "d_out": 24},
        "lm": {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "vocab_size": 48,
            "head_dim": 8,
        },
    }
    module = port.randomise(oracle.build_tinymu(sizes), seed=3)
    return module, Assistant(*port.tinymu(module))


@pytest.mark.parametrize("length", [1, 128, 129])
def test_greedy_is_the_published_decoding(small, length):
    module, assistant = small
    rng = np.random.default_rng(length + 1)
    samples = (0.1 * rng.standard_normal(9000)).astype(np.float32)
    prompt = rng.integers(1, 48, length).tolist()
    target = module.generate_published(torch.from_numpy(samples), prompt, 24)
    assert len(target) > 0
    assert assistant.generate_tokens(samples, prompt, 24) == target


# --- sampling ------------------------------------------------------------------------------------


def kept_probabilities(logits, top_p, temperature):
    """Derives what is drawn from, token by token: probabilities of the kept tokens, else 0."""
    scaled = np.asarray(logits, np.float64) / (temperature if temperature > 0 else 1.0)
    probability = np.exp(scaled - scaled.max())
    probability /= probability.sum()
    remaining, before = np.zeros_like(probability), 0.0
    for place, token in enumerate(sorted(range(len(remaining)), key=lambda i: -probability[i])):
        if place == 0 or before <= top_p:
            remaining[token] = probability[token]
        before += probability[token]
    return remaining / remaining.sum()


LOGITS = np.array([0.3, 2.0, -1.0, 1.4, 0.9, -0.2, 1.7, -3.0], np.float32)
draw_many = jax.jit(jax.vmap(sample_top_p, in_axes=(None, 0, None, None)))


def draws(logits, count, top_p, temperature):
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    made = draw_many(jnp.asarray(logits)[None], keys, jnp.float32(top_p), jnp.float32(temperature))
    return np.asarray(made[:, 0])


SETTINGS = [(0.8, 1.0), (0.5, 1.0), (0.8, 0.5), (0.9, 2.0), (0.8, 0.0), (0.8, -1.0), (1.0, 1.0)]


@pytest.mark.parametrize(("top_p", "temperature"), SETTINGS)
def test_draws_follow_the_kept_probabilities(top_p, temperature):
    count, target = 4000, kept_probabilities(LOGITS, top_p, temperature)
    result = np.bincount(draws(LOGITS, count, top_p, temperature), minlength=len(LOGITS))
    assert result[target == 0].sum() == 0
    expected = count * target[target > 0]
    chi_square = ((result[target > 0] - expected) ** 2 / expected).sum()
    # Exceeded by chance once in 10,000, for the 7 degrees of freedom that there are at most.
    assert chi_square < 30


@pytest.mark.parametrize(
    ("top_p", "allowed"), [(0.0, 1), (0.33, 1), (0.34, 2), (0.59, 3), (1.0, 8)]
)
def test_a_token_is_kept_if_those_before_it_hold_no_more_than_top_p(top_p, allowed):
    # The two best hold 0.336 and 0.249.
    result = set(draws(LOGITS, 4000, top_p, 1.0).tolist())
    assert result == set(np.argsort(-LOGITS)[:allowed].tolist())


def test_the_best_token_is_never_dropped():
    peaked = np.array([0, 30, 0, 0], np.float32)
    assert set(draws(peaked, 100, 0.1, 1.0).tolist()) == {1}
    assert set(draws(peaked, 100, 0.0, 1.0).tolist()) == {1}


def test_temperature_comes_before_top_p():
    # At temperature 4 the first four tokens hold no more than 0.8; at 1 the first three hold 0.77.
    assert (kept_probabilities(LOGITS, 0.8, 4.0) > 0).sum() > (
        kept_probabilities(LOGITS, 0.8, 1.0) > 0
    ).sum()
    result = set(draws(LOGITS, 4000, 0.8, 4.0).tolist())
    assert result == set(np.flatnonzero(kept_probabilities(LOGITS, 0.8, 4.0)).tolist())


def test_rows_of_a_batch_take_the_same_noise():
    keys = [jax.random.key(seed) for seed in range(50)]
    rows = jnp.asarray(np.stack([LOGITS, LOGITS[::-1], LOGITS]))
    knobs = jnp.float32(0.8), jnp.float32(1.0)
    draw = jax.jit(sample_top_p)
    for key in keys:
        first, other, last = draw(rows, key, *knobs).tolist()
        assert first == last
        assert draw(rows[1:2], key, *knobs).tolist() == [other]


def test_a_seed_decides_the_answer(assistant, clip, prompts):
    def ask(seed):
        return assistant.generate_tokens(clip, prompts[0], 20, strategy="top-p", seed=seed)

    answers = [ask(seed) for seed in range(4)]
    assert answers == [ask(seed) for seed in range(4)]
    assert len({tuple(answer) for answer in answers}) > 1


def test_top_p_of_zero_is_greedy(assistant, clip, prompts):
    greedy = assistant.generate_tokens(clip, prompts[0], 20)
    assert assistant.generate_tokens(clip, prompts[0], 20, strategy="top-p", top_p=0.0) == greedy


def test_settings_of_sampling_are_in_force(assistant, clip, prompts):
    def ask(**options):
        return assistant.generate_tokens(clip, prompts[0], 20, strategy="top-p", **options)

    assert ask(top_p=0.999, temperature=2.0) != ask(top_p=0.999, temperature=0.1)
    assert ask(top_p=0.999, temperature=2.0) != ask(top_p=0.01, temperature=2.0)
    assert ask(temperature=0.0) == ask(temperature=1.0)


def test_sampling_in_a_batch_is_sampling_alone(assistant, clip, prompts):
    clips, asked = [clip, clip[:-9000], clip], [prompts[0], prompts[3], prompts[3]]
    options = {"strategy": "top-p", "seed": 5}
    together = assistant.generate_token_batch(clips, asked, 16, **options)
    alone = [
        assistant.generate_tokens(one, prompt, 16, **options)
        for one, prompt in zip(clips, asked, strict=True)
    ]
    assert together == alone


# --- batches, streams, ends ----------------------------------------------------------------------


def test_rows_that_end_early_change_nothing_for_others(golden, assistant, long_clip, prompts):
    together = assistant.generate_token_batch([long_clip] * 5, prompts, 40)
    assert together == [golden[f"text/{case}/greedy"].tolist() for case in CASES]
    assert len({len(answer) for answer in together}) > 2


def test_more_questions_than_fit_in_one_batch(assistant, clip, long_clip, prompts):
    clips, many = [clip, long_clip] * 9, (prompts * 4)[:18]
    together = assistant.generate_token_batch(clips, many, 4)
    first = assistant.generate_token_batch(clips[:10], many[:10], 4)
    assert len(together) == 18
    assert together[:10] == first
    assert together[10:] == first[:8]


@pytest.mark.parametrize("case", ["greedy_ends", "bang_in_answer"])
def test_a_stream_gives_the_answer_token_by_token(golden, assistant, long_clip, case):
    prompt = golden[f"text/{case}/prompt"].tolist()
    target = golden[f"text/{case}/greedy"].tolist()
    pieces = list(assistant.stream_tokens(long_clip, prompt, 40))
    assert pieces[-1] == target
    for piece in pieces:
        assert piece == target[: len(piece)]
    lengths = [len(piece) for piece in pieces]
    assert lengths[: len(target)] == list(range(1, len(target) + 1))


def test_a_sampled_stream_is_the_sampled_answer(assistant, clip, prompts):
    options = {"strategy": "top-p", "seed": 2}
    target = assistant.generate_tokens(clip, prompts[0], 12, **options)
    assert list(assistant.stream_tokens(clip, prompts[0], 12, **options))[-1] == target


def test_a_streamed_text_is_the_answers_text(assistant, clip, prompts):
    prompt = assistant.tokenizer.decode(prompts[0])
    pieces = list(assistant.stream(clip, prompt, 8))
    assert len(pieces) == 8
    assert "".join(pieces) == assistant.ask(clip, prompt, 8)


@pytest.mark.parametrize("limit", [1, 2, 39, 64, 65])
def test_an_answer_is_as_long_as_asked(assistant, clip, prompts, limit):
    whole = assistant.generate_tokens(clip, prompts[3], 80)
    assert len(whole) == 80
    assert assistant.generate_tokens(clip, prompts[3], limit) == whole[:limit]


def test_an_answer_that_ends_at_the_limit_has_ended(golden, assistant, long_clip):
    prompt = assistant.tokenizer.decode(golden["text/greedy_ends/prompt"].tolist())
    target = golden["text/greedy_ends/greedy"].tolist()
    # The end token is the one behind the answer's last.
    for limit, ended in ((len(target), False), (len(target) + 1, True)):
        answer = assistant.answers(long_clip, prompt, limit)[0]
        assert (list(answer.tokens), answer.ended) == (target, ended)


@pytest.mark.parametrize("how", ["generate_tokens", "stream_tokens"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: ask for at least 1"),
        ({"strategy": "beam"}, "strategy 'beam': use greedy or top-p"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5: ask for at least 1 and at most 8192"),
        ({"max_new_tokens": 3 * 10**9}, "max_new_tokens is 3000000000"),
        ({"top_p": "0.8"}, "top_p is 0.8: it is a probability"),
        ({"seed": 1.5}, "seed is 1.5: give a whole number"),
        ({"temperature": 1e-40}, "temperature is 1e-40: give a number, 1 as published, or 1e-6"),
        ({"top_p": float("nan")}, "top_p is nan: it is a probability, 0 to 1"),
        ({"top_p": -0.1}, "top_p is -0.1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"seed": 2**70}, f"seed is {2**70}: give a whole number from 0 to 4294967295"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_generated_is_refused(assistant, clip, prompts, how, options, message):
    with pytest.raises(InputError, match=message):
        list(getattr(assistant, how)(clip, prompts[0], **options))


@pytest.mark.parametrize(("num_clips", "num_prompts"), [(1, 2), (2, 1)])
def test_as_many_clips_as_prompts_are_asked_for(assistant, clip, num_clips, num_prompts):
    with pytest.raises(InputError, match=f"{num_clips} recordings and {num_prompts} prompts"):
        assistant.generate_token_batch([clip] * num_clips, [[5]] * num_prompts, 3)


@pytest.mark.parametrize("how", ["generate_tokens", "stream_tokens"])
@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        ([5] * 130, "130 tokens, the model takes 129"),
        ([5, 512], "the vocabulary has 512"),
        ([-1], "the vocabulary has 512"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(assistant, clip, how, prompt, message):
    with pytest.raises(InputError, match=message) as caught:
        list(getattr(assistant, how)(clip, prompt, 3))
    assert "\n" not in str(caught.value)


# --- compiling -----------------------------------------------------------------------------------


def test_a_question_of_another_length_compiles_nothing_new(assistant, clip, long_clip):
    assistant.generate_tokens(clip, [5] * 17, 70)
    sizes = prefill._cache_size(), decode._cache_size()
    assert min(sizes) > 0
    assistant.generate_tokens(clip, [6] * 32, 70)
    assistant.generate_tokens(clip[:-5000], [6] * 20, 100)
    list(assistant.stream_tokens(clip, [7] * 25, 68))
    assert (prefill._cache_size(), decode._cache_size()) == sizes
    # The count does tell: more slots of audio are another program.
    assistant.generate_tokens(long_clip, [5] * 17, 70)
    assert prefill._cache_size() == sizes[0] + 1


@pytest.fixture
def state(assistant):
    """A decoding of two questions, one of them only there to fill the batch up."""
    config = assistant.config
    question = PromptBatch(
        jax.random.normal(jax.random.key(0), (2, 4, config.decoder.width)),
        jnp.array([4, 2]),
        jnp.array([[5, 6, 7], [8, 0, 0]]),
        jnp.array([3, 1]),
    )
    return prefill(
        assistant.params,
        question,
        jnp.array([True, False]),
        jax.random.key(0),
        (jnp.float32(0.8), jnp.float32(1.0)),
        config=config,
        max_new_slots=8,
        strategy="greedy",
    )


def go_on(assistant, state, until):
    knobs = jnp.float32(0.8), jnp.float32(1.0)
    return decode(
        assistant.params, state, jnp.int32(until), knobs, config=assistant.config, strategy="greedy"
    )


def test_prefill_chooses_the_first_token(state):
    assert int(state.step) == 1
    assert state.tokens.shape == (2, 8)
    assert state.done.tolist() == [False, True]
    assert state.tokens[1].tolist() == [0] * 8
    assert state.start.tolist() == [4 + 130, 2 + 130]
    assert int(state.answer) == 4 + 1 + 3 + 1


def test_decode_gives_its_input_up(assistant, state):
    after = go_on(assistant, state, 3)
    assert int(after.step) == 3
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.cache))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_decode_in_steps_is_decode_in_one_go(assistant, state):
    copy = jax.tree.map(jnp.copy, state)
    whole = go_on(assistant, state, 8)
    for until in (2, 3, 7, 8):
        copy = go_on(assistant, copy, until)
    np.testing.assert_array_equal(copy.tokens, whole.tokens)
    assert int(copy.step) == int(whole.step)


def test_decode_stops_when_all_have_ended(assistant, state):
    ended = state._replace(done=jnp.array([True, True]))
    assert int(go_on(assistant, ended, 8).step) == 1
