"""Zero-shot classification: choose the label that is the likeliest answer about a recording.

Some labels are likely answers about any recording. One rule therefore subtracts a label's prior,
its log-likelihood without audio: log P(label | audio, prompt) - log P(label | prompt). A second
rule does not subtract the prior.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tinymu_jax.data.annotations.labelled import (
    SPLITS,
    LabelledClip,
    LabelledSet,
    check_audio_folder,
    describe_split,
    read_label_rows,
)
from tinymu_jax.data.annotations.labelled_archives import read_labelled_set
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.bootstrap import interval_note, mean_metrics
from tinymu_jax.evaluation.calibration import BINS, calibration, softmax
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.evaluation.results import (
    SPLIT,
    Confusion,
    EvalResult,
    Example,
    Metric,
    Reliability,
    Table,
)
from tinymu_jax.evaluation.skipped import (
    Answers,
    collect_answers,
    cut_notices,
    skipped_notices,
    skipped_tables,
)
from tinymu_jax.evaluation.tables import MAX_WORST
from tinymu_jax.inference.engine import Request
from tinymu_jax.utils.tables import read_rows

PROMPTS = {
    "GTZAN": "What is the genre of this music?",
    "NSynth": "Which instrument is playing?",
    "Medley-Solos-DB": "Which instrument is playing?",
}
"""Prompt of each known data set, by the data set's name."""
PROMPT = "What do you hear in this recording?"
"""Prompt of all other data sets."""
TASK = "Classification"
TEST = "test"
LABEL_TEXTS = {"hiphop": "Hip-hop", "rnb": "R&B"}
"""Answer texts that cannot be derived from a label's spelling, by the label in lower case."""
COLUMNS = ("label", "text")
"""Columns of the csv that gives the answer text of each label."""
OVER_PRIOR, WITH_PRIOR = "prior subtracted", "prior included"
"""Names of the two rules that choose a label."""
ACCURACY, MACRO_F1, CALIBRATION_ERROR = "accuracy", "macro F1", "calibration error"
PUBLISHED = {"GTZAN": 0.657, "Medley-Solos-DB": 0.951}
PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849), zero-shot"


@dataclass(frozen=True)
class ClassificationConfig:
    """Settings of a zero-shot classification."""

    prompt: str | None = None
    """The question about each recording; default: the prompt for the data set."""
    label_texts: str | None = None
    """Path of a csv with the columns label and text: the answer text of each label."""
    all_splits: bool = False
    """Classify the recordings of all splits, not only of the test split."""
    bins: int = BINS
    """Number of confidence bins for the calibration error."""
    seed: int = 0
    """Seed of the resamples for the confidence intervals."""


# --- reading -------------------------------------------------------------------------------------


def read_recordings(
    data: str | Path, audio: str | Path = ".", name: str | None = None, label: str | None = None
) -> LabelledSet:
    """Read labelled recordings from the folder of a known data set, or from a csv.

    Args:
        data: the folder of the data set, or a csv with the columns `file`, `label` and optionally
            `split`. Without splits, all rows are in the test split.
        audio: the folder of the recordings that the csv names.
        name: the data set's key in `tinymu_jax.data.annotations.labelled_archives.READERS`; None
            for a csv.
        label: the csv's column of labels, if its name is not `label`.

    Raises:
        InputError: the data cannot be read or has fewer than two labels, or a recording does not
            have exactly one label.
    """
    if name is not None:
        dataset = read_labelled_set(name, data)
    elif Path(data).is_dir():
        raise InputError(
            f"{data}: is a folder; say which data set it is (--dataset), or name a csv"
        )
    else:
        _, rows = read_label_rows(data, label)
        check_audio_folder(audio, data)
        items = [
            LabelledClip(Path(audio) / file, labels, split or TEST) for file, labels, split in rows
        ]
        # The title is never the name of a known data set, so it gets no published figures.
        title = ", ".join(filter(None, (Path(data).name, label)))
        dataset = LabelledSet(title, items, multi_label=False)
    invalid = next((item for item in dataset.clips if len(item.labels) != 1), None)
    if invalid is not None:
        raise InputError(
            f"{dataset.name}: {invalid.path} has {len(invalid.labels)} labels, and one is chosen; "
            "name a data set or column with one label for each recording"
        )
    if len(dataset.classes) < 2:
        raise InputError(
            f"{dataset.name}: has {len(dataset.classes)} label; there must be two or more to "
            "choose from"
        )
    return dataset


