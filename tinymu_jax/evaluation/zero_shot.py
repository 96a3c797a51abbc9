"""Zero-shot classification: which label is the most probable answer, having heard the recording.

Some labels are probable answers whatever is heard. What a label is worth without audio is taken off
(`tinymu_jax.inference.option_scoring`): log P(label | audio, prompt) - log P(label | prompt).
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tinymu_jax.data.annotations.labelled import SPLITS, LabelledClip, LabelledSet, read_label_rows
from tinymu_jax.data.annotations.labelled_archives import read_labelled_set
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.bootstrap import RESAMPLES, measure_shares
from tinymu_jax.evaluation.calibration import BINS, calibration, softmax
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Reliability, Table
from tinymu_jax.evaluation.skipped import (
    Answers,
    cut_notices,
    skipped_notices,
    skipped_tables,
    sort_replies,
)
from tinymu_jax.inference.engine import Request, Response
from tinymu_jax.utils.files import read_text

Put = Callable[[Sequence[Request]], Sequence[Response | InputError]]

PROMPTS = {
    "GTZAN": "What is the genre of this music?",
    "NSynth": "Which instrument is playing?",
    "Medley-Solos-DB": "Which instrument is playing?",
}
"""By the names of data sets."""

PROMPT = "What do you hear in this recording?"
"""Of other data sets."""

TASK = "Classification"


@dataclass(frozen=True)
class ClassificationConfig:
    """How recordings are classified."""

    prompt: str | None = None
    """None: one of `PROMPTS`."""
    words: str | None = None
    """Path of a csv of label,text that says how labels are called."""
    every_part: bool = False
    """Whether recordings of the other parts are classified too, not only those for the test."""
    bins: int = BINS
    """Of confidence, for the calibration error."""
    seed: int = 0
    """Of the intervals' resamples."""


def evaluate_classification(
    put: Put,
    found: LabelledSet,
    checkpoint: str,
    config: ClassificationConfig | None = None,
    settings: Mapping[str, str] | None = None,
) -> EvalResult:
    """Classifies the recordings of a data set's test part.

    Args:
        put: asks; an `InputError` in the place of a reply says that the recording is of no use. It
            is called once.
        found: the data set, each recording with one label: see `.class_labels`.
        checkpoint: what is evaluated.
        config: how they are classified.
        settings: more that the numbers depend on.

    Raises:
        InputError: no test part; labels that cannot be told apart; no bins; no recording could be
            classified.
    """
    config = config or ClassificationConfig()
    if config.bins < 1:
        raise InputError(f"bins is {config.bins}: give 1 or more")
    words = label_words(found.classes, config.words)
    items = recordings_to_test(found, config.every_part)
    prompt = config.prompt or PROMPTS.get(found.name, PROMPT)
    nothing = Request(None, prompt, TASK, tuple(words.values()), score_only=True)
    *replies, unheard = put([*(nothing._replace(audio=item.path) for item in items), nothing])
    if isinstance(unheard, InputError):
        raise unheard
    answers = sort_replies(items, replies)
    classified = classify(
        found.classes,
        [item.labels[0] for item, _ in answers.answered],
        np.array([reply.log_likelihoods for _, reply in answers.answered], np.float64),
        np.array(unheard.log_likelihoods, np.float64),
    )
    depends = {
        "prompt": prompt,
        "labels": "; ".join(f"{label}: {own}" for label, own in words.items()),
        "part": "all" if config.every_part or found.folds else "test",
        "probabilities": f"softmax over the labels; {config.bins} bins of equal width",
        "intervals": f"95 %, {RESAMPLES:,} resamples of recordings, seed {config.seed}",
        **(settings or {}),
    }
    named = EvalResult("classification", found.name, checkpoint, {}, (), settings=depends)
    return class_findings(named, classified, answers, words, config.bins, config.seed)


TEST = "test"

WORDS = {"hiphop": "Hip-hop", "rnb": "R&B"}
"""Labels whose words do not follow from their letters."""

COLUMNS = ("label", "text")
"""Of a csv that says how labels are called."""


