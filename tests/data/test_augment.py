"""Augmentation: measured effects, and reproducibility over steps and processes."""

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest
import soundfile
from helpers import noise, refusal
from tokenizer_fixture import tokenizer_text

from tinymu_jax.data import augment as augmenting
from tinymu_jax.data.augment import (
    augment,
    augment_stored,
    clip_rng,
    crop,
    max_columns,
    shift_pitch,
    stretch,
)
from tinymu_jax.data.config import AugmentConfig, FeatureConfig, PrepareConfig
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.loader import PackedBatches, iterate
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.sampler import make_groups, make_plan
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training.encode_features import encode_features

RATE = 16_000
EFFECTS = ("polarity", "noise", "gain", "stretch", "pitch")
PACKING = PackingConfig(row_length=200, rows=2, max_clips=3, max_labels=40, buffer_size=6)
SECONDS = [3.5, 0.7, 2.0, 2.01, 9.0]
HEARD = 2.0


def only(*effects, **values):
    """Returns a config in which some effects always happen and the others never."""
    chances = {f"{name}_probability": float(name in effects) for name in EFFECTS}
    return AugmentConfig(**({"enabled": True, "crop": False} | chances | values))


def rng(number=0):
    return clip_rng(0, 0, number)


def sine(hertz, seconds=2.0):
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def loudest_hertz(samples):
    """Returns the frequency of a sine, in between the bins of its spectrum."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * len(middle)))
    return spectrum.argmax() * RATE / (8 * len(middle))


# --- the effects -------------------------------------------------------------------------------


def test_polarity_inverts_the_sign():
    samples = noise(4000)
    np.testing.assert_array_equal(augment(samples, rng(), only("polarity")), -samples)


def test_noise_is_gaussian_within_its_range():
    samples, levels = noise(8000), []
    for number in range(100):
        added = augment(samples, rng(number), only("noise")) - samples
        levels.append(added.std())
        assert abs(np.mean((added / added.std()) ** 4) - 3) < 0.5
    assert 0.00098 < min(levels) < 0.0012
    assert 0.0048 < max(levels) < 0.0051
    assert np.mean(levels) == pytest.approx(0.003, rel=0.12)


def test_gain_is_one_factor_within_its_range():
    samples, decibels = noise(4000), []
    for number in range(100):
        changed = augment(samples, rng(number), only("gain"))
        decibels.append(10 * np.log10(np.sum(changed**2) / np.sum(samples**2)))
        factor = 10 ** (decibels[-1] / 20)
        np.testing.assert_allclose(changed, samples * factor, rtol=1e-4)
    assert -6 <= min(decibels) < -5.5
    assert 5.5 < max(decibels) <= 6
    assert abs(np.mean(decibels)) < 1.2


def test_noise_comes_before_gain():
    silence = np.zeros(8000, np.float32)
    config = only("noise", "gain", noise_min=0.004, noise_max=0.004)
    levels = [augment(silence, rng(number), config).std() for number in range(20)]
    assert np.ptp(20 * np.log10(levels)) > 6


@pytest.mark.parametrize("rate", [0.95, 1.05])
def test_stretch_changes_the_tempo_and_keeps_pitch_and_length(rate):
    time = np.arange(10 * RATE) / RATE
    beats = np.arange(1.0, 10.0)
    loudness = np.exp(-0.5 * ((time[:, None] - beats) / 0.1) ** 2).sum(axis=1)
    changed = stretch((loudness * noise(len(time))).astype(np.float32), rate)
    assert len(changed) == len(time)
    beats, result = beats[beats / rate < 9.5], []
    for beat in beats / rate:
        near = np.abs(time - beat) < 0.4
        result.append(np.average(time[near], weights=changed[near] ** 2))
    np.testing.assert_allclose(result, beats / rate, rtol=0, atol=0.02)
    assert np.polyfit(beats, result, 1)[0] == pytest.approx(1 / rate, rel=2e-3)
    assert loudest_hertz(stretch(sine(440.0), rate)) == pytest.approx(440, abs=0.5)


def test_the_end_of_a_faster_clip_is_silent():
    changed = stretch(sine(440.0), 1.05)
    end = round(len(changed) / 1.05)
    assert not changed[end:].any()
    assert changed[end - 800 : end].any()


@pytest.mark.parametrize("semitones", [-2.0, -0.7, 1.3, 2.0])
def test_pitch_changes_by_semitones_and_the_tempo_stays(semitones):
    samples = sine(440.0)
    samples[RATE:] *= 0.2
    changed = shift_pitch(samples, semitones)
    assert len(changed) == len(samples)
    expected = 440 * 2 ** (semitones / 12)
    assert loudest_hertz(changed) == pytest.approx(expected, rel=2e-3)
    energy = np.convolve(changed**2, np.ones(400) / 400, "same")
    falls = np.flatnonzero(energy[800:-800] < 0.5 * energy[RATE // 2]) + 800
    assert falls[0] / RATE == pytest.approx(1.0, abs=0.05)


def test_ranges_of_tempo_and_pitch_are_the_configs(monkeypatch):
    drawn = {"stretch": [], "shift_pitch": []}
    for name, values in drawn.items():
        monkeypatch.setattr(augmenting, name, lambda x, value, v=values: v.append(value) or x)
    for number in range(300):
        augment(noise(400), rng(number), only("stretch", "pitch"))
    for values, low, high in ((drawn["stretch"], 0.95, 1.05), (drawn["shift_pitch"], -2, 2)):
        width = high - low
        assert low <= min(values) < low + 0.03 * width
        assert high - 0.03 * width < max(values) <= high


def test_effects_have_the_published_order_and_probabilities(monkeypatch):
    counts, orders = dict.fromkeys(EFFECTS, 0), set()
    names = {"noise": "add_noise", "gain": "gain", "stretch": "stretch", "pitch": "shift_pitch"}
    happened = []
    for effect, name in names.items():
        marked = lambda x, *rest, effect=effect: happened.append(effect) or x  # noqa: E731
        monkeypatch.setattr(augmenting, name, marked)
    runs, ones = 4000, np.ones(400, np.float32)
    for number in range(runs):
        happened.clear()
        counts["polarity"] += int(augment(ones, rng(number), AugmentConfig())[0] < 0)
        for effect in happened:
            counts[effect] += 1
        orders.add(tuple(happened))
    expected = {"polarity": 0.3, "noise": 0.3, "gain": 0.5, "stretch": 0.5, "pitch": 0.5}
    assert {name: count / runs for name, count in counts.items()} == pytest.approx(
        expected, abs=0.035
    )
    assert len(orders) == 16
    assert all(list(order) == [name for name in names if name in order] for order in orders)


def test_zero_probabilities_change_nothing():
    samples = noise(RATE)
    np.testing.assert_array_equal(augment(samples, rng(), only()), samples)
    stored = np.random.default_rng(0).integers(-32768, 32768, RATE).astype(np.int16)
    np.testing.assert_array_equal(augment_stored(stored, rng(), only(), RATE), stored)


def test_overflow_is_clipped():
    stored = np.array([-32768, 32767] * 1000, np.int16)
    turned = augment_stored(stored, rng(), only("polarity"), RATE)
    np.testing.assert_array_equal(turned, np.array([32767, -32767] * 1000))
    changed = [augment_stored(stored, rng(n), only("gain"), RATE) for n in range(10)]
    assert all((np.sign(x) == np.sign(stored)).all() for x in changed)
    assert any(x.max() == 32767 and x.min() == -32768 for x in changed)


@pytest.mark.parametrize("length", [400, 1000, 2047, 2048, 9999])
def test_any_clip_keeps_its_length_and_stays_finite(length):
    for samples in (noise(length), np.zeros(length, np.float32)):
        for number in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                changed = augment(samples, rng(number), only(*EFFECTS))
            assert changed.shape == samples.shape
            assert changed.dtype == np.float32
            assert np.isfinite(changed).all()


def test_every_field_changes_something():
    base = only(*EFFECTS, crop=True, noise_min=0.01, noise_max=0.02)
    values = {"crop": False, "noise_min": 0.015, "noise_max": 0.03, "gain_db": 3.0}
    values |= {"stretch_min": 0.99, "stretch_max": 1.2, "semitones": 1.0}
    values |= {f"{name}_probability": 0.0 for name in EFFECTS}
    assert {*values, "enabled"} == {field.name for field in dataclasses.fields(AugmentConfig)}
    stored = (noise(6000) * 32768).astype(np.int16)
    expected = augment_stored(stored, rng(), base, 5000)
    for name, value in values.items():
        config = dataclasses.replace(base, **{name: value})
        assert not np.array_equal(augment_stored(stored, rng(), config, 5000), expected), name


# --- the crop ----------------------------------------------------------------------------------


def test_crops_start_anywhere():
    samples = np.arange(12)
    starts = set()
    for number in range(200):
        result = crop(samples, rng(number), 9)
        np.testing.assert_array_equal(result, result[0] + np.arange(9))
        starts.add(int(result[0]))
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize("length", [9, 10])
def test_short_clips_are_not_cropped(length):
    np.testing.assert_array_equal(crop(np.arange(9), rng(), length), np.arange(9))


# --- in a run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Five clips with one or two questions each, of which at most 4 s are kept."""
    folder = tmp_path_factory.mktemp("recordings")
    records = []
    for number, seconds in enumerate(SECONDS):
        soundfile.write(folder / f"{number}.wav", noise(int(seconds * RATE)), RATE)
        for question in range(1 + number % 2):
            texts = {"input_text": f"Question {question}", "target_text": "the trumpet plays"}
            name = {"file_name": f"{number}.wav", "dataset": "Made", "task": "QA"}
            records.append(texts | name)
    (folder / "list.json").write_text(json.dumps(records))
    made = {}
    for store in ("waveform", "log_mel"):
        output = tmp_path_factory.mktemp(store)
        config = PrepareConfig(FeatureConfig(store, max_seconds=4.0), workers=1)
        prepare([folder / "list.json"], [folder], output, tokenizer_text(), config)
        made[store] = Dataset(output)
    return made


