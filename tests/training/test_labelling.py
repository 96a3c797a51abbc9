"""Training an encoder on labels: loss, sampling, resuming, bad tables."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile
from helpers import lines, refusal
from tokenizer_fixture import tokenizer_text

from tinymu_jax.checkpoints.checkpoint import read_checkpoint
from tinymu_jax.data.config import AugmentConfig, FeatureConfig, PrepareConfig
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.label_batches import HEAD, LabelBatches, read_label_table
from tinymu_jax.data.prepare import prepare
from tinymu_jax.inference.chunked_encoding import encode_clips
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training import run as runs
from tinymu_jax.training.checkpointing import Checkpoints
from tinymu_jax.training.config import (
    DataConfig,
    InitConfig,
    LoopConfig,
    OptimConfig,
    StepConfig,
    TrainConfig,
)
from tinymu_jax.training.tasks.tagger import LabelTask, add_label_head
from tinymu_jax.utils.tree import flatten

SECONDS = [1.5, 0.7, 2.0, 1.1, 0.9, 1.7, 1.3, 0.6]
FROZEN = r"(projector|decoder)/.*|encoder/(pos_embed|log_mel/.*)"
EPOCHS = 20
TABLE = [
    {
        "file_name": f"{number}.wav",
        "pitch": "high" if number % 2 else "low",
        "third": "abc"[number % 3],
        "same": "one",
    }
    for number in range(len(SECONDS))
]


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Tones of several heights and lengths, a list of a question about each, a table."""
    folder, records = tmp_path_factory.mktemp("tones"), []
    for number, seconds in enumerate(SECONDS):
        time = np.arange(int(seconds * 16_000)) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * 200 * 1.5**number * time)
        soundfile.write(folder / f"{number}.wav", tone, 16_000, subtype="PCM_16")
        records.append(
            {
                "file_name": f"{number}.wav",
                "input_text": "What?",
                "target_text": "A tone.",
                "dataset": "Made",
                "task": "QA",
            }
        )
    (folder / "list.json").write_text(json.dumps(records))
    write_table(folder / "labels.csv", TABLE)
    (folder / "tokenizer.json").write_text(tokenizer_text())
    return folder


