"""The PyTorch oracle gives the numbers that the authors' own code gave."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from oracles import torch_modules as oracle

SHARED = Path(os.environ.get("TINYMU_SHARED") or Path(__file__).parents[3] / "shared")
GOLDEN = SHARED / "golden"

needs_golden = pytest.mark.skipif(
    not (GOLDEN / "tinymu_tiny.npz").is_file(),
    reason="needs the golden numbers of ../shared/golden (or set TINYMU_SHARED to that ../shared)",
)

CLIPS = ["stereo_48k_11s", "mono_44k_3p2s", "mono_8k_too_short"]
TEXTS = ["bang_in_answer", "prompt_129", "prompt_128", "answer_cut", "answer_128", "greedy_ends"]
CASES = CLIPS + [f"text/{name}" for name in TEXTS]

# The golden log-mel is itself 1.9e-5 away from the same formula in float64: where a power is
# near the epsilon, the logarithm enlarges the FFT's rounding. What follows from audio inherits it.
FROM_AUDIO = {"rtol": 1e-5, "atol": 5e-5}
LAYERS = {"rtol": 1e-5, "atol": 1e-5}
LOGITS = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    # On models this small, threads that wait for each other take most of the time.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "tinymu_tiny.npz")


@pytest.fixture(scope="module")
def sizes():
    return json.loads((GOLDEN / "tinymu_tiny.json").read_text())


@pytest.fixture(scope="module")
def state():
    return torch.load(GOLDEN / "tinymu_tiny.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def model(sizes, state):
    model = oracle.build_tinymu(sizes)
    model.load_state_dict(state, strict=True)
    return model


def published_waveform(name: str) -> torch.Tensor:
    """Load as published: first channel, crop, zeros for a very short clip, resample."""
    samples, rate = soundfile.read(
        GOLDEN / "audio" / f"{name}.wav", dtype="float32", always_2d=True
    )
    first = torch.from_numpy(samples[: int(10 * rate), 0].copy())
    if len(first) < 1600:
        return torch.zeros(160_000)
    return oracle.resample(first, rate)


def case_inputs(golden, case: str) -> tuple[torch.Tensor, list[int], list[int]]:
    """Return a case's waveform, prompt and answer without the end token."""
    clip = case if case in CLIPS else str(golden["text/audio"])
    if f"{case}/answer_given" in golden:
        answer = golden[f"{case}/answer_given"]
    else:
        answer = golden[f"{case}/target"][:-1]
    waveform = torch.from_numpy(golden[f"{clip}/waveform"])
    return waveform, golden[f"{case}/prompt"].tolist(), answer.tolist()


def close(actual: torch.Tensor, expected: np.ndarray, rtol: float, atol: float) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=rtol, atol=atol)


# --- against the golden numbers ----------------------------------------------------------------


@needs_golden
def test_state_dict_keys_are_the_published_ones(model, state):
    assert list(model.state_dict()) == list(state)
    assert model.text_decoder.lm.lm_head.weight is model.text_decoder.embed_fn.weight


@needs_golden
def test_front_end_buffers_are_bit_equal(sizes, state):
    fresh = oracle.build_tinymu(sizes).state_dict()
    for name in ("spectrogram.window", "mel_scale.fb"):
        key = f"audio_encoder.enc.log_mel.MelSpectrogram.{name}"
        assert torch.equal(fresh[key], state[key])


@needs_golden
@torch.no_grad()
@pytest.mark.parametrize("clip", CLIPS)
def test_audio_side_from_the_file(model, golden, clip):
    waveform = published_waveform(clip)
    close(waveform, golden[f"{clip}/waveform"], rtol=0, atol=1e-6)
    encoder, batch = model.audio_encoder.enc, waveform[None]
    close(encoder.log_mel(batch)[0], golden[f"{clip}/logmel_norm"], **FROM_AUDIO)
    close(encoder(batch)[0], golden[f"{clip}/embeddings"], **FROM_AUDIO)
    close(encoder.fast(batch)[0], golden[f"{clip}/embeddings_fast"], **FROM_AUDIO)
    layers = encoder.layers(batch)[0]
    close(layers.mean(dim=1), golden[f"{clip}/layers_mean_time"], **LAYERS)
    close(layers[-1], encoder(batch)[0].numpy(), rtol=0, atol=0)
    close(model.audio(waveform)[0], golden[f"{clip}/prefix_audio"], **FROM_AUDIO)


