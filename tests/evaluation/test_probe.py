"""Probes: their metrics are sklearn's, their data sets those that unpack."""

import csv
import json

import numpy as np
import pytest
import soundfile
from helpers import noise, refusal, run_cli
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

import tinymu_jax
from tinymu_jax.checkpoints.checkpoint import Checkpoint, init_params, save_checkpoint
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.data.annotations.labelled import (
    LabelledClip,
    LabelledSet,
    describe_split,
    read_labelled_table,
    read_labels_by_file,
)
from tinymu_jax.data.annotations.labelled_archives import READERS, read_labelled_set
from tinymu_jax.evaluation.probe.probe import ProbeConfig, fit_probe, probe_metric, run_probe
from tinymu_jax.evaluation.probe.vectors import mean_vectors
from tinymu_jax.evaluation.zero_shot import read_recordings
from tinymu_jax.models.config import MatpacConfig

ENCODER = MatpacConfig(width=32, depth=1, num_heads=2, num_frames=96)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- metrics and learning ----------------------------------------------------------------------


def test_average_precision_counts_what_is_known():
    rng = np.random.default_rng(0)
    expected, known = rng.random((40, 3)) < 0.4, rng.random((40, 3)) < 0.7
    scores = rng.normal(size=(40, 3))
    by_hand = []
    for column in range(3):
        rows = np.flatnonzero(known[:, column])
        order = rows[np.argsort(-scores[rows, column])]
        right = expected[order, column]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        by_hand.append(precision[right].mean())
    assert probe_metric(expected, known, scores, True) == pytest.approx(np.mean(by_hand))
    expected[:, 1] = False  # nobody has it: it cannot be found
    rows = known[:, 0]
    first = average_precision_score(expected[rows, 0], scores[rows, 0])
    assert probe_metric(expected, known, scores, True) == pytest.approx((first + by_hand[2]) / 2)


def clusters(rng, several=False, spread=1.0):
    """Two hundred vectors around three centres, with their labels."""
    centres = 5 * rng.normal(size=(3, 20))
    of = rng.integers(0, 3, 200)
    vectors = (centres[of] + spread * rng.normal(size=(200, 20))).astype(np.float32) * 7 + 30
    splits = rng.choice(["train", "valid", "test"], 200, p=[0.6, 0.2, 0.2])
    items = [
        LabelledClip(f"{i}.wav", ("abc"[n],) + (("z",) if several and n else ()), split)
        for i, (n, split) in enumerate(zip(of, splits, strict=True))
    ]
    return vectors, LabelledSet("made", items, several)


@pytest.mark.parametrize("several", [False, True])
def test_what_can_be_told_is_told(several):
    vectors, data = clusters(np.random.default_rng(0), several)
    result = run_probe(vectors, data, ProbeConfig(seeds=2))
    assert result.mean > 0.98
    assert result.metric == ("mAP" if several else "accuracy")
    assert len(result.values) == 2


def test_labels_by_chance_are_not_told():
    rng = np.random.default_rng(1)
    vectors, data = clusters(rng)
    mixed = [item._replace(labels=(rng.choice(list("abc")),)) for item in data.clips]
    result = run_probe(vectors, data._replace(clips=mixed), ProbeConfig(seeds=3))
    assert result.mean < 0.55
    assert 0.2 < result.chance < 0.55


def test_it_is_as_good_as_sklearns_layer():
    vectors, data = clusters(np.random.default_rng(2), spread=12.0)
    expected, known = data.targets()
    learn, valid, test = (data.indices(name) for name in ("train", "valid", "test"))
    probe = fit_probe(vectors, expected, known, learn, valid, False, ProbeConfig(), 0)
    mine = probe_metric(expected[test], known[test], probe.scores(vectors[test]), False)
    scaled = (vectors - vectors[learn].mean(0)) / vectors[learn].std(0)
    reference = LogisticRegression(max_iter=1000).fit(scaled[learn], expected[learn].argmax(1))
    assert 0.5 < mine < 0.99
    assert mine == pytest.approx(reference.score(scaled[test], expected[test].argmax(1)), abs=0.08)