def read_recordings(
    data: str | Path, audio: str | Path = ".", name: str | None = None, label: str | None = None
) -> LabelledSet:
    """Reads a data set by its name, or a csv of `file`, `label` and, if it has one, `split`.

    Args:
        data: folder of the data set, or the csv. Its recordings without a split are all tested.
        audio: folder of the recordings that a csv names.
        name: of the data set: see `tinymu_jax.data.annotations.labelled_archives.READERS`.
        label: name of the csv's column of labels, where it is another.

    Raises:
        InputError: it cannot be read; fewer than two labels; a recording with no or several labels.
    """
    if name is not None:
        found = read_labelled_set(name, data)
    elif Path(data).is_dir():
        raise InputError(f"{data}: is a folder; say which data set it is (--set), or name a csv")
    else:
        _, rows = read_label_rows(data, label)
        items = [LabelledClip(Path(audio) / file, own, split or TEST) for file, own, split in rows]
        # No name of a data set that figures are published of, and another for another column.
        title = ", ".join(filter(None, (Path(data).name, label)))
        found = LabelledSet(title, items, multi_label=False)
    unfit = next((item for item in found.clips if len(item.labels) != 1), None)
    if unfit is not None:
        raise InputError(
            f"{found.name}: {unfit.path} has {len(unfit.labels)} labels, and one is chosen; name "
            "a data set or column with one label for each recording"
        )
    if len(found.classes) < 2:
        raise InputError(
            f"{found.name}: has {len(found.classes)} label; there must be two or more to choose "
            "from"
        )
    return found


def recordings_to_test(found: LabelledSet, every_part: bool = False) -> list[LabelledClip]:
    """Returns the recordings of the test part, or all of a data set in folds.

    Args:
        found: the data set.
        every_part: whether those of the other parts are to be tested too.

    Raises:
        InputError: there is no test part; parts and folds are mixed.
    """
    folds = set(found.folds)
    if folds & set(SPLITS) and folds - set(SPLITS):
        raise InputError(
            f"{found.name}: its splits are {', '.join(sorted(folds))}; name parts "
            f"({', '.join(SPLITS)}) or folds, not both"
        )
    items = [item for item in found.clips if every_part or found.folds or item.split == TEST]
    if not items:
        raise InputError(
            f"{found.name}: has no recording of split {TEST!r}; add some, or ask about every part"
        )
    return items


def as_words(label: str) -> str:
    """Returns a label as an answer would name it: "synth_lead" as "Synth lead"."""
    words = WORDS.get(label.lower()) or " ".join(label.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def label_words(classes: Iterable[str], path: str | Path | None = None) -> dict[str, str]:
    """Returns how each label is called: as a csv says, or else `as_words`.

    Args:
        classes: the labels.
        path: of a csv of `COLUMNS`, which may leave labels out.

    Raises:
        InputError: it is no such csv; it names an unknown label, or one twice; two labels are
            called the same.
    """
    words = {label: as_words(label) for label in classes}
    if path is not None:
        words |= _read_words(path, words)
    called: dict[str, str] = {}
    for label, own in words.items():
        other = called.setdefault(own, label)
        if other != label:
            raise InputError(
                f"labels {other!r} and {label!r} are both called {own!r}, so that neither can be "
                f"chosen; name them apart in a csv of {','.join(COLUMNS)}"
            )
    return words


def _read_words(path: str | Path, known: Iterable[str]) -> dict[str, str]:
    """Returns what a csv calls labels."""
    text = read_text(path, f"name a csv of {','.join(COLUMNS)}").removeprefix("\ufeff")
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; its first line is to name "
            f"{','.join(COLUMNS)}"
        )
    found: dict[str, str] = {}
    for row in rows:
        where = f"{path}: line {rows.line_num}"
        label, own = ((row[column] or "").strip() for column in COLUMNS)
        if None in row or not label or not own:
            raise InputError(f"{where} has empty or more fields; repair it")
        if label not in known:
            raise InputError(
                f"{where}: {label!r} is no label of the data set; use {', '.join(sorted(known))}"
            )
        if label in found:
            raise InputError(f"{where}: names {label!r} twice; keep one line of each label")
        found[label] = own
    return found


