"""Decoding, resampling and the log-mel front end, and refused input."""

import tracemalloc

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile
import torch
from jaxtyping import TypeCheckError
from oracles import torch_modules as oracle

import tinymu_jax
from tinymu_jax.audio.load import as_clip, is_one_recording, load_audio, read_clip
from tinymu_jax.audio.log_mel import (
    column_samples,
    hann_window,
    log_mel,
    mel_filterbank,
    num_frames,
)
from tinymu_jax.audio.resample import RESAMPLERS, resample
from tinymu_jax.errors import InputError
from tinymu_jax.inference.chunked_encoding import encode_clips

RATES = [8000, 11025, 22050, 32000, 44100, 48000, 88200, 96000]


def noise(length, seed=0, scale=0.1):
    return (scale * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def tone(hertz, rate, seconds):
    time = np.arange(int(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


# --- resampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_resamples_as_torchaudio(rate):
    samples = noise(int(0.31 * rate))
    expected = oracle.resample(torch.from_numpy(samples), rate).numpy()
    made = resample(samples, rate)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)


def test_resamples_an_awkward_rate():
    rate, samples = 44_099, noise(9001)
    made = resample(samples, rate)
    assert len(made) == 3266  # 9001 * 16000 / 44099 = 3265.7

    # The sum of the windowed sincs in float64, for some outputs. Output m lies in block m // 16000
    # of 44099 input samples; its offset in the block is a float32 quotient in torchaudio.
    cutoff = 0.99 * 16_000
    for m in (0, 1, 2, 777, 1632, 3000, 3264, 3265):
        block, phase = divmod(m, 16_000)
        offset = float(np.float32(phase) / np.float32(16_000))
        time = (np.arange(len(samples)) / rate - (block + offset)) * cutoff
        inside = np.abs(time) < 6
        weights = np.sinc(time) * np.cos(time * np.pi / 12) ** 2 * (cutoff / rate)
        expected = (samples.astype(np.float64) * weights)[inside].sum()
        np.testing.assert_allclose(made[m], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44_099, 44_100])
def test_resampling_keeps_a_tone(rate):
    made = resample(tone(440, rate, 0.5), rate)
    assert len(made) == 8000
    np.testing.assert_allclose(made[200:-200], tone(440, 16_000, 0.5)[200:-200], atol=5e-3)


@pytest.mark.parametrize(
    ("samples", "length"), [(180_696, 65_559), (180_697, 65_559), (180_698, 65_560)]
)
def test_length_is_the_ceiling_of_a_float32(samples, length):
    # 180,697 * 160 / 441 lies just above 65,559; as a float32 it does not.
    assert len(resample(np.zeros(samples, np.float32), 44_100)) == length


# --- reading -------------------------------------------------------------------------------------


def test_16_khz_is_untouched(tmp_path):
    samples = noise(5000)
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path), samples)
    assert resample(samples, 16_000) is samples


@pytest.mark.parametrize("rate", [44_100, 48_000, 22_050, 8_000])
def test_resamples_as_torchaudio_with_a_kaiser_window(rate):
    samples = noise(rate)
    beta = 14.769656459379492
    expected = oracle.resample(
        torch.from_numpy(samples), rate, 16_000, 64, 0.9475937167399596, beta
    )
    made = resample(samples, rate, resampler=RESAMPLERS["kaiser-best"])
    np.testing.assert_allclose(made, expected.numpy(), rtol=0, atol=1e-6)


def test_mean_of_channels(tmp_path):
    path = tmp_path / "stereo.wav"
    both = np.stack([noise(16_000), noise(16_000) / 2], axis=1)
    soundfile.write(path, both, 16_000, subtype="FLOAT")
    made = read_clip(path, mono="mean").samples
    np.testing.assert_array_equal(made, (both[:, 0] + both[:, 1]) / 2)


def test_first_channel_is_read(tmp_path):
    first, second = noise(5000, 1), noise(5000, 2)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([first, second], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path), first)


def test_crop_comes_before_resampling(tmp_path):
    rate, samples = 44_100, noise(44_100)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    made = load_audio(path, max_seconds=0.51234)
    np.testing.assert_array_equal(made, resample(samples[: int(0.51234 * rate)], rate))
    late = resample(samples, rate)[: len(made)]
    assert np.abs(made - late).max() > 1e-3


def test_everything_is_read_without_a_crop(tmp_path):
    samples = noise(200_000)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    assert len(load_audio(path)) == 160_000
    np.testing.assert_array_equal(load_audio(path, max_seconds=None), samples)


