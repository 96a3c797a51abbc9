"""What answers to a list's questions show: findings for a report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.data.blind_choices import blind_marks
from tinymu_jax.data.questions import LETTERS, MCQ, YES_NO
from tinymu_jax.evaluation.choice_marks import UNANSWERED, Cell
from tinymu_jax.evaluation.choice_rules import read_letter
from tinymu_jax.evaluation.findings import Answered, Confusion, Findings, Measure, Table
from tinymu_jax.evaluation.intervals import measure_shares
from tinymu_jax.evaluation.left_out import (
    Answers,
    cut_notices,
    left_out_notices,
    left_out_tables,
)
from tinymu_jax.evaluation.list_questions import YES_OR_NO, ListQuestion
from tinymu_jax.evaluation.synthetic.marking import read_yes_no
from tinymu_jax.evaluation.text_scores import BLEU, ROUGE_L, SETTINGS, bleu, exact, rouge_l

ACCURACY, EXACT = "accuracy", "exact"
TITLES = {MCQ: "Multiple choice", YES_NO: "Yes or no"}
"""Of tasks that are marked as right or wrong; others go by their own names."""
BASELINES, ALL = "Without listening, by the same questions", "all"
NOTES = {
    MCQ: "Right is a letter, as (B), B) or B.; an answer by the option's text alone has none.",
    YES_NO: "Right is the first word.",
    BASELINES: "Of options that are equally short or long, each is chosen as often.",
}
TEXT_NOTE = "Exact: the same words, upper case or lower, without punctuation."
BLEUS = (BLEU[0], BLEU[-1])
WORST = 20

Marks = Float[np.ndarray, "Q"]
"""Of each question; nan where it does not count."""


def list_findings(
    named: Findings,
    answers: Answers[ListQuestion],
    too_long: Sequence[str],
    repeated: int,
    seed: int,
) -> Findings:
    """Counts what was answered.

    Args:
        named: the findings as far as they are known before.
        answers: of the questions.
        too_long: what is wrong with the prompts of those that were not asked.
        repeated: records left out since they come twice.
        seed: of the intervals' resamples.
    """
    questions = [question for question, _ in answers.answered]
    said = [reply.text for _, reply in answers.answered]
    tasks = sorted({q.task for q in questions}, key=lambda task: (_order(task), task))
    marks = {task: _marks(task, questions, said) for task in tasks}
    by_recording = [question.audio for question in questions]
    measures = measure_shares(dict(_cells(questions, marks)), by_recording, seed)
    signatures: dict[str, str] = {}
    for task in (task for task in tasks if task not in TITLES):
        found, signatures[f"BLEU of {task}"] = _bleus(task, questions, said)
        measures |= found
    total = len(questions) + len(answers.missing) + len(too_long)
    notices = left_out_notices(total, answers.missing, too_long)
    if repeated:
        notices.append(f"{repeated:,} records that repeat another one are asked once")
    notices += cut_notices((question.audio, reply.cut) for question, reply in answers.answered)
    texts = {ROUGE_L: SETTINGS[ROUGE_L]} if signatures else {}
    return replace(
        named,
        headline=_headline(measures, tasks),
        tables=[
            *_tables(measures, tasks),
            *left_out_tables([*answers.missing, *too_long]),
        ],
        notices=notices,
        missing=len(answers.missing),
        confusions=[_confusion(task, questions, said) for task in tasks if task in TITLES],
        worst=_worst(answers, marks),
        settings={**named.settings, **texts, **signatures},
    )


def _order(task: str) -> int:
    """Returns the place of a task: those that are right or wrong come first."""
    return [*TITLES, task].index(task)


def _chosen(question: ListQuestion, said: str) -> int | None:
    """Returns the number of the option that an answer chooses, if it does."""
    if question.task == MCQ:
        return read_letter(question.options, said)
    word = read_yes_no(said)
    return None if word is None else YES_OR_NO.index(word)


def _marks(task: str, questions: Sequence[ListQuestion], said: Sequence[str]) -> dict[str, Marks]:
    """Returns the marks of a task's questions, by what is measured."""
    own = [number for number, question in enumerate(questions) if question.task == task]
    texts = [said[number] for number in own]
    if task in TITLES:
        chosen = [_chosen(questions[n], text) for n, text in zip(own, texts, strict=True)]
        right = [c == questions[n].right for n, c in zip(own, chosen, strict=True)]
        found = {ACCURACY: right, UNANSWERED: [c is None for c in chosen]}
    else:
        wanted = [questions[number].answers for number in own]
        found = {EXACT: exact(texts, wanted), ROUGE_L: rouge_l(texts, wanted)}
    return {name: _spread(values, own, len(questions)) for name, values in found.items()}


def _spread(values: Sequence[float], numbers: Sequence[int], total: int) -> Marks:
    """Returns marks of some questions among all."""
    marks = np.full(total, np.nan)
    marks[list(numbers)] = values
    return marks