def test_a_constant_dimension_of_many_embeddings_is_ignored():
    # A float32 sum of 20,000 times 0.7 is off by 1e-4 of its value.
    rng, count = np.random.default_rng(0), 20_000
    vectors = np.stack([rng.standard_normal(count), np.full(count, 0.7)], axis=1).astype(np.float32)
    labels = np.stack([vectors[:, 0] > 0, vectors[:, 0] <= 0], axis=1)
    train, valid = np.arange(count - 100), np.arange(count - 100, count)
    config = ProbeConfig(max_epochs=1, batch=1000)
    probe = fit_probe(vectors, labels, np.ones_like(labels), train, valid, False, config, 0)
    assert probe.kernel[0].all()
    assert not probe.kernel[1].any()


def test_folds_are_tested_in_turn_and_held_out_recordings_are_not_learnt():
    vectors, data = clusters(np.random.default_rng(3))
    items = [item._replace(split=str(i % 3)) for i, item in enumerate(data.clips)]
    # The third fold's labels are turned round: who has learnt them elsewhere is wrong there.
    turned = {"a": "b", "b": "c", "c": "a"}
    items = [
        item._replace(labels=(turned[item.labels[0]],)) if item.split == "2" else item
        for item in items
    ]
    config = ProbeConfig(seeds=1)
    result = run_probe(vectors, data._replace(clips=items), config)
    assert data._replace(clips=items).folds == ["0", "1", "2"]
    assert result.mean < 0.75


def test_the_interval_is_students():
    vectors, data = clusters(np.random.default_rng(4), spread=14.0)
    result = run_probe(vectors, data, ProbeConfig(seeds=3))
    half = 4.303 * np.std(result.values, ddof=1) / np.sqrt(3)  # t of two degrees of freedom
    assert result.interval == pytest.approx(half, rel=1e-3)


# --- tables ------------------------------------------------------------------------------------


def test_a_table_of_several_labels(tmp_path):
    text = "file,labels,split\n1.wav,a; b,train\n2.wav,,train\n3.wav,b,test\n"
    write(tmp_path / "t.csv", text)
    actual = read_labelled_table(tmp_path / "t.csv", "sounds")
    assert actual.multi_label
    assert actual.classes == ["a", "b"]
    assert str(actual.clips[0].path) == "sounds/1.wav"
    np.testing.assert_array_equal(actual.targets()[0], [[1, 1], [0, 0], [0, 1]])


def test_other_names_of_parts_are_known(tmp_path):
    rows = ["1.wav,a,train", "2.wav,b,train", "3.wav,a,val", "4.wav,b,eval"]
    write(tmp_path / "t.csv", "\n".join(["file,label,split", *rows]))
    actual = read_labelled_table(tmp_path / "t.csv", ".")
    assert [item.split for item in actual.clips] == ["train", "train", "valid", "test"]
    assert actual.folds == []


KNOWN = {
    "train": ("train", "Train", " TRAIN ", "training", "Training"),
    "valid": ("valid", "Val", "VALIDATION", "dev", "Development"),
    "test": ("test", "Test", "TESTING", " eval", "Evaluation"),
}


@pytest.mark.parametrize("spelling", range(5))
def test_splits_are_known_in_all_spellings(tmp_path, spelling):
    names = [KNOWN[split][spelling] for split in ("train", "train", "valid", "test", "test")]
    rows = [f"{n}.wav,{'ab'[n % 2]},{name}" for n, name in enumerate(names)]
    write(tmp_path / "t.csv", "\n".join([f"file,label,{'Split' if spelling else 'split'}", *rows]))
    actual = read_labelled_table(tmp_path / "t.csv", ".")
    assert [item.split for item in actual.clips] == ["train", "train", "valid", "test", "test"]
    assert describe_split(actual) == "test (2 of 5 recordings)"


