"""Evaluation on question lists in MusicSkills' format: ask the questions and grade the answers.

Multiple choice is graded by the answer's letter, yes or no by its first word, and other tasks by
text metrics.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.data.musicskills import pair_with_folders, read_list
from tinymu_jax.data.question_formats import LETTERS, MCQ, YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.answer_parsing import ANNOUNCEMENT, YES_OR_NO, read_letter, read_yes_no
from tinymu_jax.evaluation.bootstrap import interval_note, mean_metrics
from tinymu_jax.evaluation.multiple_choice.questions import check_options
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Table
from tinymu_jax.evaluation.skipped import (
    Answers,
    collect_answers,
    cut_notices,
    skip_long_prompts,
    skipped_notices,
    skipped_tables,
)
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
from tinymu_jax.evaluation.text_metrics import (
    BLEU,
    ROUGE_L,
    SETTINGS,
    bleu,
    exact_match,
    normalize_words,
    rouge_l,
)
from tinymu_jax.inference.engine import Request

ACCURACY, EXACT = "accuracy", "exact"
BLEU_COLUMNS = (BLEU[0], BLEU[-1])
TITLES = {MCQ: "Multiple choice", YES_NO: "Yes or no"}
"""Titles of the tasks whose answers are right or wrong; other tasks are titled by their names."""
NOTES = {
    MCQ: "Right is a letter, as (B), B) or B.; an answer by the option's text alone has none.",
    YES_NO: "Right is the first word.",
}
TEXT_NOTE = "Exact: the same words, upper case or lower, without punctuation."
_REMEDY = "repair the record or take it out"
_LABEL = re.compile(r"\(([A-Z])\)")


class ListQuestion(NamedTuple):
    """A question about a recording, with its reference answers."""

    audio: Path
    prompt: str
    task: str
    answers: tuple[str, ...]
    """Reference answers; exactly one for multiple choice and yes or no."""
    dataset: str
    category: str = ""
    """Subject of the question; empty if unknown."""
    options: tuple[str, ...] = ()
    """Options of multiple choice in letter order; `YES_OR_NO` for yes or no; else ()."""
    right: int = -1
    """Index of the right option; -1 without options."""


class QuestionList(NamedTuple):
    """The distinct questions of one or more lists."""

    name: str
    questions: Sequence[ListQuestion]
    repeated: int
    """Number of records that were dropped because they repeat a question and its answer."""


# --- reading -------------------------------------------------------------------------------------


def read_questions(lists: Sequence[str | Path], folders: Sequence[str | Path]) -> QuestionList:
    """Read the questions of JSON lists in MusicSkills' format.

    Records with the same open question become one question with several reference answers. A
    multiple-choice question must have two to four different options.

    Args:
        lists: the paths of the lists.
        folders: the folders of the recordings: one for all lists, or one for each list.

    Raises:
        InputError: a list cannot be read, a record's options or answer are invalid, or two records
            give different answers to a multiple-choice or yes-or-no question.
    """
    questions: dict[tuple[Path, str, str], ListQuestion] = {}
    repeated = 0
    for path, folder in pair_with_folders(lists, folders):
        for where, record in read_list(path):
            question = _to_question(record, folder, where)
            key = question.audio, question.prompt, question.task
            first = questions.setdefault(key, question)
            if first is question:
                continue
            answer = question.answers[0]
            if answer in first.answers or (question.options and question.right == first.right):
                repeated += 1
                continue
            if question.options:
                raise InputError(
                    f"{where}: repeats another record's question about the recording with the "
                    f"answer {answer!r} instead of {first.answers[0]!r}; keep one of them"
                )
            questions[key] = first._replace(answers=(*first.answers, answer))
    names = dict.fromkeys(Path(path).stem for path in lists)
    return QuestionList(", ".join(names), list(questions.values()), repeated)


def _to_question(record: Mapping[str, Any], folder: Path, where: str) -> ListQuestion:
    prompt, answer, task = (record[key] for key in ("input_text", "target_text", "task"))
    category = record.get("category")
    question = ListQuestion(
        folder / record["file_name"],
        prompt,
        task,
        (answer,),
        record["dataset"],
        category if isinstance(category, str) else "",
    )
    if task == MCQ:
        options = _options(record, where)
        right = _right_option(options, answer)
        if right is None:
            raise InputError(
                f"{where}: its answer {answer!r} names none of its options, or several; {_REMEDY}"
            )
        return question._replace(options=options, right=right)
    if task == YES_NO:
        word = read_yes_no(answer)
        if word is None:
            raise InputError(f"{where}: its answer {answer!r} is neither yes nor no; {_REMEDY}")
        return question._replace(options=YES_OR_NO, right=YES_OR_NO.index(word))
    if not normalize_words(answer):
        raise InputError(f"{where}: its answer {answer!r} has no words; {_REMEDY}")
    return question


def _options(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return a multiple-choice record's options, from its field `options` or else its prompt."""
    options = record.get("options") or _options_in(record["input_text"])
    if not isinstance(options, list | tuple) or not all(isinstance(text, str) for text in options):
        raise InputError(f"{where}: its options are not a list of texts; {_REMEDY}")
    letters = [f"({letter}) " for letter in LETTERS[: len(options)]]
    if len(letters) == len(options) and all(map(str.startswith, options, letters)):
        options = [text.removeprefix(x) for text, x in zip(options, letters, strict=True)]
    words = [normalize_words(text) or text.strip() for text in options]
    check_options(options, words, where, _REMEDY)
    return tuple(options)