def test_a_clip_has_its_encoded_and_total_seconds(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(36_000), 8000)
    clip = read_clip(path, max_seconds=2.5)
    assert (clip.encoded_seconds, clip.total_seconds) == (2.5, 4.5)
    assert len(clip.samples) == 40_000
    clip = as_clip(noise(36_000), max_seconds=1.5)
    assert (clip.encoded_seconds, clip.total_seconds) == (1.5, 2.25)
    assert len(clip.samples) == 24_000


def test_short_clips_become_silence_on_request_only(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, noise(1599), 8000)
    assert len(load_audio(path)) == 3198
    np.testing.assert_array_equal(
        load_audio(path, silence_if_short=True), np.zeros(160_000, np.float32)
    )
    soundfile.write(path, noise(1600), 8000)
    assert len(load_audio(path, silence_if_short=True)) == 3200


@pytest.mark.parametrize(
    ("ending", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)]
)
def test_reads_every_format(tmp_path, ending, tolerance):
    samples = tone(440, 32_000, 1) + 0.5 * tone(1333, 32_000, 1)
    path = tmp_path / f"clip.{ending}"
    soundfile.write(path, samples, 32_000)
    made, expected = load_audio(path), resample(samples, 32_000)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made[500:-500], expected[500:-500], rtol=0, atol=tolerance)


def test_arrays_are_taken_as_samples():
    samples = noise(5000)
    for array in (samples, samples.astype(np.float64)):
        made = as_clip(array).samples
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made, samples)


STEREO = np.stack([noise(8820), noise(8820)[::-1]], axis=1)
INT16 = np.round(STEREO * 32768).astype(np.int16)
WITH_RATE = {
    "rate and samples": (44_100, STEREO[:, 0]),
    "samples and rate": (STEREO[:, 0].astype(np.float64), 44_100),
    "(n, channels)": (44_100, STEREO),
    "(channels, n)": (STEREO.T, 44_100),
    "datasets": {"path": None, "array": STEREO[:, 0], "sampling_rate": 44_100},
    "no array": {"array": None, "raw": STEREO[:, 0], "sampling_rate": 44_100},
    "transformers": {"raw": STEREO[:, 0], "sampling_rate": np.int64(44_100)},
    "list": {"array": STEREO[:, 0].tolist(), "sampling_rate": 44_100.0},
    "rate as an array": (np.array(44_100), STEREO[:, 0]),
    "rate as a tensor": (STEREO[:, 0], torch.tensor(44_100)),
    "torch with a gradient": (44_100, torch.from_numpy(STEREO.T.copy()).requires_grad_()),
    "torch": (torch.from_numpy(STEREO.T.copy()), 44_100),
    "int16": (44_100, INT16[:, 0]),
    "int16 (n, channels)": (44_100, INT16),
    "int32": (44_100, INT16.astype(np.int32) * 65_536),
    "uint8": (44_100, np.round(STEREO * 128 + 128).astype(np.uint8)),
}


@pytest.mark.parametrize("name", WITH_RATE)
def test_samples_with_a_rate_are_resampled(name):
    audio = WITH_RATE[name]
    assert is_one_recording(audio)
    clip = as_clip(audio, max_seconds=0.15)
    expected = resample(STEREO[: int(0.15 * 44_100), 0], 44_100)
    step = {"int16": 2**-15, "int16 (n, channels)": 2**-15, "int32": 2**-15, "uint8": 2**-7}
    np.testing.assert_allclose(clip.samples, expected, rtol=0, atol=1.5 * step.get(name, 0))
    assert (clip.encoded_seconds, clip.total_seconds) == (pytest.approx(0.15), 0.2)


def test_a_file_may_be_given_as_path_and_bytes(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, STEREO, 44_100)
    expected = load_audio(path)
    for audio in (
        path.read_bytes(),
        {"path": "elsewhere.mp3", "bytes": path.read_bytes()},
        {"path": str(path), "bytes": None},
        {"path": str(path)},
        {"path": str(path), "array": None, "sampling_rate": None},
        bytearray(path.read_bytes()),
        {"bytes": memoryview(path.read_bytes())},
    ):
        assert is_one_recording(audio)
        np.testing.assert_array_equal(as_clip(audio).samples, expected)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    soundfile.write(tmp_path / "a.wav", noise(800), 16_000)
    assert as_clip("~/a.wav").samples.shape == (800,)
    with pytest.raises(InputError, match=f"{tmp_path}/none: no such file or folder"):
        tinymu_jax.load("~/none")


