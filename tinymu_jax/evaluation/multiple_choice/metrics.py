"""Compute the metrics, tables and charts of graded multiple-choice answers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.evaluation.answer_parsing import LIKELIHOOD, OFFICIAL, RULES, STRICT, Reading
from tinymu_jax.evaluation.bootstrap import interval_note, mean_metrics
from tinymu_jax.evaluation.multiple_choice.questions import (
    DATASET,
    GENRE,
    KINDS,
    KNOWLEDGE,
    REASONING,
    ChoiceQuestion,
)
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Radar
from tinymu_jax.evaluation.skipped import cut_notices, skipped_notices, skipped_tables
from tinymu_jax.evaluation.tables import (
    ALL,
    BASELINES_NOTE,
    BASELINES_TITLE,
    MAX_WORST,
    UNANSWERED,
    MetricPlace,
    QuestionScores,
    cells_to_table,
    choice_confusion,
)

BY_LABEL = (KNOWLEDGE, REASONING, GENRE, DATASET)
ACCURACY, BASELINES, CHOSEN = "accuracy", "baselines", "chosen"
"""Keys of the tables that do not list the accuracy by tag."""
NOT_SHOWN = "a letter not shown"
"""Row of the answers whose letter by the official rule belongs to no option."""
TITLES = {
    ACCURACY: (
        "Accuracy by rule",
        "Knowledge and reasoning: questions with any such tag. The official rule takes any capital "
        "A to D for a letter: a perfect model that answers with the options' texts gets 81.3 % of "
        "MuChoMusic by it.",
    ),
    BASELINES: (BASELINES_TITLE, BASELINES_NOTE),
    KNOWLEDGE: ("Knowledge", ""),
    REASONING: ("Reasoning", ""),
    GENRE: ("Genre", ""),
    DATASET: ("Data set", ""),
    CHOSEN: (
        "What is chosen",
        "The instruction-following rate is the share of answers not unanswered by the official "
        "rule.",
    ),
}
"""Title and note of each table, in the order of the report."""
PUBLISHED = {ACCURACY: 0.586, KNOWLEDGE: 0.583, REASONING: 0.596}
"""Published fractions of right answers, by metric name."""
PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849) on all of MuChoMusic"
QUESTIONS = 1187
"""Number of questions of MuChoMusic; results on fewer are not compared with `PUBLISHED`."""


class Graded(NamedTuple):
    """A question with the model's answer, and the option that the answer chooses by each rule."""

    question: ChoiceQuestion
    answer: str
    log_likelihoods: tuple[float, ...]
    reading: Reading
    text_only: Reading | None
    """Options that the answer without audio chooses, by each rule; None if not asked."""
    cut: bool
    """Whether only the beginning of the recording was encoded."""


