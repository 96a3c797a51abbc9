"""Scores of texts, against values worked out by hand."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import run_python

from tinymu_jax.evaluation import text_metrics
from tinymu_jax.evaluation.text_metrics import (
    bert_score_f1,
    bleu,
    exact_match,
    meteor,
    rouge_l,
    score_texts,
)


def values(said, references):
    return {name: one.value for name, one in bleu(said, references)[0].items()}


def test_bleu_by_hand():
    # "the cat is on the mat": words 5 of 6, pairs 3 of 5, triples 1 of 4, fours 0 of 3; the last
    # counts as half of one by exponential smoothing. Both have six words: no brevity penalty.
    result = values(["The cat sat on the mat"], [["the cat is on the MAT"]])
    precisions = [5 / 6, 3 / 5, 1 / 4, 1 / (2 * 3)]
    for order in (1, 2, 3, 4):
        expected = math.prod(precisions[:order]) ** (1 / order)
        assert result[f"BLEU-{order}"] == pytest.approx(expected)


def test_bleu_is_of_the_corpus_with_brevity_penalty():
    # Together 3 of 3 words, 3 said where 6 are wanted: exp(1 - 6 / 3).
    result = values(["a b", "c"], [["a b x"], ["c y z"]])
    assert result["BLEU-1"] == pytest.approx(math.exp(-1))


def test_bleu_takes_different_numbers_of_references():
    # "a" of the first reference and "b" of the second; "c" of the only one.
    said, references = ["a b", "c d"], [["a x", "y b"], ["c z"]]
    assert values(said, references)["BLEU-1"] == pytest.approx(3 / 4)
    assert "nrefs:var" in bleu(said, references)[1]["BLEU"]
    assert "case:lc" in bleu(said, references)[1]["BLEU"]


def test_rouge_l_by_hand_is_that_of_the_best_reference():
    said = ["A tune with loud drums.", "piano"]
    references = [["a slow tune with drums", "noise"], ["violin", "flute"]]
    # "a tune with drums": 4 of 5 words on both sides.
    np.testing.assert_allclose(rouge_l(said, references), [0.8, 0])


def test_nothing_said_scores_nothing():
    references = [["a tune"], ["a song"]]
    assert set(values(["", " "], references).values()) == {0}
    np.testing.assert_array_equal(rouge_l(["", " "], references), [0, 0])
    np.testing.assert_array_equal(exact_match(["", "?"], [["a"], ["!"]]), [0, 0])


def test_exact_answers_differ_in_case_and_punctuation_alone():
    result = exact_match(
        ["Hip-hop!", "hip hop", "hop"], [["hip hop"], ["rock", "Hip-Hop."], ["hip hop"]]
    )
    np.testing.assert_array_equal(result, [1, 1, 0])


WORDNET = Path("corpora") / "wordnet"


def write_wordnet(folder):
    """Writes a WordNet of one synset, in its files' form: a car is an auto."""
    folder = folder / WORDNET
    folder.mkdir(parents=True)
    header = "  1 This WordNet 3.0 Copyright 2006 is made by hand.\n"
    line = f"{len(header):08d} 06 n 02 car 0 auto 0 000 | made by hand\n"
    index = "".join(f"{word} n 1 0 1 0 {len(header):08d}\n" for word in ("auto", "car"))
    texts = {
        "lexnames": "".join(f"{number:02d}\tname.{number}\t1\n" for number in range(45)),
        "data.noun": header + line,
        "index.noun": header + index,
        "index.sense": f"auto%1:06:00:: {len(header):08d} 1 0\n",
        "cntlist.rev": "",
    }
    for pos in ("noun", "verb", "adj", "adv"):
        texts.setdefault(f"data.{pos}", header)
        texts.setdefault(f"index.{pos}", header)
        texts[f"{pos}.exc"] = ""
    for name, text in texts.items():
        (folder / name).write_text(text)


def test_meteor_by_hand_knows_stems_and_synonyms(tmp_path, monkeypatch):
    write_wordnet(tmp_path)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    result = run_python(
        "import json; from tinymu_jax.evaluation.text_metrics import meteor;"
        "print(json.dumps(list(meteor("
        "['The cars play.', 'the car', 'a b', ''],"
        "[['x', 'the auto played.'], ['the auto is red'], ['c'], ['c']]))))"
    )
    # All four tokens of the first are found in one piece: 1 - 0.5 (1 / 4)^3. Of the second both,
    # in one piece: precision 1, recall 1/2, F = 10 P R / (R + 9 P), times 1 - 0.5 (1 / 2)^3.
    whole = 1 - 0.5 / 64
    half = 10 * 0.5 / (0.5 + 9) * (1 - 0.5 / 8)
    np.testing.assert_allclose(json.loads(result), [whole, half, 0, 0])


@pytest.fixture
def nothing_at_hand(monkeypatch):
    """A machine without WordNet's data and without bert_score."""
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setitem(sys.modules, "bert_score", None)


@pytest.mark.usefixtures("nothing_at_hand")
def test_what_is_not_at_hand_is_told_and_never_approximated():
    assert "python -m nltk.downloader wordnet" in meteor(["a"], [["a"]])
    assert "package bert_score is not installed" in bert_score_f1(["a"], [["a"]])
    scored = score_texts(["a tune", "a song"], [["a tune"], ["a tune"]], ["x", "y"])
    for name in ("METEOR", "BERTScore"):
        assert scored.metrics[name].value is None
        assert scored.metrics[name].note.startswith("unavailable: ")
        assert name not in scored.settings
    assert scored.metrics["ROUGE-L"].value == 0.75
    assert scored.metrics["ROUGE-L"].low == 0.5
    assert scored.metrics["ROUGE-L"].count == 2


def give_bert_score(monkeypatch, score):
    monkeypatch.setitem(sys.modules, "bert_score", SimpleNamespace(score=score))


def test_bert_score_is_asked_for_what_was_said(monkeypatch, tmp_path):
    def score(said, references, model_type, num_layers):
        assert (said, references) == (["a", "b"], [["x", "y"], ["z"]])
        assert (model_type, num_layers) == (str(tmp_path), 17)
        return np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])  # precision, recall, F1

    give_bert_score(monkeypatch, score)
    result = bert_score_f1(["a", " ", "b"], [("x", "y"), ("w",), ("z",)], lambda: tmp_path)
    np.testing.assert_array_equal(result, [0.5, 0, 0.6])


def test_bert_score_without_model_or_with_a_fault_is_unavailable(monkeypatch, tmp_path):
    def score(*arguments, **options):
        raise OverflowError("too big")

    give_bert_score(monkeypatch, score)
    assert "not in the hub's local cache" in bert_score_f1(["a"], [["a"]], lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert text_metrics._cached_model() is None
    result = bert_score_f1(["a"], [["a"]], lambda: tmp_path)
    assert result == "unavailable: bert_score ended with OverflowError (too big)"