OVER_PRIOR, WITH_PRIOR = "prior taken off", "prior left in"
"""The two rules that a label is chosen by."""


class Chosen(NamedTuple):
    """The labels that a rule chooses, by their numbers among the classes."""

    number: Int[np.ndarray, "R"]
    """Of each recording."""
    probabilities: Float[np.ndarray, "R C"]
    right: Bool[np.ndarray, "R"]

    @property
    def confidence(self) -> Float[np.ndarray, "R"]:
        """Returns the probability of each chosen label."""
        return self.probabilities.max(axis=1)


class Classified(NamedTuple):
    """All recordings with their labels."""

    classes: Sequence[str]
    wanted: Int[np.ndarray, "R"]
    """Numbers of the right classes."""
    prior: int
    """Number of the class that is the most probable without audio."""
    by_rule: Mapping[str, Chosen]


class ClassScores(NamedTuple):
    """Figures of each class; nan where there is nothing to count."""

    counts: Int[np.ndarray, "C C"]
    """How often which class (row) was taken for which (column)."""
    recall: Float[np.ndarray, "C"]
    precision: Float[np.ndarray, "C"]
    f1: Float[np.ndarray, "C"]

    @property
    def macro_f1(self) -> float:
        """Returns the mean over the classes that occur, be it as a wrong choice alone."""
        return float(np.nanmean(self.f1))


def classify(
    classes: Sequence[str],
    wanted: Sequence[str],
    heard: Float[np.ndarray, "R C"],
    unheard: Float[np.ndarray, "C"],
) -> Classified:
    """Chooses a label for each recording by both rules.

    Args:
        classes: the labels.
        wanted: of each recording.
        heard: log-likelihoods of the labels, having heard the recording.
        unheard: the same without audio.
    """
    numbers = np.array([classes.index(label) for label in wanted])

    def choose(scores: Float[np.ndarray, "R C"]) -> Chosen:
        number = scores.argmax(axis=1)
        return Chosen(number, softmax(scores), number == numbers)

    by_rule = {OVER_PRIOR: choose(heard - unheard), WITH_PRIOR: choose(heard)}
    return Classified(classes, numbers, int(unheard.argmax()), by_rule)


def class_scores(
    wanted: Int[np.ndarray, "R"], chosen: Int[np.ndarray, "R"], classes: int
) -> ClassScores:
    """Returns the figures of each class.

    Args:
        wanted: numbers of the right classes.
        chosen: numbers of those chosen.
        classes: how many there are.
    """
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (wanted, chosen), 1)
    hits, there, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(classes, np.nan), where=whole > 0)

    return ClassScores(counts, share(hits, there), share(hits, said), share(2 * hits, there + said))


ACCURACY, MACRO_F1, ERROR = "accuracy", "macro F1", "calibration error"

PUBLISHED = {"GTZAN": 0.657, "Medley-Solos-DB": 0.951}

PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849), zero-shot"

WORST = 20


def class_findings(
    named: EvalResult,
    classified: Classified,
    answers: Answers[LabelledClip],
    words: Mapping[str, str],
    bins: int,
    seed: int,
) -> EvalResult:
    """Counts what was chosen.

    Args:
        named: the findings as far as they are known before.
        classified: the choices.
        answers: of the recordings, in the same order.
        words: how each label is called.
        bins: of confidence.
        seed: of the intervals' resamples.
    """
    scores = {
        rule: class_scores(classified.wanted, chosen.number, len(classified.classes))
        for rule, chosen in classified.by_rule.items()
    }
    pictures = {
        rule: calibration(f"Calibration, {rule}", chosen.confidence, chosen.right, bins)
        for rule, chosen in classified.by_rule.items()
    }
    table = _accuracy(classified, answers, scores, pictures, seed)
    headline = dict(zip(table.columns, table.rows[_model(OVER_PRIOR)], strict=True))
    headline |= {f"{ACCURACY}, {WITH_PRIOR}": table.rows[_model(WITH_PRIOR)][0]}
    total = len(answers.answered) + len(answers.missing)
    published = Metric(PUBLISHED.get(named.title), note=PUBLISHED_NOTE)
    return replace(
        named,
        headline=headline,
        tables=[table, _by_class(classified, scores), *skipped_tables(answers.missing)],
        notices=[
            *skipped_notices(total, answers.missing, noun="recordings"),
            *cut_notices((item.path, reply.cut) for item, reply in answers.answered),
        ],
        missing=len(answers.missing),
        confusions=[
            Confusion(f"Labels, {rule}", classified.classes, own.counts.tolist())
            for rule, own in scores.items()
        ],
        reliabilities=list(pictures.values()),
        worst=_worst(classified, answers, words, named.settings["prompt"]),
        published={ACCURACY: published} if named.title in PUBLISHED else {},
    )