@pytest.mark.parametrize(
    ("audio", "prompt", "message"),
    [
        (None, "What?", "None is not a recording: give a recording, or a list"),
        (3, "What?", "3 is not a recording"),
        (noise(800), None, "None is not a prompt: give a prompt, or a list"),
        (noise(800), b"What?", "give a text, or a list of texts"),
        ([noise(800)], [None], "give a text, or a list of texts"),
    ],
)
def test_an_assistant_refuses_other_types(assistant, audio, prompt, message):
    with pytest.raises(InputError, match=message):
        assistant.ask(audio, prompt)


def test_an_assistant_takes_all_forms(assistant, tmp_path):
    samples = noise(8000)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    forms = [samples, (16_000, samples), {"array": samples, "sampling_rate": 16_000}]
    forms += [tmp_path / "a.wav", (tmp_path / "a.wav").read_bytes()]
    first, *others = assistant.audio_cache.encode(forms)
    for other in others:
        np.testing.assert_array_equal(other.vectors, first.vectors)
    with pytest.raises(InputError, match="less than one window"):
        assistant.ask((16_000, samples[:9]), "t1")


def test_an_encoder_that_gives_nan_is_an_error(assistant):
    broken = jax.tree.map(lambda x: x * jnp.nan, assistant.params["encoder"])
    with pytest.raises(InputError, match="gives NaN or infinity for clip 1 of 1; check"):
        encode_clips(broken, [noise(8000)], assistant.config.encoder)