def recordings_to_test(dataset: LabelledSet, all_splits: bool = False) -> list[LabelledClip]:
    """Return the recordings of the test split, or all recordings if the data set has folds.

    With `all_splits`, the recordings of the other splits are returned too.

    Raises:
        InputError: the data set has no test split, or has both splits and folds.
    """
    folds = set(dataset.folds)
    if folds & set(SPLITS) and folds - set(SPLITS):
        raise InputError(
            f"{dataset.name}: its splits are {', '.join(sorted(folds))}; name splits "
            f"({', '.join(SPLITS)}) or folds, not both"
        )
    items = [item for item in dataset.clips if all_splits or folds or item.split == TEST]
    if not items:
        raise InputError(
            f"{dataset.name}: has no recording of split {TEST!r}; add some, or use all splits"
        )
    return items


def default_text(label: str) -> str:
    """Derive a label's answer text from its spelling: "synth_lead" becomes "Synth lead"."""
    text = LABEL_TEXTS.get(label.lower()) or " ".join(label.replace("_", " ").split())
    return text[:1].upper() + text[1:]


def read_label_texts(classes: Iterable[str], path: str | Path | None = None) -> dict[str, str]:
    """Return the answer text of each label in `classes`, such as "Hip-hop" for "hiphop".

    The csv `path` has the columns label and text. Labels that it omits get their `default_text`.

    Raises:
        InputError: the csv cannot be read, names an unknown label or names a label twice; or two
            labels have the same text.
    """
    texts = {label: default_text(label) for label in classes}
    if path is not None:
        texts |= _read_texts(path, texts)
    label_of: dict[str, str] = {}
    for label, text in texts.items():
        other = label_of.setdefault(text, label)
        if other != label:
            raise InputError(
                f"labels {other!r} and {label!r} have the same text {text!r}, so that neither can "
                f"be chosen; give them different ones in a csv of {','.join(COLUMNS)}"
            )
    return texts


def _read_texts(path: str | Path, labels: Iterable[str]) -> dict[str, str]:
    """Read the answer text of each label in a csv with the columns label and text."""
    remedy = f"its first line is to name {','.join(COLUMNS)}"
    texts: dict[str, str] = {}
    for row in read_rows(Path(path), COLUMNS, remedy):
        label, text = row.name(COLUMNS[0]), row.filled(COLUMNS[1])
        if label not in labels:
            known = ", ".join(sorted(labels))
            raise row.fault(f"has the label {label!r}, which the data set lacks; use {known}")
        if label in texts:
            raise row.fault(f"names {label!r} again; keep one line of each label")
        texts[label] = text
    return texts


# --- choosing labels -----------------------------------------------------------------------------


class Choice(NamedTuple):
    """The label that a rule chooses for each of R recordings, as an index into C classes."""

    predicted: Int[np.ndarray, "R"]
    probabilities: Float[np.ndarray, "R C"]
    right: Bool[np.ndarray, "R"]

    @property
    def confidence(self) -> Float[np.ndarray, "R"]:
        """The probability of the chosen label, for each recording."""
        return self.probabilities.max(axis=1)


class Classified(NamedTuple):
    """The true class index of each of R recordings, and the choices of each rule."""

    classes: Sequence[str]
    expected: Int[np.ndarray, "R"]
    prior: int
    """Index of the most probable class without audio."""
    by_rule: Mapping[str, Choice]


class ClassScores(NamedTuple):
    """Recall, precision and F1 of each of C classes; NaN where undefined."""

    counts: Int[np.ndarray, "C C"]
    """Confusion matrix; rows are the true labels, columns the chosen labels."""
    recall: Float[np.ndarray, "C"]
    precision: Float[np.ndarray, "C"]
    f1: Float[np.ndarray, "C"]

    @property
    def macro_f1(self) -> float:
        """The mean F1 of all classes that occur among the true or the chosen labels."""
        return float(np.nanmean(self.f1))