def _options_in(prompt: str) -> tuple[str, ...]:
    """Return the options that a prompt lists as "(A) one (B) another"; () if it lists none."""
    _, *parts = _LABEL.split(prompt.split(ANNOUNCEMENT)[0])
    letters, texts = parts[::2], parts[1::2]
    if "".join(letters) != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        return ()
    # Text on a new line behind an option does not belong to the option.
    return tuple(text.strip().partition("\n")[0].strip(" ,;.") for text in texts)


def _right_option(options: Sequence[str], answer: str) -> int | None:
    """Return the index of the option that an answer names by its whole text or by its letter."""
    words = [normalize_words(option) for option in options]
    text = normalize_words(answer)
    # The text "A. Vivaldi" may be an option; a single letter always means the option's letter.
    if len(text) > 1 and text in words:
        return words.index(text)
    number = read_letter(options, answer)
    return words.index(text) if number is None and text in words else number


# --- evaluation ----------------------------------------------------------------------------------


def evaluate_list(model: EvalModel, asked: QuestionList, seed: int = 0) -> EvalResult:
    """Ask a model all questions of a list, grade the answers, and compute all metrics.

    `seed` sets the resamples for the confidence intervals.

    Raises:
        InputError: no question could be asked.
    """
    fitting, too_long = skip_long_prompts(
        asked.questions,
        [question.prompt for question in asked.questions],
        [f"{question.audio}: {question.prompt!r}" for question in asked.questions],
        model,
    )
    if not fitting:
        raise InputError(f"{asked.name}: no question could be asked: {too_long[0]}")
    responses = model.engine([Request(one.audio, one.prompt, one.task) for one in fitting])
    answers = collect_answers(fitting, responses)
    tasks = sorted({q.task for q in answers.items}, key=lambda task: (_place(task), task))
    scores = {task: _scores(task, answers) for task in tasks}
    recordings = [question.audio for question in answers.items]
    metrics = mean_metrics(dict(_cell_scores(answers.items, scores)), recordings, seed)
    bleu_settings: dict[str, str] = {}
    for task in (task for task in tasks if task not in TITLES):
        bleu_metrics, bleu_settings[f"BLEU of {task}"] = _bleu(task, answers)
        metrics |= bleu_metrics
    return EvalResult(
        kind="list",
        title=asked.name,
        checkpoint=model.name,
        headline=_headline(metrics, tasks),
        tables=[*_tables(metrics, tasks), *skipped_tables([*answers.missing, *too_long])],
        notices=_notices(answers, too_long, asked.repeated),
        missing=len(answers.missing),
        confusions=[_confusion(task, answers) for task in tasks if task in TITLES],
        worst=_worst(answers, scores),
        settings={
            "prompts": "those of the list",
            "intervals": f"{interval_note(seed)}; BLEU has none",
            **model.settings,
            **({ROUGE_L: SETTINGS[ROUGE_L]} if bleu_settings else {}),
            **bleu_settings,
        },
    )


