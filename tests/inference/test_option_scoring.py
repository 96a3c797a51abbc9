"""Given answers score as they would alone, with and without the audio."""

import numpy as np
import pytest
import torch
from oracles import torch_modules as oracle

from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import SCORES_BY
from tinymu_jax.inference.option_scoring import pack_options, to_option_scores

# Of several lengths, one the beginning of another, none with the token 17, which losses leave out.
OPTIONS = [[40, 41, 42], [40, 41], [5, 0, 6], list(range(100, 108))]


@pytest.fixture(scope="module")
def clip(golden):
    return golden["mono_44k_3p2s/waveform"]


@pytest.fixture(scope="module")
def prompt(golden):
    return golden["text/bang_in_answer/prompt"].tolist()


@pytest.fixture(scope="module")
def scores(assistant, clip, prompt):
    return assistant.score_tokens(clip, prompt, OPTIONS)


@pytest.fixture(scope="module")
def model(golden_dir):
    """The golden model in PyTorch."""
    import json

    module = oracle.build_tinymu(json.loads((golden_dir / "tinymu_tiny.json").read_text()))
    state = torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"]
    module.load_state_dict(state, strict=True)
    return module


def test_the_prior_is_left_out_where_it_is_not_asked_for(assistant, clip, prompt, scores):
    bare = assistant.score_tokens(clip, prompt, OPTIONS, prior=False)
    for found, wanted in zip(bare, scores, strict=True):
        assert found == wanted._replace(prior=None, probability_over_prior=None)
    assert all(score.prior < 0 for score in scores)


def test_log_likelihoods_are_the_losses_of_each_option_alone(assistant, clip, prompt, scores):
    for option, score in zip(OPTIONS, scores, strict=True):
        loss = assistant.loss_tokens(clip, prompt, option)
        assert score.num_tokens == len(option) + 1
        np.testing.assert_allclose(score.log_likelihood, -loss * (len(option) + 1), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("length", [15, 129])
def test_log_likelihoods_are_the_published_models(model, assistant, golden, clip, length):
    name = {15: "bang_in_answer", 129: "prompt_129"}[length]
    prompt = golden[f"text/{name}/prompt"].tolist()
    assert len(prompt) == length
    for option, score in zip(OPTIONS, assistant.score_tokens(clip, prompt, OPTIONS), strict=True):
        logits = model.target_logits(torch.from_numpy(clip), prompt, [*option, 0])
        picked = logits.log_softmax(-1)[range(len(option) + 1), [*option, 0]]
        np.testing.assert_allclose(
            score.log_likelihood, picked.sum().item(), atol=1e-4 * len(picked)
        )


@torch.no_grad()
def test_prior_is_the_score_without_audio(model, scores, prompt):
    lm = model.text_decoder.lm
    for option, score in zip(OPTIONS, scores, strict=True):
        # The published sequence with no audio vectors: separator, padded prompt, option.
        tokens = [0, *prompt, *[17] * (129 - len(prompt)), *option]
        seen = [1] * (1 + len(prompt)) + [0] * (129 - len(prompt)) + [1] * len(option)
        logits = lm(
            input_ids=torch.tensor([tokens]), attention_mask=torch.tensor([seen]), use_cache=False
        ).logits[0, 129:]
        picked = logits.log_softmax(-1)[range(len(option) + 1), [*option, 0]]
        np.testing.assert_allclose(score.prior, picked.sum().item(), atol=1e-4 * len(picked))
        assert abs(score.prior - score.log_likelihood) > 1e-2


def test_probabilities_are_shares_of_the_options(scores):
    with_audio = np.array([score.log_likelihood for score in scores])
    lengths = np.array([len(option) + 1 for option in OPTIONS])
    prior = np.array([score.prior for score in scores])
    wanted = {
        "probability": with_audio,
        "probability_per_token": with_audio / lengths,
        "probability_over_prior": with_audio - prior,
    }
    for name, evidence in wanted.items():
        shares = np.exp(evidence - evidence.max())
        made = [getattr(score, name) for score in scores]
        np.testing.assert_allclose(made, shares / shares.sum(), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(sum(made), 1, rtol=1e-6)


def test_order_of_the_options_does_not_matter(assistant, clip, prompt, scores):
    order = [3, 0, 2, 1]
    shuffled = assistant.score_tokens(clip, prompt, [OPTIONS[i] for i in order])
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place][1:], scores[i][1:], rtol=1e-4, atol=1e-6)