def _model(rule: str) -> str:
    """Returns the name of the model's row."""
    return f"this model, {rule}"


def _accuracy(
    classified: Classified,
    answers: Answers[LabelledClip],
    scores: Mapping[str, ClassScores],
    pictures: Mapping[str, Reliability],
    seed: int,
) -> Table:
    """Returns the figures of both rules, and accuracies without listening."""
    wanted, classes = classified.wanted, classified.classes
    # Of classes that are as frequent, the first.
    majority = int(np.bincount(wanted, minlength=len(classes)).argmax())
    marks = {_model(rule): chosen.right for rule, chosen in classified.by_rule.items()}
    marks |= {
        f"always the most frequent label ({classes[majority]})": wanted == majority,
        f"always the likeliest label without audio ({classes[classified.prior]})": wanted
        == classified.prior,
    }
    shares = measure_shares(marks, [item.path for item, _ in answers.answered], seed)
    rows: dict[str, list[Metric | None]] = {
        name: [share, None, None] for name, share in shares.items()
    }
    for rule, own in scores.items():
        rows[_model(rule)][1:] = [Metric(own.macro_f1), Metric(pictures[rule].ece)]
    rows["chance"] = [Metric(1 / len(classes)), None, None]
    return Table(
        "Accuracy",
        [ACCURACY, MACRO_F1, ERROR],
        rows,
        "Prior: what a label's words are worth without audio. Only the model listens.",
    )


def _by_class(classified: Classified, scores: Mapping[str, ClassScores]) -> Table:
    """Returns the figures of each class."""
    over, with_prior = scores[OVER_PRIOR], scores[WITH_PRIOR]
    columns = {
        f"right, {OVER_PRIOR}": over.recall,
        f"right, {WITH_PRIOR}": with_prior.recall,
        f"precision, {OVER_PRIOR}": over.precision,
        f"F1, {OVER_PRIOR}": over.f1,
    }
    wanted = Counter(classified.wanted.tolist())
    # Precision is a share of what was chosen, all else of what is so.
    chosen = Counter(classified.by_rule[OVER_PRIOR].number.tolist())

    def cells(number: int) -> list[Metric | None]:
        values = {name: float(column[number]) for name, column in columns.items()}
        return [
            None
            if np.isnan(value)
            else Metric(value, count=(chosen if name.startswith("precision") else wanted)[number])
            for name, value in values.items()
        ]

    rows = {label: cells(number) for number, label in enumerate(classified.classes)}
    return Table("Labels", list(columns), rows)


def _worst(
    classified: Classified, answers: Answers[LabelledClip], words: Mapping[str, str], prompt: str
) -> Sequence[Example]:
    """Returns what is wrong, most confident first; scored by how much likelier the right one is."""
    chosen = classified.by_rule[OVER_PRIOR]
    wrong = np.flatnonzero(~chosen.right)
    found = []
    for row in wrong[np.argsort(-chosen.confidence[wrong], kind="stable")][:WORST]:
        right, said = (classified.classes[n[row]] for n in (classified.wanted, chosen.number))
        probabilities = chosen.probabilities[row]
        score = probabilities[classified.wanted[row]] - probabilities[chosen.number[row]]
        path = str(answers.answered[row][0].path)
        found.append(Example(path, prompt, words[right], words[said], float(score)))
    return found