def _place(task: str) -> int:
    """Return a task's sort key; tasks whose answers are right or wrong come first."""
    return [*TITLES, task].index(task)


def _choice(question: ListQuestion, answer: str) -> int | None:
    """Return the index of the option that an answer chooses; None if it chooses none."""
    if question.task == MCQ:
        return read_letter(question.options, answer)
    word = read_yes_no(answer)
    return None if word is None else YES_OR_NO.index(word)


def _scores(task: str, answers: Answers[ListQuestion]) -> dict[str, QuestionScores]:
    """Return one score per question for each metric of a task; NaN for questions of other tasks."""
    questions, texts = answers.items, answers.texts
    numbers = [number for number, question in enumerate(questions) if question.task == task]
    if task in TITLES:
        choices = [_choice(questions[n], texts[n]) for n in numbers]
        right = [c == questions[n].right for n, c in zip(numbers, choices, strict=True)]
        columns = {ACCURACY: right, UNANSWERED: [c is None for c in choices]}
    else:
        predicted = [texts[n] for n in numbers]
        references = [questions[n].answers for n in numbers]
        columns = {
            EXACT: exact_match(predicted, references),
            ROUGE_L: rouge_l(predicted, references),
        }
    return {name: _scatter(values, numbers, len(questions)) for name, values in columns.items()}


def _scatter(values: Sequence[float], numbers: Sequence[int], total: int) -> QuestionScores:
    """Return `total` scores, which are `values` at the indices `numbers` and NaN elsewhere."""
    scores = np.full(total, np.nan)
    scores[list(numbers)] = values
    return scores


def _rows(
    task: str, questions: Sequence[ListQuestion]
) -> Iterator[tuple[str, Bool[np.ndarray, "Q"]]]:
    """Yield, for each row of a task's table, its name and the mask of the questions in it."""
    in_task = np.array([question.task == task for question in questions])
    yield ALL, in_task
    columns = {
        "data set": [question.dataset for question in questions],
        "category": [question.category for question in questions],
    }
    for kind, values in columns.items():
        names = sorted({name for name, here in zip(values, in_task, strict=True) if here and name})
        if kind == "data set" and len(names) == 1:
            continue
        for name in names:
            yield f"{kind} {name}", in_task & (np.array(values) == name)


def _cell_scores(
    questions: Sequence[ListQuestion], scores: Mapping[str, Mapping[str, QuestionScores]]
) -> Iterator[tuple[MetricPlace, QuestionScores]]:
    """Yield, for each metric, its place in the report and the question scores that it averages.

    `scores` has the result of `_scores` by task.
    """
    for task, columns in scores.items():
        for row, group in _rows(task, questions):
            for column, values in columns.items():
                yield MetricPlace(task, row, column), np.where(group, values, np.nan)
    for task in (task for task in scores if task in TITLES):
        numbers = [number for number, question in enumerate(questions) if question.task == task]
        for rule, values in _baselines(task, [questions[number] for number in numbers]).items():
            cell = MetricPlace(BASELINES_TITLE, f"{TITLES[task].lower()}: {rule}", ACCURACY)
            yield cell, _scatter(values, numbers, len(questions))