@pytest.fixture(scope="module")
def model(golden_checkpoint):
    """Sizes of a model that hears less than what is stored."""
    return dataclasses.replace(golden_checkpoint.config, max_seconds=HEARD)


QUICK = only("polarity", "noise", "gain", crop=True)


def make_batches(dataset, model, augment=QUICK, blocks=1, part=None, seed=0):
    lengths = dataset.lengths(model, max_columns(dataset, model, augment))
    plan = make_plan(make_groups(lengths, PACKING, model), PACKING, 0, epochs=3)
    return PackedBatches(dataset, plan, PACKING, model, blocks, part, augment, seed)


def assert_same(result, expected):
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def encoded(batches):
    """Yields record and samples of every clip of a run."""
    for step in range(len(batches)):
        batch = batches[step]
        for place in np.argwhere(batch.records >= 0):
            at = tuple(place)
            yield int(batch.records[at]), batch.features[at][: batch.lengths[at]]


def test_the_default_does_not_augment(datasets, model):
    dataset = datasets["waveform"]
    for record, samples in encoded(make_batches(dataset, model, AugmentConfig())):
        np.testing.assert_array_equal(samples, dataset[record].features)


def test_clips_are_crops_of_stored_ones(datasets, model):
    dataset, seen = datasets["waveform"], set()
    for record, samples in encoded(make_batches(dataset, model, only(crop=True))):
        stored = dataset[record].features
        assert len(samples) == min(len(stored), HEARD * RATE)
        starts = [
            start
            for start in np.flatnonzero(stored == samples[0])
            if np.array_equal(stored[start : start + len(samples)], samples)
        ]
        assert len(starts) == 1
        seen.add((record, int(starts[0])))
    assert len({start for record, start in seen if record == 4}) > 1