def classify(
    classes: Sequence[str],
    labels: Sequence[str],
    with_audio: Float[np.ndarray, "R C"],
    text_only: Float[np.ndarray, "C"],
) -> Classified:
    """Choose a label for each of R recordings, by the rules `OVER_PRIOR` and `WITH_PRIOR`.

    Args:
        classes: all C labels.
        labels: the true label of each recording.
        with_audio: the log-likelihood of each label for each recording.
        text_only: the log-likelihood of each label without audio.
    """
    expected = np.array([classes.index(label) for label in labels])

    def choose(scores: Float[np.ndarray, "R C"]) -> Choice:
        predicted = scores.argmax(axis=1)
        return Choice(predicted, softmax(scores), predicted == expected)

    by_rule = {OVER_PRIOR: choose(with_audio - text_only), WITH_PRIOR: choose(with_audio)}
    return Classified(classes, expected, int(text_only.argmax()), by_rule)


def class_scores(
    expected: Int[np.ndarray, "R"], predicted: Int[np.ndarray, "R"], num_classes: int
) -> ClassScores:
    """Return the confusion matrix, recall, precision and F1 of true and chosen class indices."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = range(num_classes)
    precision, recall, f1, _ = precision_recall_fscore_support(
        expected, predicted, labels=labels, zero_division=np.nan
    )
    return ClassScores(confusion_matrix(expected, predicted, labels=labels), recall, precision, f1)


# --- evaluation ----------------------------------------------------------------------------------


def evaluate_classification(
    model: EvalModel, dataset: LabelledSet, config: ClassificationConfig | None = None
) -> EvalResult:
    """Classify the recordings that `recordings_to_test` selects, and compute all metrics.

    Raises:
        InputError: there is no test split, two labels have the same text, `bins` is less than 1, or
            no recording could be classified.
    """
    config = config or ClassificationConfig()
    if config.bins < 1:
        raise InputError(f"bins is {config.bins}: give 1 or more")
    classes = dataset.classes
    texts = read_label_texts(classes, config.label_texts)
    items = recordings_to_test(dataset, config.all_splits)
    prompt = config.prompt or PROMPTS.get(dataset.name, PROMPT)
    without = Request(None, prompt, TASK, tuple(texts.values()), score_only=True)
    requests = [without._replace(audio=item.path) for item in items]
    *responses, text_only = model.engine([*requests, without])
    if isinstance(text_only, InputError):
        raise text_only
    answers = collect_answers(items, responses)
    classified = classify(
        classes,
        [item.labels[0] for item in answers.items],
        np.array([response.log_likelihoods for _, response in answers.answered], np.float64),
        np.array(text_only.log_likelihoods, np.float64),
    )
    scores = {
        rule: class_scores(classified.expected, choice.predicted, len(classes))
        for rule, choice in classified.by_rule.items()
    }
    diagrams = {
        rule: calibration(f"Calibration, {rule}", choice.confidence, choice.right, config.bins)
        for rule, choice in classified.by_rule.items()
    }
    table = _accuracy(classified, answers, scores, diagrams, config.seed)
    headline = dict(zip(table.columns, table.rows[_row_name(OVER_PRIOR)], strict=True))
    headline |= {f"{ACCURACY}, {WITH_PRIOR}": table.rows[_row_name(WITH_PRIOR)][0]}
    published = Metric(PUBLISHED.get(dataset.name), note=PUBLISHED_NOTE)
    return EvalResult(
        kind="classification",
        title=dataset.name,
        checkpoint=model.name,
        headline=headline,
        tables=[table, _by_class(classified, scores), *skipped_tables(answers.missing)],
        notices=[
            *skipped_notices(len(items), answers.missing, noun="recordings"),
            *cut_notices((item.path, response.cut) for item, response in answers.answered),
        ],
        missing=len(answers.missing),
        confusions=[
            Confusion(f"Labels, {rule}", classes, values.counts.tolist())
            for rule, values in scores.items()
        ],
        reliabilities=list(diagrams.values()),
        worst=_worst(classified, answers, texts, prompt),
        published={ACCURACY: published} if dataset.name in PUBLISHED else {},
        settings=_settings(prompt, texts, dataset, config) | dict(model.settings),
    )


def _settings(
    prompt: str, texts: Mapping[str, str], dataset: LabelledSet, config: ClassificationConfig
) -> dict[str, str]:
    """Return the prompt, the labels' texts and other settings, for the report."""
    return {
        "prompt": prompt,
        "labels": "; ".join(f"{label}: {text}" for label, text in texts.items()),
        SPLIT: describe_split(dataset, config.all_splits),
        "probabilities": f"softmax over the labels; {config.bins} bins of equal width",
        "intervals": interval_note(config.seed),
    }


