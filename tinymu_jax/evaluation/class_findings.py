"""What zero-shot classification shows: findings for a report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinymu_jax.data.labelled import Item
from tinymu_jax.evaluation.calibration import calibration
from tinymu_jax.evaluation.class_marks import (
    OVER_PRIOR,
    WITH_PRIOR,
    Classified,
    ClassScores,
    class_scores,
)
from tinymu_jax.evaluation.findings import (
    Answered,
    Confusion,
    Findings,
    Measure,
    Reliability,
    Table,
)
from tinymu_jax.evaluation.intervals import measure_shares
from tinymu_jax.evaluation.left_out import (
    Answers,
    cut_notices,
    left_out_notices,
    left_out_tables,
)

ACCURACY, MACRO_F1, ERROR = "accuracy", "macro F1", "calibration error"
PUBLISHED = {"GTZAN": 0.657, "Medley-Solos-DB": 0.951}
PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849), zero-shot"
WORST = 20


def class_findings(
    named: Findings,
    classified: Classified,
    answers: Answers[Item],
    words: Mapping[str, str],
    bins: int,
    seed: int,
) -> Findings:
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
    published = Measure(PUBLISHED.get(named.title), note=PUBLISHED_NOTE)
    return replace(
        named,
        headline=headline,
        tables=[table, _by_class(classified, scores), *left_out_tables(answers.missing)],
        notices=[
            *left_out_notices(total, answers.missing, noun="recordings"),
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
    answers: Answers[Item],
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
    rows: dict[str, list[Measure | None]] = {
        name: [share, None, None] for name, share in shares.items()
    }
    for rule, own in scores.items():
        rows[_model(rule)][1:] = [Measure(own.macro_f1), Measure(pictures[rule].error)]
    rows["chance"] = [Measure(1 / len(classes)), None, None]
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

    def cells(number: int) -> list[Measure | None]:
        values = {name: float(column[number]) for name, column in columns.items()}
        return [
            None
            if np.isnan(value)
            else Measure(value, count=(chosen if name.startswith("precision") else wanted)[number])
            for name, value in values.items()
        ]

    rows = {label: cells(number) for number, label in enumerate(classified.classes)}
    return Table("Labels", list(columns), rows)


def _worst(
    classified: Classified, answers: Answers[Item], words: Mapping[str, str], prompt: str
) -> Sequence[Answered]:
    """Returns what is wrong, most confident first; scored by how much likelier the right one is."""
    chosen = classified.by_rule[OVER_PRIOR]
    wrong = np.flatnonzero(~chosen.right)
    found = []
    for row in wrong[np.argsort(-chosen.confidence[wrong], kind="stable")][:WORST]:
        right, said = (classified.classes[n[row]] for n in (classified.wanted, chosen.number))
        probabilities = chosen.probabilities[row]
        score = probabilities[classified.wanted[row]] - probabilities[chosen.number[row]]
        path = str(answers.answered[row][0].path)
        found.append(Answered(path, prompt, words[right], words[said], float(score)))
    return found
