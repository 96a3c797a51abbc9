"""Options score as each does alone: with and without audio, in packed rows, on many devices."""

import jax
import numpy as np
import pytest
import soundfile
import torch
from helpers import noise
from oracles import torch_modules as oracle

from tinymu_jax.errors import InputError
from tinymu_jax.inference import scoring
from tinymu_jax.inference.engine import Request
from tinymu_jax.inference.scoring import NORMALIZE, to_option_scores
from tinymu_jax.mesh import MeshConfig, make_mesh, shard_local_batch

# Of several lengths, one the prefix of another, none with token 17, which losses ignore.
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
    for result, correct in zip(bare, scores, strict=True):
        assert (result.prior, result.probability_over_prior) == (None, None)
        # Without the rows of the prior, others are computed together: last bits may differ.
        alone, along = result._asdict(), correct._asdict()
        assert alone.pop("option") == along.pop("option")
        for name in ("prior", "probability_over_prior"):
            del alone[name], along[name]
        assert alone == pytest.approx(along, rel=1e-4)
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
    correct = {
        "probability": with_audio,
        "probability_per_token": with_audio / lengths,
        "probability_over_prior": with_audio - prior,
    }
    for name, evidence in correct.items():
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
    for made, correct in zip(others[:2], scores[1:3], strict=True):
        np.testing.assert_allclose(made.log_likelihood, correct.log_likelihood, atol=1e-4)
        np.testing.assert_allclose(made.prior, correct.prior, atol=1e-4)


def test_options_carry_their_names(assistant, clip, prompt, scores):
    assert [score.option for score in scores] == [str(option) for option in OPTIONS]
    names = ["first", "second", "third", "fourth"]
    named = assistant.score_tokens(clip, prompt, OPTIONS, names)
    assert [score.option for score in named] == names


def test_probabilities_of_very_unlikely_options_are_finite():
    made = to_option_scores(
        ["a", "b"], [2, 2], np.array([-2000.0, -2001.0]), np.array([-3.0, -3.0])
    )
    correct = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(made[0].probability, correct)
    np.testing.assert_allclose(made[0].probability_per_token, 1 / (1 + np.exp(-0.5)))
    np.testing.assert_allclose(made[0].probability_over_prior, correct)


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


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_score_by_text(assistant, clip, prompt, normalize):
    question = assistant.tokenizer.decode(prompt)
    made = assistant.score(clip, question, TEXTS, normalize)
    encoded = [[40, 41, 42], [40, 41], [300], [5, 17, 6]]
    correct = assistant.score_tokens(clip, prompt, encoded)
    assert list(made) == TEXTS
    shares = [getattr(score, NORMALIZE[normalize]) for score in correct]
    np.testing.assert_allclose(list(made.values()), shares, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "normalize", "message"),
    [
        (["t1"], "sum", "give at least two, all different"),
        ([], "sum", "give at least two, all different"),
        (["t1", "t2", "t1"], "sum", "give at least two, all different"),
        ("t1 t2", "sum", "give at least two, all different"),
        (["t1", ""], "sum", "option '' is empty"),
        (["t1", "t2"], "total", "normalize 'total': use one of sum, length, pmi"),
    ],
)
def test_options_that_cannot_be_compared_are_refused(assistant, clip, options, normalize, message):
    with pytest.raises(InputError, match=message) as caught:
        assistant.score(clip, "t5 t6", options, normalize)
    assert "\n" not in str(caught.value)


def test_faults_of_prompt_and_recording_are_errors(assistant, clip, tmp_path):
    with pytest.raises(InputError, match="the prompt is empty"):
        assistant.score(clip, "", TEXTS)
    with pytest.raises(InputError, match="no such file"):
        assistant.score(tmp_path / "missing.wav", "t5", TEXTS)
    with pytest.raises(InputError, match="130 tokens"):
        assistant.score(clip, " ".join(["t5"] * 130), TEXTS)


# --- in packed rows ------------------------------------------------------------------------------