def _row_name(rule: str) -> str:
    return f"this model, {rule}"


def _accuracy(
    classified: Classified,
    answers: Answers[LabelledClip],
    scores: Mapping[str, ClassScores],
    diagrams: Mapping[str, Reliability],
    seed: int,
) -> Table:
    """Return a table of the metrics of both rules, and the accuracy of baselines without audio.

    `scores` and `diagrams` have the class scores and the reliability diagram of each rule.
    """
    expected, classes, prior = classified.expected, classified.classes, classified.prior
    # Ties go to the first class.
    majority = int(np.bincount(expected, minlength=len(classes)).argmax())
    right = {_row_name(rule): choice.right for rule, choice in classified.by_rule.items()}
    right |= {
        f"always the most frequent label ({classes[majority]})": expected == majority,
        f"always the likeliest label without audio ({classes[prior]})": expected == prior,
    }
    accuracies = mean_metrics(right, [item.path for item in answers.items], seed)
    rows: dict[str, list[Metric | None]] = {
        name: [accuracy, None, None] for name, accuracy in accuracies.items()
    }
    for rule, values in scores.items():
        rows[_row_name(rule)][1:] = [Metric(values.macro_f1), Metric(diagrams[rule].ece)]
    rows["chance"] = [Metric(1 / len(classes)), None, None]
    note = "Prior: a label's likelihood without audio. Only this model uses the audio."
    return Table("Accuracy", [ACCURACY, MACRO_F1, CALIBRATION_ERROR], rows, note)


def _by_class(classified: Classified, scores: Mapping[str, ClassScores]) -> Table:
    """Return a table of the recall, precision and F1 of each class."""
    over, with_prior = scores[OVER_PRIOR], scores[WITH_PRIOR]
    expected = Counter(classified.expected.tolist())
    predicted = Counter(classified.by_rule[OVER_PRIOR].predicted.tolist())
    # Precision is shown with the count of the chosen label, recall and F1 with the true label's.
    columns = {
        f"recall, {OVER_PRIOR}": (over.recall, expected),
        f"recall, {WITH_PRIOR}": (with_prior.recall, expected),
        f"precision, {OVER_PRIOR}": (over.precision, predicted),
        f"F1, {OVER_PRIOR}": (over.f1, expected),
    }
    rows = {
        label: [
            None if np.isnan(values[n]) else Metric(float(values[n]), count=counts[n])
            for values, counts in columns.values()
        ]
        for n, label in enumerate(classified.classes)
    }
    return Table("Labels", list(columns), rows)


def _worst(
    classified: Classified, answers: Answers[LabelledClip], texts: Mapping[str, str], prompt: str
) -> list[Example]:
    """Return wrong choices, the most confident first, for the report."""
    choice = classified.by_rule[OVER_PRIOR]
    wrong = np.flatnonzero(~choice.right)
    worst = []
    for row in wrong[np.argsort(-choice.confidence[wrong], kind="stable")][:MAX_WORST]:
        expected, predicted = classified.expected[row], choice.predicted[row]
        probabilities = choice.probabilities[row]
        worst.append(
            Example(
                audio=str(answers.items[row].path),
                question=prompt,
                expected=texts[classified.classes[expected]],
                predicted=texts[classified.classes[predicted]],
                score=float(probabilities[expected] - probabilities[predicted]),
            )
        )
    return worst