@pytest.mark.parametrize("names", [("1", "2", "3"), ("Fold 1", "fold 2", "fold 3"), tuple("abc")])
def test_folds_stay_folds(tmp_path, names):
    rows = [f"{n}.wav,{'xy'[n % 2]},{name}" for n, name in enumerate(names)]
    write(tmp_path / "t.csv", "\n".join(["file,label,split", *rows]))
    actual = read_labelled_table(tmp_path / "t.csv", ".")
    assert actual.folds == [name.lower() for name in names]
    folds = ", ".join(actual.folds)
    assert describe_split(actual) == f"all 3 folds: {folds} (3 recordings)"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("Train", "Tset", "held"),
            "line 3 has the split 'tset' (known: train; others: tset, held)",
        ),
        (
            ("trian", "tset", "vld"),
            "line 2 has the split 'trian' (known: none; others: trian, tset",
        ),
        (("1", "2", "test"), "line 2 has the split '1' (known: test; others: 1, 2)"),
        (("train", "", "test"), "line 3 has an empty split"),
        (("train", "nan", "test"), "line 3 has 'nan' as split"),
    ],
)
def test_unknown_splits_are_listed(tmp_path, names, message):
    rows = [f"{n}.wav,{'ab'[n % 2]},{name}" for n, name in enumerate(names)]
    write(tmp_path / "t.csv", "\n".join(["file,label,split", *rows]))
    for reader in (read_labelled_table, read_recordings):
        assert message in refusal(reader, tmp_path / "t.csv", ".")
    assert len(read_labels_by_file(tmp_path / "t.csv")) == 3  # splits do not matter there