class Outcome(NamedTuple):
    """The graded questions of an evaluation, and the errors of the skipped questions."""

    graded: Sequence[Graded]
    too_long: Sequence[str]
    """Error of each question that was skipped because its prompt is too long."""
    missing: Sequence[str]
    """Error of each question that was skipped because its recording cannot be read."""
    generated: bool
    """Whether answers were generated; if not, only the options' likelihoods were compared."""

    @property
    def total(self) -> int:
        """The number of questions, including skipped questions."""
        return len(self.graded) + len(self.too_long) + len(self.missing)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the grading rules; only the likelihood rule if no answers were generated."""
        return RULES if self.generated else (LIKELIHOOD,)


def choice_result(
    outcome: Outcome, checkpoint: str, settings: Mapping[str, str], seed: int = 0
) -> EvalResult:
    """Return all metrics, tables and charts of an evaluation with at least one graded question.

    The report shows `settings`. `seed` sets the resamples for the confidence intervals.
    """
    recordings = [one.question.audio for one in outcome.graded]
    metrics = mean_metrics(dict(_cell_scores(outcome)), recordings, seed)
    headline = _headline(metrics)
    tables = [cells_to_table(metrics, key, *titles) for key, titles in TITLES.items()]
    return EvalResult(
        kind="MuChoMusic",
        title="MuChoMusic",
        checkpoint=checkpoint,
        headline=headline,
        tables=[
            *(table for table in tables if table),
            *skipped_tables([*outcome.missing, *outcome.too_long]),
        ],
        notices=_notices(outcome, metrics),
        missing=len(outcome.missing),
        radars=_radars(metrics, outcome.rules),
        confusions=[_letters(outcome.graded, rule) for rule in outcome.rules],
        worst=_worst(outcome),
        published={
            name: Metric(value, note=PUBLISHED_NOTE)
            for name, value in PUBLISHED.items()
            if name in headline and outcome.total == QUESTIONS
        },
        settings={**settings, "intervals": interval_note(seed)},
    )


def _choices(graded: Sequence[Graded], rule: str) -> list[int | None]:
    """Return the index of the option that each answer chooses by a rule; None if none is chosen."""
    return [one.reading[RULES.index(rule)] for one in graded]


def _right(graded: Sequence[Graded], rule: str) -> QuestionScores:
    """Return 1 for each answer that chooses the right option by a rule, else 0."""
    choices = zip(graded, _choices(graded, rule), strict=True)
    return np.array([float(number == one.question.right) for one, number in choices])


def _cell_scores(outcome: Outcome) -> Iterator[tuple[MetricPlace, QuestionScores]]:
    """Yield, for each metric, its place in the report and the question scores that it averages."""
    graded, groups = outcome.graded, _groups(outcome.graded)
    for rule in outcome.rules:
        right = _right(graded, rule)
        for name, group in groups.items():
            yield MetricPlace(ACCURACY, name, rule), np.where(group, right, np.nan)
        for label in BY_LABEL:
            for tag in sorted({tag for one in graded for tag in _tags(one, label)}):
                has_tag = [tag in _tags(one, label) for one in graded]
                yield MetricPlace(label, tag, rule), np.where(has_tag, right, np.nan)
        yield from _chosen_kinds(graded, rule)
    for row, scores in _baselines(outcome).items():
        for name, group in groups.items():
            yield MetricPlace(BASELINES, row, name), np.where(group, scores, np.nan)


def _tags(graded: Graded, label: str) -> tuple[str, ...]:
    return graded.question.labels.get(label, ())


def _groups(graded: Sequence[Graded]) -> Mapping[str, Bool[np.ndarray, "Q"]]:
    """Return masks of all, of knowledge and of reasoning questions, by name; omit empty masks."""
    groups = {ALL: np.ones(len(graded), bool)}
    groups |= {
        label: np.array([bool(_tags(one, label)) for one in graded])
        for label in (KNOWLEDGE, REASONING)
    }
    return {name: group for name, group in groups.items() if group.any()}


def _chosen_kinds(
    graded: Sequence[Graded], rule: str
) -> Iterator[tuple[MetricPlace, QuestionScores]]:
    """Yield, for each kind of option, its place in the report and a score for each question.

    A kind is one of `KINDS`, such as "right". The score is 1 if the model chose an option of the
    kind, by `rule`, 0 if not, and NaN if the kinds of the question's options are unknown. Two more
    kinds follow: letters that were not shown (omitted if none was chosen), and no option.
    """
    choices = _choices(graded, rule)
    pairs = [(one.question.kinds, number) for one, number in zip(graded, choices, strict=True)]
    known = {kind for kinds, _ in pairs for kind in kinds}
    for kind in (kind for kind in KINDS if kind in known):
        scores = [
            float(number is not None and kind in kinds[number : number + 1]) if kinds else np.nan
            for kinds, number in pairs
        ]
        yield MetricPlace(CHOSEN, kind, rule), np.array(scores)
    not_shown = [
        float(number is not None and number >= len(one.question.options))
        for one, number in zip(graded, choices, strict=True)
    ]
    if any(not_shown):
        yield MetricPlace(CHOSEN, NOT_SHOWN, rule), np.array(not_shown)
    yield (
        MetricPlace(CHOSEN, UNANSWERED, rule),
        np.array([float(number is None) for number in choices]),
    )


def _baselines(outcome: Outcome) -> Mapping[str, Float[np.ndarray, "Q"]]:
    """Return the question scores of the model (by each rule) and of each baseline, by name."""
    graded = outcome.graded
    rows = {f"this model, {rule}": _right(graded, rule) for rule in outcome.rules}
    by_rule = option_baselines([(one.question.options, one.question.right) for one in graded])
    rows |= {name: np.array(scores) for name, scores in by_rule.items()}
    text_only = [one._replace(reading=one.text_only) for one in graded if one.text_only is not None]
    if text_only:
        rows |= {
            f"this model without audio, {rule}": _right(text_only, rule) for rule in outcome.rules
        }
    return rows


def _headline(metrics: Mapping[MetricPlace, Metric]) -> dict[str, Metric]:
    """Return the main metrics by name; those that need generated answers may have only a note."""
    cells = {
        ACCURACY: MetricPlace(ACCURACY, ALL, OFFICIAL),
        KNOWLEDGE: MetricPlace(ACCURACY, KNOWLEDGE, OFFICIAL),
        REASONING: MetricPlace(ACCURACY, REASONING, OFFICIAL),
        f"{ACCURACY}, {STRICT}": MetricPlace(ACCURACY, ALL, STRICT),
        f"{ACCURACY}, {LIKELIHOOD}": MetricPlace(ACCURACY, ALL, LIKELIHOOD),
        UNANSWERED: MetricPlace(CHOSEN, UNANSWERED, OFFICIAL),
    }
    unavailable = Metric(None, note="no answers were generated")
    return {
        name: metrics.get(cell, unavailable)
        for name, cell in cells.items()
        # The headline omits metrics of groups without questions.
        if cell._replace(column=LIKELIHOOD) in metrics
    }


def _notices(outcome: Outcome, metrics: Mapping[MetricPlace, Metric]) -> list[str]:
    notices = skipped_notices(outcome.total, outcome.missing, outcome.too_long)
    untagged = [label for label in (KNOWLEDGE, REASONING) if not _tags_of(metrics, label)]
    if untagged:
        notices.append(
            f"No question has tags of {' or of '.join(untagged)}: such rows are omitted; "
            "MuChoMusic's csv has these tags"
        )
    return notices + cut_notices((one.question.audio, one.cut) for one in outcome.graded)


def _tags_of(metrics: Mapping[MetricPlace, Metric], label: str) -> list[str]:
    """Return the tags in the rows of the table `label` (`KNOWLEDGE` or `REASONING`)."""
    return list(dict.fromkeys(cell.row for cell in metrics if cell.table == label))


def _radars(metrics: Mapping[MetricPlace, Metric], rules: Sequence[str]) -> list[Radar]:
    """Return a list with one radar chart, the accuracy by tag; [] for fewer than three tags."""
    axes = [(label, tag) for label in (KNOWLEDGE, REASONING) for tag in _tags_of(metrics, label)]
    if len(axes) < 3:
        return []
    series = {
        rule: [metrics[MetricPlace(*axis, rule)].value or 0.0 for axis in axes] for rule in rules
    }
    tags = [tag for _, tag in axes]
    names = [tag if tags.count(tag) == 1 else f"{label}: {tag}" for label, tag in axes]
    return [Radar("Accuracy by tag", names, series)]


def _letters(graded: Sequence[Graded], rule: str) -> Confusion:
    """Return the confusion matrix of right letters (rows) and letters chosen by a rule."""
    right, choices = [one.question.right for one in graded], _choices(graded, rule)
    numbers = [*(len(one.question.options) - 1 for one in graded), *filter(None, choices)]
    letters = LETTERS[: max(numbers) + 1]
    return choice_confusion(f"Letters, {rule}", letters, right, choices)


def _worst(outcome: Outcome) -> list[Example]:
    """Return at most `MAX_WORST` wrong answers as examples, those with the lowest score first.

    The score is the log-likelihood of the right option minus that of the likeliest wrong option.
    """
    rule = outcome.rules[0]
    wrong = []
    for one, right in zip(outcome.graded, _right(outcome.graded, rule), strict=True):
        if right:
            continue
        question, scores = one.question, one.log_likelihoods
        others = [score for number, score in enumerate(scores) if number != question.right]
        wrong.append(
            Example(
                audio=str(question.audio),
                question=question.question,
                expected=question.lettered[question.right],
                predicted=one.answer,
                score=scores[question.right] - max(others),
                options=question.lettered,
            )
        )
    return sorted(wrong, key=lambda example: example.score)[:MAX_WORST]