@needs_golden
@torch.no_grad()
@pytest.mark.parametrize("clip", CLIPS)
def test_audio_side_from_the_golden_log_mel(model, golden, clip, monkeypatch):
    image = torch.from_numpy(golden[f"{clip}/logmel_norm"])[None]
    monkeypatch.setattr(oracle.LogMel, "forward", lambda self, waveform: image)
    encoder, unused = model.audio_encoder.enc, torch.zeros(1, 400)
    close(encoder(unused)[0], golden[f"{clip}/embeddings"], **LAYERS)
    close(encoder.fast(unused)[0], golden[f"{clip}/embeddings_fast"], **LAYERS)
    close(model.audio(unused)[0], golden[f"{clip}/prefix_audio"], **LAYERS)


@needs_golden
@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_target_logits_and_loss(model, golden, case):
    waveform, prompt, answer = case_inputs(golden, case)
    logits = model.target_logits(waveform, prompt, golden[f"{case}/target"].tolist())
    close(logits, golden[f"{case}/target_logits"], **LOGITS)
    loss = model.loss(waveform, prompt, answer)
    np.testing.assert_allclose(loss.item(), golden[f"{case}/loss"], rtol=0, atol=1e-5)


@needs_golden
@pytest.mark.parametrize("generate", ["generate_published", "generate_cached"])
@pytest.mark.parametrize("case", CASES)
def test_greedy(model, golden, case, generate):
    waveform, prompt, _ = case_inputs(golden, case)
    tokens = getattr(model, generate)(waveform, prompt, 40)
    assert tokens == golden[f"{case}/greedy"].tolist()


@needs_golden
def test_a_batch_gives_each_question_what_it_gets_alone(model, golden):
    waveform, first, answer = case_inputs(golden, "text/greedy_ends")
    _, second, other = case_inputs(golden, "text/answer_cut")
    clips = waveform.expand(2, -1)
    for generate in (model.generate_published, model.generate_cached):
        alone = [generate(waveform, first, 12), generate(waveform, second, 12)]
        assert generate(clips, [first, second], 12) == alone
    assert len(model.generate_cached(waveform, first, 12, stop=False)) == 12

    with torch.no_grad():
        both = model.loss(clips, [first, second], [answer, other])
        # The mean runs over tokens, not over questions; only "!" labels do not count.
        pairs = [(first, [*answer, oracle.END]), (second, other[:129])]
        counts = [sum(token != oracle.PAD for token in target) for _, target in pairs]
        losses = [model.loss(waveform, first, answer), model.loss(waveform, second, other)]
    expected = sum(n * x.item() for n, x in zip(counts, losses, strict=True)) / sum(counts)
    np.testing.assert_allclose(both.item(), expected, rtol=0, atol=1e-4)


@needs_golden
@torch.no_grad()
def test_only_padding_is_ignored_on_request(model, golden):
    waveform, prompt, answer = case_inputs(golden, "text/bang_in_answer")
    target = [*answer, oracle.END]
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(golden["text/bang_in_answer/target_logits"]),
        torch.tensor(target),
        reduction="none",
    )
    encoded = torch.tensor([token != oracle.PAD for token in target])
    assert not encoded.all()
    published = model.loss(waveform, prompt, answer)
    complete = model.loss(waveform, prompt, answer, ignore_bang=False)
    torch.testing.assert_close(published, losses[encoded].mean(), rtol=0, atol=1e-4)
    torch.testing.assert_close(complete, losses.mean(), rtol=0, atol=1e-4)


@needs_golden
def test_bfloat16_runs_with_float32_front_end_and_positions(model, golden):
    half = copy.deepcopy(model).to(torch.bfloat16)
    window = half.audio_encoder.enc.log_mel.MelSpectrogram.spectrogram.window
    rotary = half.text_decoder.lm.model.rotary_emb
    assert {window.dtype, rotary.inv_freq.dtype} == {torch.float32}
    torch.testing.assert_close(
        rotary.inv_freq, model.text_decoder.lm.model.rotary_emb.inv_freq, rtol=0, atol=0
    )
    waveform, prompt, _ = case_inputs(golden, "text/greedy_ends")
    target = golden["text/greedy_ends/target"].tolist()
    with torch.no_grad():
        logits = half.target_logits(waveform, prompt, target).float()
    expected = golden["text/greedy_ends/target_logits"]
    assert np.abs(logits.numpy() - expected).max() < 0.05 * np.abs(expected).max()
    assert len(half.generate_cached(waveform, prompt, 3)) <= 3

    mixed = copy.deepcopy(model)
    mixed.audio_encoder.to(torch.bfloat16)
    assert len(mixed.generate_cached(waveform, prompt, 3)) <= 3


@needs_golden
def test_sincos_positions_are_the_published_ones():
    states = torch.load(GOLDEN / "matpac_ssl_mcl_tiny.pt", weights_only=True)["model"]
    for key in ("pos_embed", "decoder.decoder_pos_embed"):
        stored = states[key]
        columns = (stored.shape[1] - 1) // oracle.ROWS
        assert torch.equal(oracle.sincos_positions(oracle.ROWS, columns, stored.shape[2]), stored)


