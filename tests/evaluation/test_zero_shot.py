"""Zero-shot classification: labels by likelihood, the prior, calibration."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation_cases import cells, saying
from helpers import noise, refusal
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tinymu_jax.data.annotations.labelled import LabelledClip, LabelledSet
from tinymu_jax.evaluation.calibration import calibration, softmax
from tinymu_jax.evaluation.report.build import write_report
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.evaluation.zero_shot import (
    OVER_PRIOR,
    PROMPTS,
    WITH_PRIOR,
    ClassificationConfig,
    class_scores,
    default_text,
    evaluate_classification,
    read_label_texts,
    read_recordings,
    recordings_to_test,
)


def items(folder, **labels):
    return [
        LabelledClip(Path(folder) / f"{name}.wav", (label,), "test")
        for name, label in labels.items()
    ]


TWO = LabelledSet("GTZAN", items("", a="rock", b="hiphop", c="rock"), multi_label=False)
"""Its classes are hiphop and rock, in this order."""
LOUD = {"a.wav": (-3.0, -2.0), "b.wav": (-3.0, -2.5), "c.wav": (-1.0, -5.0), "": (-4.0, -2.0)}
"""Without audio rock is likelier by 2: taken off, a is hip-hop by 1, b by 1.5, c by 6."""


# --- calibration -------------------------------------------------------------------------------


def test_calibration_error_by_hand():
    # Ten bins: 0.95 and 1 in the last, one of them right; 0.7 in the one that ends there, right.
    result = calibration("C", np.array([0.95, 1.0, 0.7]), np.array([True, False, True]), 10)
    np.testing.assert_allclose(result.confidence, [0.7, 0.975])
    np.testing.assert_allclose(result.accuracy, [1, 0.5])
    assert result.counts == [1, 2]
    assert result.ece == pytest.approx((0.3 * 1 + 0.475 * 2) / 3)


def test_a_bin_takes_its_upper_end():
    edges = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert calibration("C", edges, edges > 0, 10).counts == [1] * 10
    assert calibration("C", np.array([0.0, 0.1]), np.array([True, True]), 10).counts == [2]
    assert calibration("C", edges, edges > 0, 1).ece == pytest.approx(0.45)
    assert "bins is 0" in refusal(calibration, "C", edges, edges > 0, 0)


def test_softmax_of_small_likelihoods():
    expected = [[0.75, 0.25], [0.5, 0.5]]
    rows = np.array([[-1000 + np.log(3), -1000], [-2, -2]])
    np.testing.assert_allclose(softmax(rows), expected)


# --- figures of classes ------------------------------------------------------------------------


def test_class_scores_are_sklearns():
    rng = np.random.default_rng(0)
    expected, chosen = rng.integers(0, 4, 50), rng.integers(1, 5, 50)
    result = class_scores(expected, chosen, 6)
    np.testing.assert_array_equal(
        result.counts, confusion_matrix(expected, chosen, labels=range(6))
    )
    precision, recall, f1, _ = precision_recall_fscore_support(
        expected, chosen, labels=range(6), zero_division=np.nan
    )
    np.testing.assert_allclose(result.precision, precision)
    np.testing.assert_allclose(result.recall, recall)
    np.testing.assert_allclose(result.f1[:5], f1[:5])
    assert result.macro_f1 == pytest.approx(np.mean(f1[:5]))  # the sixth never occurs


# --- classification ----------------------------------------------------------------------------


def test_labels_are_compared_with_and_without_audio():
    put = saying(LOUD)
    evaluate_classification(EvalModel("model", put), TWO)
    assert [str(one.audio) for one in put.asked] == ["a.wav", "b.wav", "c.wav", "None"]
    assert {one.prompt for one in put.asked} == {PROMPTS["GTZAN"]}
    assert {one.options for one in put.asked} == {("Hip-hop", "Rock")}
    assert all(one.score_only for one in put.asked)


def test_prior_that_is_taken_off_flips_a_clip():
    result = evaluate_classification(EvalModel("model", saying(LOUD)), TWO)
    over, left_in = result.confusions
    # Rows and columns are hip-hop and rock: b is right once the prior is off, and a is not.
    assert (over.title, over.counts) == (f"Labels, {OVER_PRIOR}", [[1, 0], [2, 0]])
    assert (left_in.title, left_in.counts) == (f"Labels, {WITH_PRIOR}", [[0, 1], [1, 1]])
    table = result.tables[0]
    assert cells(table, "this model, prior subtracted")["accuracy"] == round(1 / 3, 4)
    # Hip-hop: precision 1/3, recall 1, F1 1/2; rock 0.
    assert cells(table, "this model, prior subtracted")["macro F1"] == 0.25
    assert cells(table, "this model, prior included")["accuracy"] == round(1 / 3, 4)
    assert cells(table, "always the most frequent label (rock)")["accuracy"] == round(2 / 3, 4)
    name = "always the likeliest label without audio (rock)"
    assert cells(table, name)["accuracy"] == round(2 / 3, 4)
    assert cells(table, "chance")["accuracy"] == 0.5
    assert result.headline["accuracy"].value == pytest.approx(1 / 3)
    assert result.headline["accuracy"].count == 3
    assert result.published["accuracy"].value == 0.657


def test_calibration_is_of_the_probabilities_over_the_prior():
    result = evaluate_classification(
        EvalModel("model", saying(LOUD)), TWO, ClassificationConfig(bins=10)
    )
    over = result.reliabilities[0]
    # Differences of 1, 1.5 and 6: 0.731, 0.818 and 0.998, of which the second is right.
    sure = 1 / (1 + np.exp([-1, -1.5, -6]))
    np.testing.assert_allclose(over.confidence, sure)
    assert over.accuracy == [0, 1, 0]
    assert over.ece == pytest.approx((sure[0] + 1 - sure[1] + sure[2]) / 3)
    assert result.headline["calibration error"].value == over.ece


def test_table_of_labels():
    result = evaluate_classification(EvalModel("model", saying(LOUD)), TWO)
    table = result.tables[1]
    assert list(cells(table, "hiphop").values()) == [1, 0, round(1 / 3, 4), 0.5]
    # No recording was taken for rock: there is no precision.
    assert list(cells(table, "rock").values()) == [0, 0.5, None, 0]
    assert table.rows["rock"][0].count == 2


def test_worst_are_the_most_confident_wrong_ones():
    result = evaluate_classification(EvalModel("model", saying(LOUD)), TWO)
    assert [one.audio for one in result.worst] == ["c.wav", "a.wav"]
    assert (result.worst[0].expected, result.worst[0].predicted) == ("Rock", "Hip-hop")
    # tanh(x / 2) is the difference of the two probabilities.
    assert result.worst[0].score == pytest.approx(-np.tanh(3))


def test_missing_recordings_are_told_and_the_rest_is_scored(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1600), 16_000)
    some = TWO._replace(clips=items(tmp_path, a="rock", b="hiphop", c="rock"))
    put = saying(LOUD | {"b.wav": None}, cut={"a.wav"})
    result = evaluate_classification(EvalModel("model", put), some)
    assert result.missing == 1
    assert result.notices == [
        "1 of 3 recordings skipped: 1 whose recording is missing or broken; they are listed below",
        "Of 1 of 2 recordings only the beginning was encoded",
    ]
    assert list(result.tables[-1].rows) == [f"{tmp_path / 'b.wav'}: no such file"]
    assert result.headline["accuracy"].count == 2
    # Hip-hop, which is left without a recording, is still a label that is chosen.
    assert result.confusions[0].counts == [[0, 0], [2, 0]]
    assert write_report([result], tmp_path / "report").is_file()
    nothing = saying({"": (-1.0, -2.0)}, None)
    assert "no question could be asked: " in refusal(
        evaluate_classification, EvalModel("m", nothing), some
    )
    no_prompt = saying(LOUD | {"": None})
    assert "no such file" in refusal(evaluate_classification, EvalModel("m", no_prompt), some)


def test_prompt_and_words_can_be_changed(tmp_path):
    (tmp_path / "words.csv").write_text("label,text\nhiphop,It is rap.\n")
    put = saying(LOUD)
    config = ClassificationConfig("What is it?", str(tmp_path / "words.csv"))
    result = evaluate_classification(EvalModel("model", put, settings={"more": "x"}), TWO, config)
    assert {(one.prompt, one.options) for one in put.asked} == {
        ("What is it?", ("It is rap.", "Rock"))
    }
    assert result.settings["labels"] == "hiphop: It is rap.; rock: Rock"
    assert result.settings["more"] == "x"


def test_every_field_of_the_config_counts(tmp_path):
    (tmp_path / "words.csv").write_text("label,text\nhiphop,Rap\n")
    train = LabelledClip(Path("d.wav"), ("rock",), "train")
    result = TWO._replace(clips=[*TWO.clips, train])
    scores = LOUD | {"d.wav": (-9.0, -1.0)}

    def results(**fields):
        config = dataclasses.replace(ClassificationConfig(), **fields)
        return evaluate_classification(EvalModel("model", saying(scores)), result, config)

    changes = {
        "prompt": "?",
        "label_texts": str(tmp_path / "words.csv"),
        "all_splits": True,
        "bins": 1,
    }
    changes |= {"seed": 1}
    assert set(changes) == {field.name for field in dataclasses.fields(ClassificationConfig)}
    for name, value in changes.items():
        assert results(**{name: value}) != results(), name
    assert results(all_splits=True).headline["accuracy"].count == 4
    assert results().settings["split"] == "test (3 of 4 recordings)"
    assert results(all_splits=True).settings["split"] == "all (4 recordings: train 1, test 3)"
    assert "bins is 0" in refusal(results, bins=0)


# --- what is asked about -----------------------------------------------------------------------


def test_test_part_or_all_folds_are_asked_about():
    def chosen(*splits, **options):
        part = [LabelledClip(Path(str(n)), ("ab"[n % 2],), split) for n, split in enumerate(splits)]
        result = LabelledSet("Made", part, multi_label=False)
        return [item.split for item in recordings_to_test(result, **options)]

    assert chosen("train", "test", "valid") == ["test"]
    assert chosen("train", "test", all_splits=True) == ["train", "test"]
    assert chosen("1", "2", "10") == ["1", "2", "10"]
    assert "no recording of split 'test'" in refusal(chosen, "train", "valid")
    assert "its splits are test, tset; name splits" in refusal(chosen, "test", "tset")


def write_table(folder, text):
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def test_a_table_without_splits_is_tested_whole(tmp_path):
    path = write_table(tmp_path, "file,label\n1.wav,a\n2.wav,b\n3.wav,a\n")
    result = read_recordings(path, tmp_path)
    assert [item.path for item in recordings_to_test(result)] == [
        tmp_path / name for name in ("1.wav", "2.wav", "3.wav")
    ]
    path = write_table(tmp_path, "file,kind,label,split\n1.wav,a,x,eval\n2.wav,b,x,train\n")
    result = read_recordings(path, tmp_path, label="kind")
    assert result.classes == ["a", "b"]
    assert [item.labels for item in recordings_to_test(result)] == [("a",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n1.wav,a\n2.wav,a\n", "has 1 label"),
        ("file,labels\n1.wav,a;b\n2.wav,a\n", "1.wav has 2 labels, and one is chosen"),
        ("file,labels\n1.wav,a\n2.wav,\n", "2.wav has 0 labels, and one is chosen"),
        ("name,kind\n1.wav,a\n", "does not name file and label"),
        ("file,label\n1.wav,\n", "line 2 has an empty label"),
    ],
)
def test_tables_that_cannot_be_classified_are_refused(text, message, tmp_path):
    assert message in refusal(read_recordings, write_table(tmp_path, text), tmp_path)


def test_a_folder_needs_a_name(tmp_path):
    assert "say which data set it is (--dataset)" in refusal(read_recordings, tmp_path)
    assert "set 'x': use one of" in refusal(read_recordings, tmp_path, name="x")


def test_data_sets_are_read_by_their_names(tmp_path):
    rows = ["subset,instrument,instrument_id,song_id,uuid4", "training,piano,4,7,a"]
    rows += ["validation,piano,4,8,b", "test,tenor saxophone,5,9,c"]
    (tmp_path / "Medley-solos-DB_metadata.csv").write_text("\n".join(rows))
    result = read_recordings(tmp_path, name="medleysolos")
    assert [item.path.name for item in recordings_to_test(result)] == [
        "Medley-solos-DB_test-5_c.wav"
    ]
    assert result.name in PROMPTS
    assert read_label_texts(result.classes)["tenor saxophone"] == "Tenor saxophone"


# --- labels as words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "expected"),
    [("hiphop", "Hip-hop"), ("synth_lead", "Synth lead"), ("R&B", "R&B"), (" a  b", "A b")],
)
def test_labels_as_words(label, expected):
    assert default_text(label) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,name\na,b\n", "has no column text; its first line is to name label,text"),
        ("", "has no column label, text"),
        (
            "label,text\nrok,Rock\n",
            "line 2 has the label 'rok', which the data set lacks; use hiphop, rock",
        ),
        ("label,text\nrock,\n", "line 2 has an empty text"),
        ("label,text\nrock\n", "line 2 has 1 fields where there are 2 columns"),
        ("label,text\nrock,A,B\n", "line 2 has 3 fields where there are 2 columns"),
        ("label,text\nrock,A\nrock,B\n", "line 3 names 'rock' again"),
        ("label,text\nrock,Hip-hop\n", "'hiphop' and 'rock' have the same text 'Hip-hop'"),
    ],
)
def test_words_that_cannot_be_used_are_refused(text, message, tmp_path):
    path = write_table(tmp_path, text)
    assert message in refusal(read_label_texts, TWO.classes, path)
    assert "cannot be read" in refusal(read_label_texts, TWO.classes, tmp_path / "no.csv")