@pytest.fixture(scope="module")
def data(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareConfig(FeatureConfig("waveform"), workers=1)
    prepare([recordings / "list.json"], [recordings], folder, tokenizer_text(), options)
    return folder


@pytest.fixture(scope="module")
def base(recordings, data, golden_dir, compiled_programs_stay_here):
    """A run of two steps an epoch from the golden model; it ends with a validation."""
    return TrainConfig(
        init=InitConfig(
            str(golden_dir / "tinymu_tiny.pt"), tokenizer=str(recordings / "tokenizer.json")
        ),
        data=DataConfig(
            str(data),
            packing=PackingConfig(max_clips=4),
            validation=str(data),
            labels=str(recordings / "labels.csv"),
            epochs=EPOCHS,
            threads=1,
        ),
        step=StepConfig(remat="none"),
        optim=OptimConfig(learning_rate=1e-2, frozen_params=FROZEN),
        mesh=MeshConfig(1, 1, 1),
        loop=LoopConfig(log_every=1, save_every=1000, tensorboard=False),
    )


@pytest.fixture
def config(base, tmp_path):
    return replace(base, output=str(tmp_path / "run"))


def train(config, resume=False):
    return runs.train(config, resume, jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A run that nothing befell."""
    return train(replace(base, output=str(tmp_path_factory.mktemp("whole") / "run")))


def labelling(config, checkpoint):
    """Returns a run put together, and the weights that it begins with."""
    params = add_label_head(checkpoint.params, checkpoint.config, config.data.labels)
    return LabelTask(config, checkpoint.config, params, jax.devices()[:1]), params


def with_data(config, **changes):
    return replace(config, data=replace(config.data, **changes))


# --- the loss ----------------------------------------------------------------------------------


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def loss_by_hand(encoded, names, head):
    """Returns the loss of clips by the encoder's vectors of each, and by its name in the table."""
    values = {
        name: sorted({row[name] for row in TABLE}) for name in TABLE[0] if name != "file_name"
    }
    rows = {row["file_name"]: row for row in TABLE}
    total = 0.0
    for vectors, name in zip(encoded, names, strict=True):
        scores = vectors.astype(np.float64).mean(0) @ head["kernel"] + head["bias"]
        start, lost = 0, []
        for category, local in values.items():
            part = log_softmax(scores[start : start + len(local)])
            lost.append(-part[local.index(rows[name][category])])
            start += len(local)
        total += np.mean(lost)
    return total


def test_loss_equals_numpy_loss_of_mean_vectors(whole, data):
    """At the end, on the clips that it learnt from: their validation loss."""
    checkpoints = Checkpoints(whole.folder / "checkpoints", read_only=True)
    head = checkpoints.restore_params(2 * EPOCHS)[HEAD]
    checkpoints.close()
    model, dataset = read_checkpoint(whole.model), Dataset(data)
    assert head["kernel"].shape == (model.config.encoder.output_width, 2 + 3 + 1)
    assert all(np.abs(leaf).max() > 0 for leaf in head.values())
    records = [dataset[number] for number in range(len(dataset))]
    waveforms = [record.features / np.float32(32768) for record in records]
    encoded = [
        np.asarray(x[0])
        for x in encode_clips(model.params["encoder"], waveforms, model.config.encoder)
    ]
    names = [Path(record.clip).name for record in records]
    result = lines(whole.folder, "validation_loss")
    expected = loss_by_hand(encoded, names, head) / len(records)
    assert result == {2 * EPOCHS: pytest.approx(expected, rel=1e-4)}


# --- the order ---------------------------------------------------------------------------------


def test_each_epoch_has_every_clip_once_with_its_labels(base, golden_checkpoint):
    config = replace(with_data(base, packing=PackingConfig(max_clips=2)), step=StepConfig(blocks=2))
    batches = labelling(config, golden_checkpoint)[0].batches
    dataset, labels = batches.reader.dataset, read_label_table(config.data.labels)
    assert len(batches) == EPOCHS * 2
    orders = []
    for epoch in range(EPOCHS):
        numbers = [batches.numbers(step) for step in (2 * epoch, 2 * epoch + 1)]
        orders.append(np.concatenate(numbers).reshape(-1).tolist())
        assert sorted(orders[-1]) == list(range(len(SECONDS)))
    assert len(set(map(tuple, orders))) == EPOCHS
    batch, numbers = batches[3], batches.numbers(3)
    assert batch.labels.shape == (2, 2, 3)
    for place in np.ndindex(2, 2):
        record = dataset[int(numbers[place])]
        length = batch.lengths[place]
        np.testing.assert_array_equal(batch.features[place][:length], record.features)
        local = [
            sorted(values)[i]
            for values, i in zip(labels.categories.values(), batch.labels[place], strict=True)
        ]
        assert local == list(TABLE[int(Path(record.clip).stem)].values())[1:]


def test_incomplete_steps_are_dropped_but_every_clip_comes(base, golden_checkpoint):
    config = with_data(base, packing=PackingConfig(max_clips=3), epochs=40)
    batches = labelling(config, golden_checkpoint)[0].batches
    assert len(batches) == 40 * 2
    encoded = Counter()
    for epoch in range(40):
        numbers = [batches.numbers(step) for step in (2 * epoch, 2 * epoch + 1)]
        local = np.concatenate(numbers).reshape(-1).tolist()
        assert len(set(local)) == len(local) == 6
        encoded.update(local)
    assert len(encoded) == len(SECONDS)
    assert min(encoded.values()) > 20


def test_augmentation_changes_clips(base, golden_checkpoint):
    others = ("polarity", "gain", "stretch", "pitch")
    none = {f"{name}_probability": 0.0 for name in others}
    noisy = AugmentConfig(enabled=True, crop=False, noise_probability=1.0, **none)
    plain, changed = (
        labelling(config, golden_checkpoint)[0].batches[0].features
        for config in (base, with_data(base, augment=noisy))
    )
    assert np.mean(plain != changed) > 0.2


def test_overfit_batch_repeats_the_clips(base, golden_checkpoint):
    config = replace(base, overfit_batch=True, steps=5)
    learning, _ = labelling(config, golden_checkpoint)
    assert [learning.clip_names(step) for step in range(1, 5)] == [learning.clip_names(0)] * 4


# --- the run -----------------------------------------------------------------------------------


def leaves_of(folder):
    return dict(flatten(read_checkpoint(folder).params))


def test_the_final_model_has_a_trained_encoder_and_no_head(whole, golden_checkpoint):
    result, before = leaves_of(whole.model), dict(flatten(golden_checkpoint.params))
    assert set(result) == set(before)
    learnt = {path for path in result if not np.array_equal(result[path], before[path])}
    assert learnt
    assert all(path.startswith("encoder/") for path in learnt)
    assert not learnt & {"encoder/pos_embed", "encoder/log_mel/window"}


def test_zero_head_starts_at_uniform_loss_and_overfits(whole):
    losses = lines(whole.folder)
    assert losses[1] == pytest.approx(np.mean(np.log([2, 3, 1])), rel=1e-5)
    assert (losses[2 * EPOCHS - 1] + losses[2 * EPOCHS]) / 2 < 0.15 * losses[1]


def test_a_stopped_run_resumes_bit_identically(config, whole):
    cut = replace(config, loop=replace(config.loop, stop_after=7))
    assert train(cut).model is None
    on = train(config, resume=True)
    assert lines(on.folder) == lines(whole.folder)
    result, expected = leaves_of(on.model), leaves_of(whole.model)
    for path, leaf in expected.items():
        np.testing.assert_array_equal(result[path], leaf)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "cannot be read"),
        ("", "has no column file_name"),
        ("file_name,pitch\n", "holds no labels"),
        ("name,pitch\n0.wav,low\n", "has no column file_name"),
        ("file_name\n0.wav\n", "holds no labels"),
        ("file_name,pitch\n0.wav,low\n1.wav,\n", "line 3 has an empty pitch"),
        ("file_name,pitch\n0.wav,low\n1.wav\n", "line 3 has 1 fields"),
        ("file_name,pitch\n0.wav,low,high\n", "line 2 has 3 fields"),
        ("file_name,pitch\n0.wav,low\n0.wav,high\n", "line 3 names 0.wav again, after line 2"),
        (
            "file_name,pitch\n7.mp3,low\n7.low.mp3,high\n",
            "line 3 names 7.low.mp3 (the same as 7.mp3) again, after line 2",
        ),
        ("file_name,pitch\n\u00e9.wav,low\ne\u0301.wav,high\n", "again, after line 2"),
    ],
)
def test_bad_label_tables_are_errors(tmp_path, text, named):
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    message = refusal(read_label_table, path)
    assert message.startswith(f"{path}: ")
    assert named in message


