"""Scores of texts against references, all by kept libraries: BLEU, ROUGE-L, METEOR, BERTScore.

What a library needs and is not at hand (WordNet for METEOR, a language model for BERTScore) is
told; nothing is downloaded, and no score is approximated.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tinymu_jax.evaluation.bootstrap import RESAMPLES, measure_shares
from tinymu_jax.evaluation.results import Metric

ROUGE_L, METEOR, BERT_SCORE = "ROUGE-L", "METEOR", "BERTScore"

BLEU = tuple(f"BLEU-{order}" for order in (1, 2, 3, 4))

NO_WORDNET = (
    "unavailable: WordNet is not installed; install it with python -m nltk.downloader wordnet"
)

NO_BERT_SCORE = "unavailable: package bert_score is not installed; pip install bert-score"

BERT_NAMES, BERT_LAYERS = ("roberta-large", "FacebookAI/roberta-large"), 17
"""The model that bert_score takes for English, by its names at the hub, and the layer whose output
it compares."""

NO_BERT_MODEL = (
    f"unavailable: {BERT_NAMES[0]} is not in the hub's local cache; hf download {BERT_NAMES[0]}"
)

SETTINGS = {
    ROUGE_L: "F of rouge_score, without stemming; of several references the best",
    METEOR: "nltk's, words and punctuation by wordpunct_tokenize; of several references the best",
    BERT_SCORE: f"F1 of bert_score, layer {BERT_LAYERS} of {BERT_NAMES[0]}, not weighted by idf, "
    "not rescaled; of several references the best",
}
"""What the scores of a text depend on."""

Scores = Float[np.ndarray, "Q"]
"""From 0 to 1, of each text."""


class Scored(NamedTuple):
    """Texts that were scored."""

    measures: dict[str, Metric]
    """BLEU of all together, means of the others; with a note in place of a value where a score is
    unavailable."""
    rouge_l: Scores
    settings: dict[str, str]
    """What the numbers depend on."""


def score_texts(
    said: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[Hashable],
    seed: int = 0,
) -> Scored:
    """Scores texts by everything that is at hand.

    Args:
        said: at least one text; each may be empty.
        references: of each text, one or more; none is blank.
        groups: what each text belongs to, such as its recording, for the intervals.
        seed: of the intervals' resamples.
    """
    measures, settings = bleu(said, references)
    lines = rouge_l(said, references)
    found: dict[str, Scores | str] = {
        ROUGE_L: lines,
        METEOR: meteor(said, references),
        BERT_SCORE: bert_score_f1(said, references),
    }
    known = {name: one for name, one in found.items() if not isinstance(one, str)}
    means = measure_shares(known, groups, seed)
    measures |= {
        name: Metric(None, note=one) if isinstance(one, str) else means[name]
        for name, one in found.items()
    }
    intervals = f"95 %, {RESAMPLES:,} resamples of recordings, seed {seed}; BLEU has none"
    settings |= {name: SETTINGS[name] for name in known} | {"intervals": intervals}
    return Scored(measures, lines, settings)


def bleu(
    said: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, Metric], dict[str, str]]:
    """Returns BLEU-1 to BLEU-4 of a corpus in lower case, and sacrebleu's signature.

    Where no text has as many words as an order asks for, that BLEU is 0. Arguments as
    `score_texts`.
    """
    from sacrebleu.metrics import BLEU as SacreBleu

    metric = SacreBleu(lowercase=True, force=True)
    # sacrebleu wants the first references of all texts, then the second ones, and so on.
    most = max(map(len, references))
    columns = [[own[n] if n < len(own) else None for own in references] for n in range(most)]
    whole = metric.corpus_score(said, columns)
    measures = {}
    for order, name in enumerate(BLEU, 1):
        one = SacreBleu.compute_bleu(
            whole.counts[:order],
            whole.totals[:order],
            whole.sys_len,
            whole.ref_len,
            smooth_method=metric.smooth_method,
            max_ngram_order=order,
        )
        measures[name] = Metric(one.score / 100, count=len(said))
    return measures, {"BLEU": f"sacrebleu {metric.get_signature()}"}


def rouge_l(said: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Returns ROUGE-L's F of each text; arguments as `score_texts`."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(said, references, strict=True)
    return np.array(
        [float(scorer.score_multi(own, text)["rougeL"].fmeasure) for text, own in pairs]
    )


def meteor(said: Sequence[str], references: Sequence[Sequence[str]]) -> Scores | str:
    """Returns METEOR of each text, or why there is none; arguments as `score_texts`."""
    import nltk.data
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import meteor_score

    try:
        # The downloader leaves it packed: then a file inside is found, the folder is not.
        nltk.data.find("corpora/wordnet/lexnames")
    except LookupError:
        return NO_WORDNET
    scores = [
        meteor_score([wordpunct_tokenize(one) for one in own], wordpunct_tokenize(text))
        for text, own in zip(said, references, strict=True)
    ]
    return np.array(scores, np.float64)


def bert_score_f1(
    said: Sequence[str],
    references: Sequence[Sequence[str]],
    find_model: Callable[[], Path | None] | None = None,
) -> Scores | str:
    """Returns BERTScore's F1 of each text, or why there is none.

    Args:
        said: as `score_texts`.
        references: as `score_texts`.
        find_model: returns the folder of the language model, or None; default the hub's cache.
    """
    try:
        from bert_score import score
    except ImportError:
        return NO_BERT_SCORE
    folder = (find_model or _cached_model)()
    if folder is None:
        return NO_BERT_MODEL
    # bert_score calls an empty text 0 too, but newer tokenizers fail on it.
    there = [number for number, text in enumerate(said) if text.strip()]
    scores = np.zeros(len(said))
    if there:
        texts, own = [said[n] for n in there], [list(references[n]) for n in there]
        try:
            *_, f1 = score(texts, own, model_type=str(folder), num_layers=BERT_LAYERS)
        except Exception as error:
            # Hours of answers are not to be lost to one of their scores.
            return f"unavailable: bert_score ended with {type(error).__name__} ({error})"
        scores[there] = np.asarray(f1, np.float64)
    return scores


def _cached_model() -> Path | None:
    """Returns the folder of BERTScore's model in the hub's cache, if it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for name in BERT_NAMES:
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    return None


def normalised(text: str) -> str:
    """Returns a text's words in lower case, without punctuation: what exact answers share."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def exact(said: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Returns 1 for each text that is one of its references, as `normalised`, else 0.

    A text without words is none.
    """
    pairs = ((normalised(text), own) for text, own in zip(said, references, strict=True))
    return np.array([float(text != "" and text in map(normalised, own)) for text, own in pairs])