def test_a_table_without_splits_is_split_by_names(tmp_path):
    rows = [f"{n}.wav,{'ab'[n % 2]},x" for n in range(300)]
    write(tmp_path / "t.csv", "\n".join(["file_name,kind,other", *rows]))
    actual = read_labelled_table(tmp_path / "t.csv", ".", "kind")
    shares = [len(actual.indices(part)) / 300 for part in ("train", "valid", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.06)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n1.wav,a\n", "does not name file and label"),
        ("file,kind\n1.wav,a\n", "does not name file and label"),
        ("file,label\n1.wav,\n", "line 2 has an empty label"),
        ("file,labels\n1.wav\n", "line 2 has 1 fields"),
        ("file,label,split\n1.wav,a,train\n2.wav,b,train\n", "no recording of split 'test'"),
        (
            "file,label,split\n1.wav,a,train\n2.wav,b,held\n",
            "line 3 has the split 'held' (known: train; others: held)",
        ),
        ("file,label,split\n1.wav,a,train\n2.wav,a,test\n", "has 1 label"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    write(tmp_path / "t.csv", text)
    assert message in refusal(read_labelled_table, tmp_path / "t.csv", ".")


# --- data sets as they unpack ------------------------------------------------------------------


def unpack_gtzan(folder):
    for part, names in (
        ("train", ["rock.0", "jazz.0"]),
        ("valid", ["rock.1"]),
        ("test", ["jazz.1"]),
    ):
        lines = [f"{name.split('.')[0]}/{name}.wav" for name in names]
        write(folder / f"{part}_filtered.txt", "\n".join(lines) + "\n")
    write(folder / "genres" / "rock" / "rock.0.au", "")
    return [("genres/rock/rock.0.au", ("rock",), "train")], ["jazz", "rock"]


def unpack_nsynth(folder):
    for part, family in (("train", "bass"), ("valid", "bass"), ("test", "flute")):
        notes = {f"{family}_{part}_001": {"instrument_family_str": family, "pitch": 60}}
        write(folder / f"nsynth-{part}" / "examples.json", json.dumps(notes))
    return [("nsynth-test/audio/flute_test_001.wav", ("flute",), "test")], ["bass", "flute"]


def unpack_openmic(folder):
    table = "sample_key,instrument,relevance,num_responses\n"
    table += "000046_1,clarinet,0.9,3\n000046_1,flute,0.1,3\n000135_2,flute,0.7,3\n"
    write(folder / "openmic-2018-aggregated-labels.csv", table)
    write(folder / "partitions" / "split01_train.csv", "000046_1\n")
    write(folder / "partitions" / "split01_test.csv", "000135_2\n")
    expected = [("audio/000/000046_1.ogg", ("clarinet",), "train")]
    return expected, ["clarinet", "flute"]


def unpack_magnatagatune(folder):
    rows = ["clip_id\tguitar\tslow\tmp3_path", "2\t1\t0\tf/a.mp3", "6\t1\t1\t0/b.mp3"]
    rows += ["7\t0\t1\tc/c.mp3"]
    write(folder / "annotations_final.csv", "\n".join(rows))
    return [("f/a.mp3", ("guitar",), "test"), ("c/c.mp3", ("slow",), "valid")], ["guitar", "slow"]


def unpack_fsd50k(folder):
    dev = 'fname,labels,mids,split\n1,"Bark,Dog","/m/1,/m/2",train\n2,Dog,/m/2,val\n'
    write(folder / "FSD50K.ground_truth" / "dev.csv", dev)
    write(folder / "FSD50K.ground_truth" / "eval.csv", "fname,labels,mids\n9,Bark,/m/1\n")
    expected = [("FSD50K.dev_audio/1.wav", ("Bark", "Dog"), "train")]
    return [*expected, ("FSD50K.eval_audio/9.wav", ("Bark",), "test")], ["Bark", "Dog"]


def unpack_esc50(folder):
    rows = ["filename,fold,target,category", "1-a.wav,1,0,dog", "2-b.wav,2,1,rain"]
    write(folder / "meta" / "esc50.csv", "\n".join(rows))
    return [("audio/2-b.wav", ("rain",), "2")], ["dog", "rain"]


def unpack_urbansound8k(folder):
    rows = ["slice_file_name,fsID,fold,classID,class", "1.wav,1,1,0,siren", "2.wav,2,10,1,drill"]
    write(folder / "metadata" / "UrbanSound8K.csv", "\n".join(rows))
    return [("audio/fold10/2.wav", ("drill",), "10")], ["drill", "siren"]


def unpack_medleysolos(folder):
    rows = ["subset,instrument,instrument_id,song_id,uuid4", "training,piano,4,7,a-1"]
    rows += ["validation,female singer,2,8,b-2", "test,female singer,2,9,c-3"]
    write(folder / "Medley-solos-DB_metadata.csv", "\n".join(rows))
    expected = [("Medley-solos-DB_test-2_c-3.wav", ("female singer",), "test")]
    expected += [("Medley-solos-DB_training-4_a-1.wav", ("piano",), "train")]
    return expected, ["female singer", "piano"]


@pytest.mark.parametrize("name", sorted(READERS))
def test_data_sets_are_read_as_they_unpack(name, tmp_path):
    expected, classes = globals()[f"unpack_{name}"](tmp_path)
    actual = read_labelled_set(name, tmp_path)
    items = {(str(i.path.relative_to(tmp_path)), i.labels, i.split) for i in actual.clips}
    assert set(expected) <= items
    assert actual.classes == classes


def test_medley_solos_may_have_a_folder_of_audio(tmp_path):
    unpack_medleysolos(tmp_path)
    (tmp_path / "audio").mkdir()
    assert {item.path.parent.name for item in read_labelled_set("medleysolos", tmp_path).clips} == {
        "audio"
    }
    write(tmp_path / "Medley-solos-DB_metadata.csv", "subset,instrument\ndev,piano\n")
    assert "is not medleysolos as it unpacks" in refusal(read_labelled_set, "medleysolos", tmp_path)


def test_what_is_not_known_of_openmic_does_not_count(tmp_path):
    unpack_openmic(tmp_path)
    _, known = read_labelled_set("openmic", tmp_path).targets()
    np.testing.assert_array_equal(known, [[1, 1], [0, 1]])


@pytest.mark.parametrize("name", sorted(READERS))
def test_an_empty_folder_is_no_data_set(name, tmp_path):
    message = refusal(read_labelled_set, name, tmp_path)
    expected = "put train_filtered.txt" if name == "gtzan" else "no such file; name the folder that"
    assert expected in message


def test_gtzans_lists_are_asked_for(tmp_path):
    message = refusal(read_labelled_set, "gtzan", tmp_path)
    assert "train_filtered.txt: no such file; GTZAN is split by" in message


def test_a_table_of_other_columns_is_told(tmp_path):
    write(tmp_path / "meta" / "esc50.csv", "file,label\n1.wav,dog\n")
    assert "is not esc50 as it unpacks (KeyError: 'filename')" in refusal(
        read_labelled_set, "esc50", tmp_path
    )


# --- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Loud and soft noise with a table, and an encoder at random."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = []
    for number in range(24):
        samples = noise(12_000) * (0.9 if number % 2 else 0.02)
        soundfile.write(folder / f"{number}.wav", samples, 16_000)
        part = ("train", "train", "valid", "test")[number // 2 % 4]
        rows.append([f"{number}.wav", "loud" if number % 2 else "soft", part])
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "split"], *rows])
    save_checkpoint(folder / "encoder", Checkpoint(ENCODER, init_params(ENCODER, 0)))
    return folder