# --- what the golden numbers do not reach ------------------------------------------------------


def test_full_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = oracle.build_tinymu(oracle.FULL_SIZES)
    parts = (model, model.audio_encoder, model.projector, model.text_decoder)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert [round(count / 1e6, 2) for count in counts] == [229.05, 85.49, 9.05, 134.52]
    assert counts[0] == sum(counts[1:])


def test_rope_theta_is_in_force():
    lm = oracle.build_llama(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=32,
        head_dim=8,
    )
    expected = 100_000.0 ** (-np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(lm.model.rotary_emb.inv_freq.numpy(), expected, rtol=1e-6)
    assert lm.config.rms_norm_eps == 1e-5


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_resample_keeps_a_tone(rate):
    time = np.arange(rate // 2) / rate
    tone = torch.from_numpy(np.sin(2 * np.pi * 440 * time)).float()
    out = oracle.resample(tone, rate)
    assert len(out) == 8000
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    np.testing.assert_allclose(out.numpy()[200:-200], expected[200:-200], atol=5e-3)


@pytest.mark.parametrize(
    ("samples", "length"), [(180_696, 65_559), (180_697, 65_559), (180_698, 65_560)]
)
def test_resample_rounds_its_length_as_torchaudio(samples, length):
    # The exact ceiling of the second is 65,560; torchaudio's quotient is a float32.
    assert len(oracle.resample(torch.zeros(samples), 44_100)) == length


@torch.no_grad()
def test_projectors():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 12)
    residual = oracle.ResidualProjector(12, 16).eval()
    assert set(residual.state_dict()) == {
        "linear1.weight",
        "linear2.weight",
        "layer_norm.weight",
        "layer_norm.bias",
    }
    first = x @ residual.linear1.weight.T
    inner = first * 0.5 * (1 + torch.erf(first / 2**0.5))
    total = first + inner @ residual.linear2.weight.T
    spread = (total.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = (total - total.mean(dim=-1, keepdim=True)) / spread
    torch.testing.assert_close(residual(x), expected)

    transformer = oracle.TransformerProjector(12, 16).eval()
    keys = set(transformer.state_dict())
    assert {"prefix_const", "linear.weight", "linear.bias"} <= keys
    assert {
        f"transformer.layers.7.attn.{n}.weight" for n in ("to_queries", "to_keys_values")
    } < keys
    assert "transformer.layers.7.attn.to_queries.bias" not in keys
    assert "transformer.layers.7.attn.project.bias" in keys
    out = transformer(x)
    assert out.shape == (2, 32, 16)
    # Without positions, the order of the audio vectors makes no difference.
    torch.testing.assert_close(transformer(x.flip(1)), out, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_average_pooling_and_heads():
    torch.manual_seed(0)
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2, "n_t": 32}
    sizes = {
        "encoder": {**small, "ds_rate": 2},
        "projector": {"proj_name": "transformerprojector", "d_in": 80, "d_out": 16},
        "lm": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 32,
            "head_dim": 8,
        },
    }
    model = oracle.build_tinymu(sizes)
    waveform = 0.1 * torch.randn(2, 12_000)  # 73 frames: chunks of 32, 32 and 16, 5 vectors
    vectors = model.audio_encoder.enc(waveform)
    assert vectors.shape == (2, 5, 80)
    pooled = model.audio_encoder(waveform)
    torch.testing.assert_close(pooled, (vectors[:, 0:4:2] + vectors[:, 1:4:2]) / 2)
    embeds, mask = model.prefix(waveform, [[5, 6], [7]])
    assert embeds.shape == (2, 32 + 130, 16)
    assert mask.sum(dim=1).tolist() == [32 + 1 + 2, 32 + 1 + 1]

    tagger = oracle.Matpac(**small, audioset_head=True).eval()
    tagger.head_norm.running_mean.normal_()
    tagger.head_norm.running_var.uniform_(0.5, 2)
    clip = tagger(waveform).reshape(2, 5, 5, 16).mean(dim=(1, 2))
    norm = (clip - tagger.head_norm.running_mean) / (tagger.head_norm.running_var + 1e-5).sqrt()
    expected = (norm @ tagger.head.weight.T + tagger.head.bias).softmax(dim=-1)
    torch.testing.assert_close(tagger.class_probabilities(waveform), expected)
    assert {k for k in tagger.state_dict() if k.startswith("head")} == {
        "head_norm.running_mean",
        "head_norm.running_var",
        "head_norm.num_batches_tracked",
        "head.weight",
        "head.bias",
    }

    probe = oracle.Matpac(**small, probe_classes=7).eval()
    expected = probe.probe(probe(waveform).mean(dim=1)).softmax(dim=-1)
    torch.testing.assert_close(probe.class_probabilities(waveform), expected)