class Clips(list):
    folder = Path("data")


def test_two_clips_with_one_name_are_an_error(recordings):
    labels = read_label_table(recordings / "labels.csv").of
    clips = SimpleNamespace(dataset=Clips(["a/0.wav", "b/0.wav"]), seed=0)
    batches = LabelBatches(clips, labels, 1, 1, [0], epochs=1)
    for _ in range(2):
        np.testing.assert_array_equal(batches._labels("a/0.wav"), labels["0.wav"])
    assert "b/0.wav and a/0.wav: have the same file name" in refusal(batches._labels, "b/0.wav")


def test_a_clip_without_labels_is_an_error(config, tmp_path):
    short = write_table(tmp_path / "short.csv", TABLE[:-1])
    message = refusal(train, with_data(config, labels=str(short)))
    assert "7.wav: is not in the table of labels (data.labels); add it" in message


@pytest.fixture
def begun(config, whole):
    """A folder in which the run has begun."""
    folder = Path(config.output)
    folder.mkdir()
    (folder / "run.json").write_bytes((whole.folder / "run.json").read_bytes())


@pytest.mark.usefixtures("begun")
def test_resuming_with_another_table_is_an_error(config, tmp_path):
    other = write_table(tmp_path / "other.csv", TABLE[::-1])
    message = refusal(train, with_data(config, labels=str(other)), True)
    assert "contents of data.labels" in message


@pytest.mark.usefixtures("begun")
def test_resuming_without_the_table_is_an_error(config, tmp_path):
    gone = tmp_path / "gone.csv"
    assert f"{gone}: " in refusal(train, with_data(config, labels=str(gone)), True)


@pytest.mark.parametrize("frozen", ["encoder/.*", "decoder/.*", "projector/.*"])
def test_training_projector_or_decoder_on_labels_is_an_error(base, golden_checkpoint, frozen):
    config = replace(base, optim=replace(base.optim, frozen_params=frozen))
    message = refusal(labelling, config, golden_checkpoint)
    assert "data.labels trains the encoder alone" in message
    assert "optim.frozen-params '(projector|decoder)/.*'" in message


def test_fewer_clips_than_a_step_needs_are_an_error(base, golden_checkpoint):
    config = with_data(base, packing=PackingConfig(max_clips=9))
    message = refusal(labelling, config, golden_checkpoint)
    assert "has 8 clips that can be used, and a step takes 9; lower the clips of a block" in message


@pytest.mark.parametrize("store", ["text", "embeddings"])
def test_features_that_bypass_the_encoder_are_an_error(base, golden_checkpoint, monkeypatch, store):
    described = Dataset.__init__

    def stored(self, folder):
        described(self, folder)
        self.features = FeatureConfig(store)

    monkeypatch.setattr(Dataset, "__init__", stored)
    message = refusal(labelling, base, golden_checkpoint)
    assert f"stores {store}, which bypasses the encoder; prepare log_mel" in message


def test_a_run_on_labels_that_is_refused_leaves_nothing(config):
    many = with_data(config, packing=PackingConfig(max_clips=9))
    assert "a step takes 9" in refusal(train, many)
    assert not Path(config.output).exists()


def test_muon_on_stacked_vectors_is_an_error(base, golden_checkpoint):
    """A matrix in memory, but each row is a layer's vector of its own."""
    optim = replace(base.optim, muon_params=r"encoder/transformer/blocks/.*")
    message = refusal(labelling, replace(base, optim=optim), golden_checkpoint)
    assert "which is no matrix; narrow it" in message