def _baselines(task: str, questions: Sequence[ListQuestion]) -> Mapping[str, Sequence[float]]:
    """Return each baseline's probability of answering each question right, by baseline name."""
    if task == YES_NO:
        return {
            f"always {word}": [float(question.right == number) for question in questions]
            for number, word in enumerate(YES_OR_NO)
        }
    return option_baselines([(question.options, question.right) for question in questions])


def _bleu(task: str, answers: Answers[ListQuestion]) -> tuple[dict[MetricPlace, Metric], str]:
    """Return the BLEU metrics of each row of a task's table, and sacrebleu's signature."""
    questions, texts = answers.items, answers.texts
    metrics, signature = {}, ""
    for row, group in _rows(task, questions):
        numbers = np.flatnonzero(group)
        orders, settings = bleu(
            [texts[n] for n in numbers], [questions[n].answers for n in numbers]
        )
        signature = signature or settings["BLEU"]
        metrics |= {MetricPlace(task, row, name): orders[name] for name in BLEU_COLUMNS}
    return metrics, signature


def _headline(metrics: Mapping[MetricPlace, Metric], tasks: Sequence[str]) -> dict[str, Metric]:
    headline = {}
    for task in tasks:
        if task in TITLES:
            headline[TITLES[task]] = metrics[MetricPlace(task, ALL, ACCURACY)]
        else:
            for column in (EXACT, ROUGE_L):
                headline[f"{task}, {column}"] = metrics[MetricPlace(task, ALL, column)]
    return headline


def _tables(metrics: Mapping[MetricPlace, Metric], tasks: Sequence[str]) -> list[Table]:
    """Return a table of metrics for each task, then a table of the text-only baselines."""
    tables = [
        cells_to_table(metrics, task, TITLES.get(task, task), NOTES.get(task, TEXT_NOTE))
        for task in tasks
    ]
    tables.append(cells_to_table(metrics, BASELINES_TITLE, BASELINES_TITLE, BASELINES_NOTE))
    return [table for table in tables if table]


def _notices(answers: Answers[ListQuestion], too_long: Sequence[str], repeated: int) -> list[str]:
    total = len(answers.answered) + len(answers.missing) + len(too_long)
    return [
        *skipped_notices(total, answers.missing, too_long),
        *([f"{repeated:,} records that repeat another one are asked once"] if repeated else []),
        *cut_notices((question.audio, response.cut) for question, response in answers.answered),
    ]


def _confusion(task: str, answers: Answers[ListQuestion]) -> Confusion:
    pairs = [(q, text) for q, text in zip(answers.items, answers.texts, strict=True)]
    pairs = [(question, text) for question, text in pairs if question.task == task]
    most = max(len(question.options) for question, _ in pairs)
    labels = LETTERS[:most] if task == MCQ else YES_OR_NO
    right = [question.right for question, _ in pairs]
    return choice_confusion(TITLES[task], labels, right, [_choice(*pair) for pair in pairs])


def _worst(
    answers: Answers[ListQuestion], scores: Mapping[str, Mapping[str, Float[np.ndarray, "Q"]]]
) -> list[Example]:
    """Return example answers that are wrong or have a low ROUGE-L, alternating between tasks."""
    by_task = []
    for task, columns in scores.items():
        score = columns[ACCURACY if task in TITLES else ROUGE_L]
        order = np.argsort(score, kind="stable")  # NaN, for questions of other tasks, sorts last
        by_task.append([int(number) for number in order if score[number] < 1])
    in_turn = [n for n in chain.from_iterable(zip_longest(*by_task)) if n is not None]
    worst = []
    for number in in_turn[:MAX_WORST]:
        question, response = answers.answered[number]
        rouge = scores[question.task].get(ROUGE_L)
        worst.append(
            Example(
                audio=str(question.audio),
                question=question.prompt,
                expected=" / ".join(question.answers),
                predicted=response.text,
                score=None if rouge is None else float(rouge[number]),
                options=question.options if question.task == MCQ else (),
            )
        )
    return worst