def _groups(
    task: str, questions: Sequence[ListQuestion]
) -> Iterator[tuple[str, Bool[np.ndarray, "Q"]]]:
    """Yields the rows of a task's table: all, by data set if there are several, by category."""
    own = np.array([question.task == task for question in questions])
    yield ALL, own
    columns: dict[str, list[str]] = {
        "data set": [question.dataset for question in questions],
        "category": [question.category for question in questions],
    }
    for kind, names in columns.items():
        there = sorted({name for name, is_own in zip(names, own, strict=True) if is_own and name})
        if kind == "data set" and len(there) == 1:
            continue
        for name in there:
            yield f"{kind} {name}", own & (np.array(names) == name)


def _cells(
    questions: Sequence[ListQuestion], marks: Mapping[str, Mapping[str, Marks]]
) -> Iterator[tuple[Cell, Marks]]:
    """Yields what each measure is the mean of."""
    for task, columns in marks.items():
        for row, group in _groups(task, questions):
            for column, values in columns.items():
                yield Cell(task, row, column), np.where(group, values, np.nan)
    for task in (task for task in marks if task in TITLES):
        own = [number for number, question in enumerate(questions) if question.task == task]
        for rule, values in _blind(task, [questions[number] for number in own]).items():
            row = f"{TITLES[task].lower()}: {rule}"
            yield Cell(BASELINES, row, ACCURACY), _spread(values, own, len(questions))


def _blind(task: str, questions: Sequence[ListQuestion]) -> Mapping[str, Sequence[float]]:
    """Returns how probably each rule that does not listen is right, for each question."""
    if task == YES_NO:
        return {
            f"always {word}": [float(question.right == number) for question in questions]
            for number, word in enumerate(YES_OR_NO)
        }
    return blind_marks([(one.options, one.right) for one in questions])


def _bleus(
    task: str, questions: Sequence[ListQuestion], said: Sequence[str]
) -> tuple[dict[Cell, Measure], str]:
    """Returns BLEU of each row of a task's table, and its signature over all of them."""
    found, signature = {}, ""
    for row, group in _groups(task, questions):
        numbers = np.flatnonzero(group)
        texts, wanted = [said[n] for n in numbers], [questions[n].answers for n in numbers]
        measures, settings = bleu(texts, wanted)
        signature = signature or settings["BLEU"]
        found |= {Cell(task, row, name): measures[name] for name in BLEUS}
    return found, signature


def _headline(measures: Mapping[Cell, Measure], tasks: Sequence[str]) -> dict[str, Measure]:
    headline = {}
    for task in tasks:
        if task in TITLES:
            headline[TITLES[task]] = measures[Cell(task, ALL, ACCURACY)]
        else:
            for column in (EXACT, ROUGE_L):
                headline[f"{task}, {column}"] = measures[Cell(task, ALL, column)]
    return headline


def _tables(measures: Mapping[Cell, Measure], tasks: Sequence[str]) -> Iterator[Table]:
    """Yields a table for each task, and one of what does not listen."""
    for key in (*tasks, BASELINES):
        own = {cell: measure for cell, measure in measures.items() if cell.table == key}
        if not own:
            continue
        columns = list(dict.fromkeys(cell.column for cell in own))
        rows = {
            row: [own.get(Cell(key, row, column)) for column in columns]
            for row in dict.fromkeys(cell.row for cell in own)
        }
        known = key in NOTES or key in TITLES
        yield Table(TITLES.get(key, key), columns, rows, NOTES[key] if known else TEXT_NOTE)


def _confusion(task: str, questions: Sequence[ListQuestion], said: Sequence[str]) -> Confusion:
    """Returns what is chosen where which option is right."""
    pairs = [(one, text) for one, text in zip(questions, said, strict=True) if one.task == task]
    most = max(len(question.options) for question, _ in pairs)
    labels = LETTERS[:most] if task == MCQ else YES_OR_NO
    counts = [[0] * (most + 1) for _ in range(most + 1)]
    for question, text in pairs:
        chosen = _chosen(question, text)
        counts[question.right][most if chosen is None else chosen] += 1
    return Confusion(TITLES[task], [*labels, UNANSWERED], counts)


def _worst(
    answers: Answers[ListQuestion], marks: Mapping[str, Mapping[str, Marks]]
) -> list[Answered]:
    """Returns wrong answers, and texts that are least like those wanted: a task's in turn."""
    by_task = []
    for task, columns in marks.items():
        score = columns[ACCURACY if task in TITLES else ROUGE_L]
        order = np.argsort(score, kind="stable")  # nan, which is of other tasks, comes last
        by_task.append([int(number) for number in order if score[number] < 1])
    in_turn = chain.from_iterable(zip_longest(*by_task))
    found = []
    for number in islice((number for number in in_turn if number is not None), WORST):
        question, reply = answers.answered[number]
        text = question.task not in TITLES
        found.append(
            Answered(
                audio=str(question.audio),
                question=question.prompt,
                wanted=" / ".join(question.answers),
                said=reply.text,
                score=float(marks[question.task][ROUGE_L][number]) if text else None,
                options=question.options if question.task == MCQ else (),
            )
        )
    return found
