"""What answers to multiple choice show: findings for a report, as of MuChoMusic."""

from collections.abc import Mapping, Sequence

from tinymu_jax.data.questions import LETTERS
from tinymu_jax.evaluation.choice_marks import (
    ACCURACY,
    ALL,
    BASELINES,
    CHOSEN,
    UNANSWERED,
    Cell,
    Marked,
    Outcome,
    chosen_by,
    mark_cells,
    right_by,
)
from tinymu_jax.evaluation.choice_questions import DATASET, GENRE, KNOWLEDGE, REASONING
from tinymu_jax.evaluation.choice_rules import LIKELIHOOD, OFFICIAL, STRICT
from tinymu_jax.evaluation.findings import Answered, Confusion, Findings, Measure, Radar, Table
from tinymu_jax.evaluation.intervals import RESAMPLES, measure_shares
from tinymu_jax.evaluation.left_out import cut_notices, left_out_notices, left_out_tables

TITLES = {
    ACCURACY: (
        "Accuracy by rule",
        "Knowledge and reasoning: questions with any such tag. The official rule takes any capital "
        "A to D for a letter: a perfect model that answers with the options' texts gets 81.3 % of "
        "MuChoMusic by it.",
    ),
    BASELINES: (
        "Without listening, by the same questions",
        "Of options that are equally short or long, each is chosen as often.",
    ),
    KNOWLEDGE: ("Knowledge", ""),
    REASONING: ("Reasoning", ""),
    GENRE: ("Genre", ""),
    DATASET: ("Data set", ""),
    CHOSEN: (
        "What is chosen",
        "The instruction-following rate is what is not unanswered by the official rule.",
    ),
}
"""Titles and notes of the tables, in their order."""
PUBLISHED = {ACCURACY: 0.586, KNOWLEDGE: 0.583, REASONING: 0.596}
"""By the names of the headline."""
PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849) on all of MuChoMusic"
QUESTIONS = 1187
"""Of MuChoMusic: what is published is of no other list."""
WORST = 20

Measures = Mapping[Cell, Measure]


def choice_findings(
    outcome: Outcome, checkpoint: str, settings: Mapping[str, str], seed: int = 0
) -> Findings:
    """Counts what was answered.

    Args:
        outcome: with at least one question that was answered.
        checkpoint: what is evaluated.
        settings: what the numbers depend on.
        seed: of the intervals' resamples.
    """
    marked = outcome.marked
    measures = measure_shares(mark_cells(outcome), [one.question.audio for one in marked], seed)
    headline = _headline(measures)
    intervals = f"95 %, {RESAMPLES:,} resamples of recordings, seed {seed}"
    return Findings(
        kind="MuChoMusic",
        title="MuChoMusic",
        checkpoint=checkpoint,
        headline=headline,
        tables=_tables(measures, outcome),
        notices=_notices(outcome, measures),
        missing=len(outcome.no_audio),
        radars=_radars(measures, outcome.rules),
        confusions=[_letters(marked, rule) for rule in outcome.rules],
        worst=_worst(outcome),
        published={
            name: Measure(value, note=PUBLISHED_NOTE)
            for name, value in PUBLISHED.items()
            if name in headline and outcome.total == QUESTIONS
        },
        settings={**settings, "intervals": intervals},
    )


def _headline(measures: Measures) -> dict[str, Measure]:
    """Returns the few numbers; those of rules that do not apply are not available."""
    cells = {
        ACCURACY: Cell(ACCURACY, ALL, OFFICIAL),
        KNOWLEDGE: Cell(ACCURACY, KNOWLEDGE, OFFICIAL),
        REASONING: Cell(ACCURACY, REASONING, OFFICIAL),
        f"{ACCURACY}, {STRICT}": Cell(ACCURACY, ALL, STRICT),
        f"{ACCURACY}, {LIKELIHOOD}": Cell(ACCURACY, ALL, LIKELIHOOD),
        UNANSWERED: Cell(CHOSEN, UNANSWERED, OFFICIAL),
    }
    headline = {}
    for name, cell in cells.items():
        # Where no question has such tags there is no such number, whatever the rule.
        if cell._replace(column=LIKELIHOOD) in measures:
            missing = Measure(None, note="no answers were generated")
            headline[name] = measures.get(cell, missing)
    return headline


def _tables(measures: Measures, outcome: Outcome) -> list[Table]:
    tables = [
        _table(measures, key, title, note)
        for key, (title, note) in TITLES.items()
        if any(cell.table == key for cell in measures)
    ]
    return [*tables, *left_out_tables([*outcome.no_audio, *outcome.too_long])]


def _table(measures: Measures, key: str, title: str, note: str) -> Table:
    """Returns a table of measures: rows and columns as they first come."""
    own = {cell: measure for cell, measure in measures.items() if cell.table == key}
    columns = list(dict.fromkeys(cell.column for cell in own))
    names = dict.fromkeys(cell.row for cell in own)
    rows = {row: [own.get(Cell(key, row, column)) for column in columns] for row in names}
    return Table(title, columns, rows, note)


def _notices(outcome: Outcome, measures: Measures) -> list[str]:
    """Returns what must be known first."""
    notices = left_out_notices(outcome.total, outcome.no_audio, outcome.too_long)
    bare = [label for label in (KNOWLEDGE, REASONING) if not _tags(measures, label)]
    if bare:
        notices.append(
            f"No question has tags of {' or of '.join(bare)}: such rows are left out; "
            "MuChoMusic's csv has these tags"
        )
    return notices + cut_notices((one.question.audio, one.cut) for one in outcome.marked)


def _tags(measures: Measures, label: str) -> list[str]:
    """Returns the tags of a kind that questions have."""
    return list(dict.fromkeys(cell.row for cell in measures if cell.table == label))


def _radars(measures: Measures, rules: Sequence[str]) -> list[Radar]:
    """Returns accuracy by tag; fewer than three make no circle."""
    axes = [(label, tag) for label in (KNOWLEDGE, REASONING) for tag in _tags(measures, label)]
    if len(axes) < 3:
        return []
    rings = {rule: [measures[Cell(*axis, rule)].value or 0.0 for axis in axes] for rule in rules}
    tags = [tag for _, tag in axes]
    names = [tag if tags.count(tag) == 1 else f"{label}: {tag}" for label, tag in axes]
    return [Radar("Accuracy by tag", names, rings)]


def _letters(marked: Sequence[Marked], rule: str) -> Confusion:
    """Returns which letters are chosen where which is right."""
    most = max(len(one.question.options) for one in marked)
    counts = [[0] * (most + 1) for _ in range(most + 1)]
    for one, number in zip(marked, chosen_by(marked, rule), strict=True):
        counts[one.question.right][most if number is None else number] += 1
    return Confusion(f"Letters, {rule}", [*LETTERS[:most], UNANSWERED], counts)


def _worst(outcome: Outcome) -> list[Answered]:
    """Returns what is answered wrong, most firmly first: by how much a wrong option is likelier."""
    rule = outcome.rules[0]
    wrong = []
    for one, right in zip(outcome.marked, right_by(outcome.marked, rule), strict=True):
        if right:
            continue
        question, scores = one.question, one.log_likelihoods
        others = [score for number, score in enumerate(scores) if number != question.right]
        wrong.append(
            Answered(
                audio=str(question.audio),
                question=question.question,
                wanted=question.lettered[question.right],
                said=one.said,
                score=scores[question.right] - max(others),
                options=question.lettered,
            )
        )
    return sorted(wrong, key=lambda one: one.score)[:WORST]