def test_a_clip_is_never_augmented_the_same_way_twice(datasets, model):
    clips = [samples.tobytes() for _, samples in encoded(make_batches(datasets["waveform"], model))]
    assert len(clips) > len(SECONDS)
    assert len(set(clips)) == len(clips)


def test_clips_of_a_block_are_augmented_independently(datasets, model):
    dataset, factors = datasets["waveform"], []
    for record, samples in encoded(make_batches(dataset, model, only("gain"))):
        stored = dataset[record].features.astype(np.float64)
        factors.append(round(samples @ stored / (stored @ stored), 4))
    assert len(set(factors)) == len(factors)


def test_resuming_at_a_step_repeats_the_augmentation(datasets, model):
    config = only(*EFFECTS, crop=True)
    batches = make_batches(datasets["waveform"], model, config)
    later = list(iterate(make_batches(datasets["waveform"], model, config), start=2, threads=2))
    assert len(later) == len(batches) - 2 > 0
    for offset, batch in enumerate(later):
        assert_same(batch, batches[2 + offset])


def test_another_seed_augments_differently(datasets, model):
    one, two = (make_batches(datasets["waveform"], model, seed=seed)[0] for seed in (0, 1))
    assert_same(one._replace(features=0), two._replace(features=0))
    for a, b in zip(one.features[one.records >= 0], two.features[two.records >= 0], strict=True):
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("parts", [[[0], [1], [2]], [[0, 1], [2]]])
def test_augmentation_does_not_depend_on_the_number_of_processes(datasets, model, parts):
    dataset = datasets["waveform"]
    whole = make_batches(dataset, model, blocks=3)
    shares = [make_batches(dataset, model, blocks=3, part=part) for part in parts]
    for step in range(len(whole)):
        joined = jax.tree.map(lambda *x: np.concatenate(x), *(share[step] for share in shares))
        assert_same(joined, whole[step])