def test_other_options_change_nothing_but_the_shares(assistant, clip, prompt, scores):
    others = assistant.score_tokens(clip, prompt, [*OPTIONS[1:3], [300], [301, 302]])
    for made, wanted in zip(others[:2], scores[1:3], strict=True):
        np.testing.assert_allclose(made.log_likelihood, wanted.log_likelihood, atol=1e-4)
        np.testing.assert_allclose(made.prior, wanted.prior, atol=1e-4)


def test_options_carry_their_names(assistant, clip, prompt, scores):
    assert [score.option for score in scores] == [str(option) for option in OPTIONS]
    names = ["first", "second", "third", "fourth"]
    named = assistant.score_tokens(clip, prompt, OPTIONS, names)
    assert [score.option for score in named] == names


def test_packed_options_know_their_places():
    packed = pack_options([[7, 8, 9], [5]], end_token=0)
    assert packed.tokens[:4].tolist() == [7, 8, 9, 5]
    assert packed.labels[:4].tolist() == [8, 9, 0, 0]
    assert packed.option.tolist() == [0, 0, 0, 1] + [-1] * 12
    assert packed.place[:4].tolist() == [0, 1, 2, 0]
    assert packed.first.tolist() == [7, 5]


def test_probabilities_of_very_unlikely_options_are_finite():
    made = to_option_scores(
        ["a", "b"], [1, 1], np.array([-2000.0, -2001.0]), np.array([-3.0, -3.0])
    )
    wanted = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(made[0].probability, wanted)
    np.testing.assert_allclose(made[0].probability_per_token, 1 / (1 + np.exp(-0.5)))
    np.testing.assert_allclose(made[0].probability_over_prior, wanted)


@pytest.mark.parametrize("options", [[[1], []], [], [[600], [1]], [[-1], [1]]])
def test_token_options_that_cannot_be_scored_are_refused(assistant, clip, options):
    with pytest.raises(InputError):
        assistant.score_tokens(clip, [5, 6], options)


@pytest.mark.parametrize("target", [[600], [5, -1]])
def test_targets_outside_the_vocabulary_are_refused(assistant, clip, target):
    with pytest.raises(InputError, match="the vocabulary has 512"):
        assistant.loss_tokens(clip, [5, 6], target)


# --- by text -------------------------------------------------------------------------------------

TEXTS = ["t40 t41 t42", "t40 t41", "t300", "t5 ! t6"]


@pytest.mark.parametrize("by", SCORES_BY)
def test_score_by_text(assistant, clip, prompt, by):
    question = assistant.tokenizer.decode(prompt)
    made = assistant.score(clip, question, TEXTS, by=by)
    encoded = [[40, 41, 42], [40, 41], [300], [5, 17, 6]]
    wanted = assistant.score_tokens(clip, prompt, encoded)
    assert list(made) == TEXTS
    shares = [getattr(score, SCORES_BY[by]) for score in wanted]
    np.testing.assert_allclose(list(made.values()), shares, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "by", "message"),
    [
        (["t1"], "total", "give at least two, all different"),
        ([], "total", "give at least two, all different"),
        (["t1", "t2", "t1"], "total", "give at least two, all different"),
        ("t1 t2", "total", "give at least two, all different"),
        (["t1", ""], "total", "option '' is empty"),
        (["t1", "t2"], "length", "scores by 'length': use one of total, per-token, over-prior"),
    ],
)
def test_options_that_cannot_be_compared_are_refused(assistant, clip, options, by, message):
    with pytest.raises(InputError, match=message) as caught:
        assistant.score(clip, "t5 t6", options, by=by)
    assert "\n" not in str(caught.value)


def test_faults_of_question_and_recording_are_errors(assistant, clip, tmp_path):
    with pytest.raises(InputError, match="the prompt is empty"):
        assistant.score(clip, "", TEXTS)
    with pytest.raises(InputError, match="no such file"):
        assistant.score(tmp_path / "missing.wav", "t5", TEXTS)
    with pytest.raises(InputError, match="130 tokens"):
        assistant.score(clip, " ".join(["t5"] * 130), TEXTS)