def test_the_command_probes_keeps_and_goes_on(sounds, tmp_path, capsys, monkeypatch):
    arguments = ["evaluate", "probe", sounds / "table.csv", "--audio", sounds, "--checkpoint"]
    arguments += [
        sounds / "encoder",
        "--output",
        tmp_path / "out",
        "--random-baseline",
        "--seeds",
        "2",
    ]
    code, out, _ = run_cli(capsys, monkeypatch, *arguments)
    assert code == 0
    assert out.startswith("table: accuracy 100.0 ± 0.0, chance 50.0, random encoder ")
    page = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert page["trained"]["table"]["values"] == [1.0, 1.0]
    assert page["trained"]["table"]["split"] == "test (6 of 24 recordings)"
    assert out.endswith(", split test (6 of 24 recordings)\n")
    # The probe tags as any head does, with its classes' names.
    listener = tinymu_jax.load(tmp_path / "out" / "table")
    assert listener.tag(str(sounds / "1.wav"))[0][0] == "loud"
    assert listener.tag(str(sounds / "2.wav"))[0][0] == "soft"
    # Vectors that are there are not made again, and not taken for those of another encoder.
    (remaining,) = (tmp_path / "out" / "vectors").glob("*.npy")
    np.save(remaining, 0 * np.load(remaining))
    run_cli(capsys, monkeypatch, *arguments)
    page = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert page["trained"]["table"]["mean"] == 0.5
    other = Checkpoint(ENCODER, init_params(ENCODER, 1))
    message = refusal(mean_vectors, other, [sounds / "1.wav"], tmp_path / "out" / "vectors")
    assert "holds vectors of another encoder" in message


def test_few_unusable_recordings_are_left_out_and_many_are_an_error(sounds, tmp_path, capsys):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    encoder = open_checkpoint(sounds / "encoder")
    paths = [sounds / "0.wav", tmp_path / "bad.wav", sounds / "1.wav"]
    actual = mean_vectors(encoder, paths, tmp_path / "some", max_bad_fraction=0.5)
    np.testing.assert_array_equal(np.isnan(actual).any(1), [False, True, False])
    assert "bad.wav: is text" in capsys.readouterr().err
    message = refusal(mean_vectors, encoder, paths, tmp_path / "none")
    assert f"the first: {tmp_path / 'bad.wav'}: cannot be read. Repair them, or allow" in message


def test_vectors_are_means_over_time(sounds, tmp_path):
    encoder = open_checkpoint(sounds / "encoder")
    paths = [sounds / f"{n}.wav" for n in range(20)]
    actual = mean_vectors(encoder, paths, tmp_path)
    listener = tinymu_jax.load(sounds / "encoder")
    for number in (0, 7, 19):
        expected = listener.embed(str(paths[number])).mean(0)
        np.testing.assert_allclose(actual[number], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "gtsan"], "set 'gtsan': use one of gtzan"),
        (["--seeds", "0"], "seeds is 0"),
        (["--label-column", "kind"], "does not name file and kind"),
    ],
)
def test_wrong_commands_end_with_one_line(options, message, sounds, tmp_path, capsys, monkeypatch):
    arguments = ["evaluate", "probe", sounds / "table.csv", "--audio", sounds, "--checkpoint"]
    arguments += [sounds / "encoder", "--output", tmp_path / "out", *options]
    code, out, err = run_cli(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
