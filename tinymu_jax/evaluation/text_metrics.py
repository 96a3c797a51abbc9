"""Score texts against references with standard libraries: BLEU, ROUGE-L, METEOR, BERTScore.

A score whose library or data is not installed is reported as unavailable. METEOR needs WordNet, and
BERTScore a language model. Nothing is downloaded.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tinymu_jax.errors import reason_of
from tinymu_jax.evaluation.bootstrap import interval_note, mean_metrics
from tinymu_jax.evaluation.results import Metric

ROUGE_L, METEOR, BERT_SCORE = "ROUGE-L", "METEOR", "BERTScore"
BLEU = tuple(f"BLEU-{order}" for order in (1, 2, 3, 4))
NO_WORDNET = (
    "unavailable: WordNet is not installed; install it with python -m nltk.downloader wordnet"
)
NO_BERT_SCORE = "unavailable: package bert_score is not installed; pip install bert-score"
BERT_NAMES, BERT_LAYERS = ("roberta-large", "FacebookAI/roberta-large"), 17
"""Hugging Face names of BERTScore's English model, and the layer whose embeddings are compared."""
NO_BERT_MODEL = (
    f"unavailable: {BERT_NAMES[0]} is not in the hub's local cache; hf download {BERT_NAMES[0]}"
)
SETTINGS = {
    ROUGE_L: "F of rouge_score, without stemming; of several references the best",
    METEOR: "nltk's, words and punctuation by wordpunct_tokenize; of several references the best",
    BERT_SCORE: f"F1 of bert_score, layer {BERT_LAYERS} of {BERT_NAMES[0]}, not weighted by idf, "
    "not rescaled; of several references the best",
}
"""How each score is computed, as a text for the report."""
Scores = Float[np.ndarray, "Q"]
"""A score for each of Q texts, 0 to 1."""
References = Sequence[Sequence[str]]
"""One or more references for each text."""


class Scored(NamedTuple):
    """All scores of several texts."""

    metrics: dict[str, Metric]
    """Corpus BLEU and the means of the other scores; an unavailable score has only a note."""
    rouge_l: Scores
    settings: dict[str, str]


def score_texts(
    texts: Sequence[str], references: References, groups: Sequence[Hashable], seed: int = 0
) -> Scored:
    """Compute every available score of texts against their references.

    Args:
        texts: at least one text; each may be empty.
        references: the references of each text; none is blank.
        groups: a key for each text, usually its recording; confidence intervals resample groups.
        seed: the seed of the resamples for the confidence intervals.
    """
    metrics, settings = bleu(texts, references)
    rouge = rouge_l(texts, references)
    scores: dict[str, Scores | str] = {
        ROUGE_L: rouge,
        METEOR: meteor(texts, references),
        BERT_SCORE: bert_score_f1(texts, references),
    }
    available = {name: values for name, values in scores.items() if not isinstance(values, str)}
    means = mean_metrics(available, groups, seed)
    metrics |= {
        name: Metric(None, note=values) if isinstance(values, str) else means[name]
        for name, values in scores.items()
    }
    settings |= {name: SETTINGS[name] for name in available}
    settings["intervals"] = f"{interval_note(seed)}; BLEU has none"
    return Scored(metrics, rouge, settings)


def bleu(texts: Sequence[str], references: References) -> tuple[dict[str, Metric], dict[str, str]]:
    """Return corpus BLEU-1 to BLEU-4, ignoring case, and sacrebleu's signature for the report.

    BLEU-N is 0 if no text has N words.
    """
    from sacrebleu.metrics import BLEU as SacreBLEU

    scorer = SacreBLEU(lowercase=True, force=True)
    # sacrebleu expects the first references of all texts, then the second ones, and so on.
    most = max(map(len, references))
    columns = [[refs[n] if n < len(refs) else None for refs in references] for n in range(most)]
    corpus = scorer.corpus_score(texts, columns)
    metrics = {}
    for order, name in enumerate(BLEU, 1):
        result = SacreBLEU.compute_bleu(
            corpus.counts[:order],
            corpus.totals[:order],
            corpus.sys_len,
            corpus.ref_len,
            smooth_method=scorer.smooth_method,
            max_ngram_order=order,
        )
        metrics[name] = Metric(result.score / 100, count=len(texts))
    return metrics, {"BLEU": f"sacrebleu {scorer.get_signature()}"}


def rouge_l(texts: Sequence[str], references: References) -> Scores:
    """Return the ROUGE-L F-measure of each text with its most similar reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(texts, references, strict=True)
    return np.array(
        [float(scorer.score_multi(refs, text)["rougeL"].fmeasure) for text, refs in pairs]
    )


def meteor(texts: Sequence[str], references: References) -> Scores | str:
    """Return the METEOR score of each text, or the reason why METEOR is unavailable."""
    import nltk.data
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import meteor_score

    try:
        # nltk's downloader leaves a zip archive, in which `find` finds files but no folders.
        nltk.data.find("corpora/wordnet/lexnames")
    except LookupError:
        return NO_WORDNET
    scores = [
        meteor_score([wordpunct_tokenize(ref) for ref in refs], wordpunct_tokenize(text))
        for text, refs in zip(texts, references, strict=True)
    ]
    return np.array(scores, np.float64)


def bert_score_f1(
    texts: Sequence[str],
    references: References,
    find_model: Callable[[], Path | None] | None = None,
) -> Scores | str:
    """Return the BERTScore F1 of each text, or the reason why BERTScore is unavailable.

    An empty text scores 0. `find_model` returns the folder of the language model, or None if there
    is none; by default, the local Hugging Face cache is searched.
    """
    try:
        from bert_score import score
    except ImportError:
        return NO_BERT_SCORE
    except Exception as error:  # it reads the hub's environment variables
        return f"unavailable: bert_score cannot be imported ({reason_of(error)})"
    folder = (find_model or _cached_model)()
    if folder is None:
        return NO_BERT_MODEL
    # bert_score would give empty texts 0 too, but fails on them with newer tokenizers.
    filled = [number for number, text in enumerate(texts) if text.strip()]
    scores = np.zeros(len(texts))
    if filled:
        pairs = [texts[n] for n in filled], [list(references[n]) for n in filled]
        try:
            *_, f1 = score(*pairs, model_type=str(folder), num_layers=BERT_LAYERS)
        except Exception as error:
            # An error of one score must not lose hours of answers.
            return f"unavailable: bert_score ended with {type(error).__name__} ({error})"
        scores[filled] = np.asarray(f1, np.float64)
    return scores


def _cached_model() -> Path | None:
    """Return the folder of BERTScore's model in the local Hugging Face cache; None if absent."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for name in BERT_NAMES:
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    return None


def normalize_words(text: str) -> str:
    """Return the words of a text in lower case, without punctuation, joined by spaces."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def exact_match(texts: Sequence[str], references: References) -> Scores:
    """Return 1 for each text with the same words as a reference (see `normalize_words`), else 0."""
    pairs = ((normalize_words(text), refs) for text, refs in zip(texts, references, strict=True))
    return np.array(
        [float(words != "" and words in map(normalize_words, refs)) for words, refs in pairs]
    )