# --- resampling in parts --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESAMPLERS)
@pytest.mark.parametrize("rate", [8000, 15_991, 44_100])
def test_kernels_computed_in_parts_are_the_same(monkeypatch, name, rate):
    samples = noise(3000)
    expected = resample(samples, rate, resampler=RESAMPLERS[name])
    monkeypatch.setattr("tinymu_jax.audio.resample.MAX_TABLE", 0)
    made = resample(samples, rate, resampler=RESAMPLERS[name])
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("name", "seconds"), [("torchaudio", 0.1), ("kaiser-best", 0.03)])
def test_rates_without_common_factors_take_little_memory(name, seconds):
    rate = 767_957
    samples = tone(440, rate, seconds)
    tracemalloc.start()
    made = resample(samples, rate, resampler=RESAMPLERS[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    middle = slice(150, -150)
    expected = tone(440, 16_000, seconds)[: len(made)]
    np.testing.assert_allclose(made[middle], expected[middle], rtol=0, atol=2e-3)


# --- what is refused -----------------------------------------------------------------------------


def cut_file(path, share, seconds=3.0):
    """Writes a recording in the path's format, truncated to a fraction of its bytes."""
    soundfile.write(path, noise(int(16_000 * seconds)), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def write_rate(path, rate):
    """Writes a wav with a given sample rate in its header."""
    soundfile.write(path, noise(1600), 16_000)
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(bytes(content))


FILES = {
    "no_rate.wav": (lambda path: write_rate(path, 0), "(sample rate of 0|cannot be decoded)"),
    "slow.wav": (
        lambda path: write_rate(path, 10),
        "has a sample rate of 10, accepted are 1000 to",
    ),
    "fast.wav": (lambda path: write_rate(path, 2**31 - 1), "sample rate of 2147483647, accepted"),
    f"{'long' * 60}.wav": (lambda path: None, "no such file; check the path"),
    "missing.wav": (lambda path: None, "no such file; check the path"),
    "folder.wav": (lambda path: path.mkdir(), "is a folder; name the recordings"),
    "empty.wav": (lambda path: path.write_bytes(b""), "is empty; replace"),
    "text.wav": (lambda path: path.write_text("no\nsound\n" * 300), "is text, not a recording"),
    "header_only.wav": (
        lambda path: soundfile.write(path, np.zeros(0, np.float32), 16_000),
        "has no samples; replace",
    ),
    "cut_in_its_header.wav": (lambda path: cut_file(path, 0.0003), "cannot be decoded; convert"),
    "cut.flac": (lambda path: cut_file(path, 0.5), "damaged after 1.0 s of 3.0 s; replace"),
    "cut_in_its_header.flac": (lambda path: cut_file(path, 0.001), "cannot be decoded; convert"),
    "cut_in_its_header.ogg": (lambda path: cut_file(path, 0.02), "cannot be decoded; convert"),
    "cut_in_its_first_page.ogg": (
        lambda path: cut_file(path, 0.7, seconds=0.2),
        "(has no samples|cannot be decoded); ",
    ),
    "cut_in_its_first_frame.mp3": (lambda path: cut_file(path, 0.01), "cannot be decoded; convert"),
    "short.wav": (
        lambda path: soundfile.write(path, noise(399), 16_000),
        "399 samples .* less than one window of 400 .*; give a longer",
    ),
    "short_at_its_rate.wav": (
        lambda path: soundfile.write(path, noise(1100), 48_000),
        "367 samples at 16 kHz .*; give a longer",
    ),
    "loud.wav": (
        lambda path: soundfile.write(path, 32_768 * noise(800), 16_000, subtype="FLOAT"),
        r"samples of up to \d+\.?\d*, and full scale is 1; divide",
    ),
    "infinite.wav": (
        lambda path: soundfile.write(path, np.full(8000, np.inf), 44_100, subtype="DOUBLE"),
        "NaN or infinite samples; repair",
    ),
    "nan.wav": (
        lambda path: soundfile.write(path, np.full(800, np.nan), 16_000, subtype="FLOAT"),
        "NaN or infinite samples; repair",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_refuses_a_file_in_one_line_with_its_name_and_a_remedy(tmp_path, name):
    make, message = FILES[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        load_audio(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


ARRAYS = {
    "399 samples": (noise(399), "399 samples .* window of 400 .*; give a longer"),
    "nothing": (noise(0), "0 samples .*; give a longer"),
    "NaN": (np.where(np.arange(800) == 5, np.nan, noise(800)), "NaN or infinite samples; repair"),
    "infinity": (np.where(np.arange(800) == 5, np.inf, noise(800)), "NaN or infinite .*; repair"),
    "two channels": (noise(1600).reshape(2, 800), r"shape \(2, 800\) .*: give one channel"),
    "one number": (np.array(1.0), r"shape \(\) .*: give one channel"),
    "int16": (np.zeros(800, np.int16), "type int16: give .* samples / 32768"),
    "int16 as floats": (
        1000 * noise(8000),
        r"samples of up to \d+\.?\d*, and full scale is 1; divide",
    ),
    "far too loud": (np.full(800, 1e300), r"up to 1e\+300, and full scale is 1"),
    "only quiet": (np.full(800, -8.5), "up to 8.5, and full scale is 1"),
    "text": (np.array(["a"] * 800), "type <U1: give one channel"),
    "no rate": ({"array": noise(800)}, "an array and no sampling_rate"),
    "other keys": ({"audio": noise(800), "sr": 1}, "has the keys audio, sr: give array and"),
    "a strange rate": ((4, noise(800)), "sample rate of 4, accepted are"),
    "half a rate": ((44_100.5, noise(800)), "sample rate of 44100.5: give a whole number"),
    "an infinite rate": ((float("inf"), noise(800)), "sample rate of inf, accepted are"),
    "no number as rate": ((noise(800), np.float32("nan")), "sample rate of nan, accepted are"),
    "a huge rate": ({"array": noise(800), "sampling_rate": 10**400}, "accepted are 1000 to"),
    "three axes": ((16_000, np.zeros((2, 2, 800))), r"shape \(2, 2, 800\)"),
    "bool with a rate": ((16_000, np.zeros(800, bool)), "type bool"),
    "int64": ((16_000, np.zeros(800, int)), "type int64, whose full scale is unknown: give"),
    "integers in a list": ({"array": [0] * 800, "sampling_rate": 16_000}, "type int64, whose"),
    "no samples of 0 channels": ((16_000, np.zeros((800, 0))), "0 samples at 16 kHz"),
    "channels without samples": ((16_000, np.zeros((0, 2))), "0 samples at 16 kHz"),
    "channels of other lengths": ((16_000, [[0.0, 0.1], [0.2]]), "type list is no array"),
    "a rate as text": (("16000", noise(800)), "type tuple is no array"),
    "bfloat16": ((16_000, torch.zeros(800).bfloat16()), "type Tensor is no array"),
    "a number as path": ({"path": 5}, "has the keys path: give array"),
    "a text as bytes": ({"bytes": "abc"}, "has the keys bytes: give array"),
    "a number as bytes": ({"bytes": 10**12}, "has the keys bytes: give array"),
    "complex": (np.zeros(800, complex), "type complex128: give one channel"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ARRAYS)
def test_refuses_an_array_in_one_line_with_a_remedy(name):
    array, message = ARRAYS[name]
    with pytest.raises(InputError, match=message) as caught:
        as_clip(array)
    assert str(caught.value).startswith("audio ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("max_seconds", [0.0, -0.5, 0.02, float("nan")])
@pytest.mark.parametrize("kind", ["file", "array"])
def test_refuses_less_than_a_window(tmp_path, kind, max_seconds):
    recording = noise(20_000)
    if kind == "file":
        recording = tmp_path / "clip.wav"
        soundfile.write(recording, noise(20_000), 16_000)
    with pytest.raises(InputError, match="one window"):
        as_clip(recording, max_seconds)


def test_decoders_print_nothing(tmp_path, capfd):
    path = tmp_path / "cut.mp3"
    cut_file(path, 0.01)
    with pytest.raises(InputError):
        load_audio(path)
    assert capfd.readouterr() == ("", "")


def test_exactly_one_window_is_enough(tmp_path):
    path = tmp_path / "window.wav"
    soundfile.write(path, noise(400), 16_000)
    assert log_mel(jnp.asarray(load_audio(path))).shape == (1, 80)


# --- log-mel -------------------------------------------------------------------------------------

SOUNDS = {
    "noise": noise(16_000),
    "loud noise": noise(16_000, scale=1.0),
    "silence": np.zeros(16_000, np.float32),
    "sine": tone(440, 16_000, 1),
    "sine in noise": tone(3000, 16_000, 1) + noise(16_000, scale=0.01),
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_log_mel_matches_the_published_one(sound):
    expected = oracle.LogMel()(torch.from_numpy(SOUNDS[sound])[None])[0].T
    made = log_mel(jnp.asarray(SOUNDS[sound]))
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)


def test_log_mel_of_silence():
    expected = (np.log(2.0**-23) + 7.056) / 4.193
    np.testing.assert_allclose(log_mel(jnp.zeros(400)), expected, rtol=1e-6)


def test_log_mel_of_a_batch():
    clips = np.stack([noise(4000, seed) for seed in range(6)]).reshape(2, 3, 4000)
    made = log_mel(jnp.asarray(clips))
    assert made.shape == (2, 3, 23, 80)
    for i in range(2):
        for j in range(3):
            alone = log_mel(jnp.asarray(clips[i, j]))
            np.testing.assert_allclose(made[i, j], alone, rtol=0, atol=1e-5)


def test_log_mel_compiles():
    samples = jnp.asarray(noise(4000))
    made = jax.jit(log_mel)(samples)
    np.testing.assert_allclose(made, log_mel(samples), rtol=0, atol=1e-5)


def test_log_mel_takes_the_tables_of_a_checkpoint():
    samples = jnp.asarray(noise(4000))
    window = jnp.asarray(hann_window())
    filterbank = jnp.asarray(mel_filterbank())
    made = log_mel(samples, 2 * window, 3 * filterbank)
    power = np.exp(np.asarray(log_mel(samples), np.float64) * 4.193 - 7.056) - 2.0**-23
    expected = (np.log(12 * power + 2.0**-23) + 7.056) / 4.193
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [400, 559, 560, 719, 720, 16_000, 51_200, 160_000])
def test_number_of_frames(samples):
    frames = len(np.lib.stride_tricks.sliding_window_view(np.zeros(samples), 400)[::160])
    assert num_frames(samples) == frames
    shape = jax.eval_shape(log_mel, jax.ShapeDtypeStruct((samples,), jnp.float32)).shape
    assert shape == (frames, 80)


def test_ten_seconds_are_998_frames():
    assert num_frames(160_000) == 998


@pytest.mark.parametrize("frames", [1, 2, 16, 992])
def test_column_samples_give_exactly_their_frames(frames):
    samples = column_samples(frames)
    assert num_frames(samples) == frames
    assert num_frames(samples - 1) == frames - 1


def test_filterbank_matches_librosa_and_the_published_one(golden_checkpoint):
    made = mel_filterbank()
    expected = librosa.filters.mel(
        sr=16_000, n_fft=400, n_mels=80, fmin=50, fmax=8000, htk=False, norm="slaney"
    ).T
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(made, oracle.mel_filters().numpy())
    stored = golden_checkpoint.params["encoder"]["log_mel"]["filterbank"]
    np.testing.assert_array_equal(made, stored)


def test_window_matches_torch():
    expected = torch.hann_window(400).numpy()
    np.testing.assert_allclose(hann_window(), expected, rtol=0, atol=1e-7)


def test_shapes_of_signatures_are_enforced_in_tests():
    with pytest.raises(TypeCheckError, match="filterbank"):
        log_mel(jnp.zeros(400), filterbank=jnp.zeros((200, 80)))