def test_augmentation_does_not_depend_on_the_blocks_per_step(datasets, model):
    dataset = datasets["waveform"]
    singles, pairs = (make_batches(dataset, model, blocks=blocks) for blocks in (1, 2))
    for step in range(len(singles)):
        pair = jax.tree.map(lambda x: x[step % 2], pairs[step // 2])  # noqa: B023
        assert_same(pair, jax.tree.map(lambda x: x[0], singles[step]))


def test_positions_are_augmented_independently():
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (0, 2, 0)]
    drawn = {clip_rng(*place).random() for place in places}
    assert len(drawn) == len(places)
    assert not drawn & {np.random.default_rng([0, epoch]).random() for epoch in range(3)}


@pytest.mark.parametrize("crops", [True, False])
def test_planned_lengths_match_the_encoded_ones(datasets, model, golden_checkpoint, crops):
    dataset, config = datasets["waveform"], dataclasses.replace(QUICK, crop=crops)
    cap = max_columns(dataset, model, config)
    # 2 s are 198 frames, 13 columns of 16; 4 s are 398, 25 columns.
    assert cap == (13 if crops else None)
    planned = dataset.lengths(model, cap).audio
    assert planned.max() == (13 if crops else 25)
    hear = jax.jit(encode_features, static_argnums=(3, 4))
    encoder = golden_checkpoint.params["encoder"]
    batches = make_batches(dataset, model, config)
    for step in range(len(batches)):
        batch = batches[step]
        vectors, counts = hear(
            encoder, batch.features[0], batch.lengths[0], "waveform", model.encoder
        )
        assert np.isfinite(vectors).all()
        clips = batch.blocks.rows.clip[0]
        for clip, record in enumerate(batch.records[0]):
            if record >= 0:
                assert counts[clip] == planned[record]
                assert (clips == clip).sum() % planned[record] == 0
                assert (clips == clip).any()


# --- refusals ----------------------------------------------------------------------------------


def test_only_waveforms_are_augmented(datasets, model):
    dataset = datasets["log_mel"]
    make_batches(dataset, model, AugmentConfig())
    plan = make_batches(dataset, model, AugmentConfig()).plan
    message = refusal(PackedBatches, dataset, plan, PACKING, model, 1, None, QUICK)
    assert message == (
        f"{dataset.folder}: stores log_mel, and only waveforms can be augmented; "
        "prepare it with --features waveform or turn augmentation off"
    )


@pytest.mark.parametrize("seconds", [4.0, 10.0])
def test_crops_need_longer_clips(datasets, model, seconds):
    dataset, longer = datasets["waveform"], dataclasses.replace(model, max_seconds=seconds)
    plan = make_batches(dataset, longer, AugmentConfig()).plan
    message = refusal(PackedBatches, dataset, plan, PACKING, longer, 1, None, QUICK)
    assert message.startswith(f"{dataset.folder}: stores 4 s of a recording")
    assert "--max-seconds or turn augment.crop off" in message
    assert max_columns(dataset, longer, dataclasses.replace(QUICK, crop=False)) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gain_probability", 1.5),
        ("pitch_probability", -0.1),
        ("noise_probability", float("nan")),
        ("noise_min", 0.01),
        ("noise_max", 2.0),
        ("gain_db", -1.0),
        ("stretch_min", 1.2),
        ("stretch_max", 0.5),
        ("semitones", 40.0),
    ],
)
def test_invalid_ranges_are_rejected(datasets, model, field, value):
    config = dataclasses.replace(QUICK, **{field: value})
    message = refusal(max_columns, datasets["waveform"], model, config)
    assert message.startswith("augment: ")
    assert field in message or field.replace("max", "min") in message


def test_a_config_round_trips():
    config = AugmentConfig(enabled=True, semitones=1.0)
    assert AugmentConfig.from_dict(config.to_dict()) == config
    rule = refusal(AugmentConfig.from_dict, {"stretch_min": 1.2}, "run.json: augment")
    assert rule.startswith("run.json: augment: stretch_min")