# All prompts begin with t6 t4, and so do the answers of the second question with t300.
PACKED_PROMPTS = [
    " ".join(["t6", "t4", *(f"t{20 + (7 * i + j) % 90}" for j in range(n - 2))])
    for i, n in enumerate((3, 129, 40))
]
CHOICES = [
    ("t7", "t40 t41", "t40 t41 t9"),
    ("t300 t2 t9", "t300", "t300 t5"),
    ("t8 t9", "t9 t8", "t8", "t9 t9 t9 t9 t9 t9 t9"),
]


@pytest.fixture
def clips(tmp_path):
    """Recordings of 5 lengths."""
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, noise(9_000 * (number + 1)) * (number + 1), 16_000)
    return paths


@pytest.fixture
def asked(clips):
    """Three questions on each, and on none between them."""
    return [
        Request(audio, prompt, "MCQ", options, score_only=True)
        for audio in (clips[0], None, *clips[1:])
        for prompt, options in zip(PACKED_PROMPTS, CHOICES, strict=True)
    ]


def alone(assistant, asked):
    """Returns the log-likelihood of each option by itself: from its loss, or in its own row."""
    expected = []
    for request in asked:
        prompt = assistant.encode_prompt(request.prompt)
        for option in request.options:
            if request.audio is None:
                single = request._replace(options=(option,))
                expected += assistant.batch_engine().ask([single])[0].log_likelihoods
            else:
                tokens = assistant.tokenizer.encode(option)
                loss = assistant.loss_tokens(request.audio, prompt, tokens)
                expected.append(-loss * (len(tokens) + 1))
    return np.array(expected)


def log_likelihoods(replies):
    return np.concatenate([reply.log_likelihoods for reply in replies])


def test_packed_options_score_as_alone(assistant, asked, monkeypatch):
    correct = alone(assistant, asked)
    replies = assistant.batch_engine().ask(asked)
    np.testing.assert_allclose(log_likelihoods(replies), correct, atol=1e-4)
    for one, reply in zip(asked, replies, strict=True):
        assert reply.text == one.options[int(np.argmax(reply.log_likelihoods))]
    # Rows so short that a clip's questions go into several, and one question is longer than a row.
    monkeypatch.setattr(scoring, "ROW_LENGTH", 120)
    np.testing.assert_allclose(
        log_likelihoods(assistant.batch_engine().ask(asked)), correct, atol=1e-4
    )


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 1)])
def test_devices_share_the_rows(assistant, asked, monkeypatch, sizes):
    monkeypatch.setattr(scoring, "ROW_LENGTH", 200)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    reported = [one._replace(score_only=False) for one in asked]
    correct, result = (
        assistant.batch_engine(6).ask(reported),
        assistant.batch_engine(6, mesh).ask(reported),
    )
    np.testing.assert_allclose(log_likelihoods(result), log_likelihoods(correct), atol=1e-4)
    assert [reply.text for reply in result] == [reply.text for reply in correct]
    placed = shard_local_batch(np.zeros((8, 3)), mesh)
    assert len(placed.addressable_shards) == np.prod(sizes)
    assert placed.addressable_shards[0].data.shape == (8 // np.prod(sizes), 3)


def test_a_clip_and_a_prompt_are_computed_once_for_what_shares_them(assistant, asked, monkeypatch):
    lengths, build = [], scoring.build_block

    def count(groups, *rest, **named):
        block = build(groups, *rest, **named)
        lengths.append(int((block.rows.group > 0).sum()))
        return block

    monkeypatch.setattr(scoring, "build_block", count)
    assistant.batch_engine().ask(asked)
    audio = [
        assistant.audio_cache.encode_one(one.audio).num_vectors if one.audio else 0
        for one in asked[::3]
    ]
    # A pad behind every prompt but the full one; of an option all tokens but its last label.
    # How three prompts and three answers begin is there once.
    text = sum(len(prompt.split()) for prompt in PACKED_PROMPTS) + 2 - 2 * 2
    text += sum(len(option.split()) for options in CHOICES for option in options) - 2
    assert sum(lengths) == sum(audio) + len(audio) * (1 + text)
