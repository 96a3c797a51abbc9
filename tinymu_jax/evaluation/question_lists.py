"""Any list in MusicSkills' format: asked as it stands, marked by the format of each question.

Multiple choice is right by the letter and yes or no by the first word; all else is compared with
the wanted texts.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.data.musicskills import pair_with_folders, read_list
from tinymu_jax.data.question_formats import LETTERS, MCQ, YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.answer_parsing import ANNOUNCED, read_letter
from tinymu_jax.evaluation.bootstrap import RESAMPLES, measure_shares
from tinymu_jax.evaluation.multiple_choice.metrics import UNANSWERED, Cell
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Table
from tinymu_jax.evaluation.skipped import (
    Answers,
    cut_notices,
    skipped_notices,
    skipped_tables,
    sort_by_length,
    sort_replies,
)
from tinymu_jax.evaluation.synthetic.grading import read_yes_no
from tinymu_jax.evaluation.text_metrics import (
    BLEU,
    ROUGE_L,
    SETTINGS,
    bleu,
    exact,
    normalised,
    rouge_l,
)
from tinymu_jax.inference.engine import Request, Response

Put = Callable[[Sequence[Request]], Sequence[Response | InputError]]


class ListQuestion(NamedTuple):
    """A question of a list."""

    audio: Path
    prompt: str
    task: str
    answers: tuple[str, ...]
    """Those wanted: of multiple choice and of yes or no one, else one or more."""
    dataset: str
    category: str = ""
    """What it is about, where the list says so."""
    options: tuple[str, ...] = ()
    """Of multiple choice, their texts in the order of the letters; of yes or no these two words."""
    right: int = -1
    """The number of the right option, from 0."""


class QuestionList(NamedTuple):
    """All questions of some lists."""

    name: str
    questions: Sequence[ListQuestion]
    repeated: int
    """Records left out since the same question with the same answer is asked of the recording."""


@dataclass(frozen=True)
class ListConfig:
    """How lists are asked."""

    longest_prompt: int = 129
    """Tokens that the model takes; questions with a longer prompt are left out, and told."""
    seed: int = 0
    """Of the intervals' resamples."""


def evaluate_list(
    put: Put,
    asked: QuestionList,
    checkpoint: str,
    count_tokens: Callable[[str], int],
    config: ListConfig | None = None,
    settings: Mapping[str, str] | None = None,
) -> EvalResult:
    """Asks all questions of a list and marks the answers.

    Args:
        put: asks; an `InputError` in the place of a reply says that the recording is of no use. It
            is called once.
        asked: at least one question.
        checkpoint: what is evaluated.
        count_tokens: of a prompt.
        config: how they are asked.
        settings: more that the numbers depend on.

    Raises:
        InputError: no question could be asked.
    """
    config = config or ListConfig()
    prompts = [one.prompt for one in asked.questions]
    names = [f"{one.audio}: {one.prompt!r}" for one in asked.questions]
    fit, too_long = sort_by_length(
        asked.questions, prompts, names, count_tokens, config.longest_prompt
    )
    if not fit:
        raise InputError(f"{asked.name}: no question could be asked: {too_long[0]}")
    replies = put([Request(one.audio, one.prompt, one.task) for one in fit])
    answers = sort_replies(fit, replies)
    intervals = f"95 %, {RESAMPLES:,} resamples of recordings, seed {config.seed}; BLEU has none"
    depends = {"prompts": "those of the list", "intervals": intervals, **(settings or {})}
    named = EvalResult("list", asked.name, checkpoint, {}, (), settings=depends)
    return list_findings(named, answers, too_long, asked.repeated, config.seed)


YES_OR_NO = ("yes", "no")

_REMEDY = "repair the record or take it out"

_LABEL = re.compile(r"\(([A-Z])\)")


def read_questions(lists: Sequence[str | Path], folders: Sequence[str | Path]) -> QuestionList:
    """Reads lists; several answers to one question are wanted together.

    Args:
        lists: json files.
        folders: where the recordings of each list are; one for all, or one for each.

    Raises:
        InputError: as `tinymu_jax.data.musicskills.read_lists`; or a question that cannot be
            marked, by its record: multiple choice without two to four different options, of which
            the answer names one; yes or no that is answered by neither; either of them with two
            answers.
    """
    found: dict[tuple[Path, str, str], ListQuestion] = {}
    repeated = 0
    for path, folder in pair_with_folders(lists, folders):
        for place, record in enumerate(read_list(path)):
            where = f"{path}: record {place}"
            one = _question(record, folder, where)
            key = one.audio, one.prompt, one.task
            known = found.setdefault(key, one)
            if known is one:
                continue
            if one.answers[0] in known.answers or (one.options and one.right == known.right):
                repeated += 1
                continue
            if one.options:
                raise InputError(
                    f"{where}: asks what another record asks of the recording, and wants "
                    f"{one.answers[0]!r} where that wants {known.answers[0]!r}; keep one of them"
                )
            found[key] = known._replace(answers=(*known.answers, *one.answers))
    names = dict.fromkeys(Path(path).stem for path in lists)
    return QuestionList(", ".join(names), list(found.values()), repeated)


def _question(record: Mapping[str, Any], folder: Path, where: str) -> ListQuestion:
    """Returns the question of a record."""
    prompt, answer, task = (record[key] for key in ("input_text", "target_text", "task"))
    category = record.get("category")
    one = ListQuestion(
        folder / record["file_name"],
        prompt,
        task,
        (answer,),
        record["dataset"],
        category if isinstance(category, str) else "",
    )
    if task == MCQ:
        options = _options(record, where)
        right = _right(options, answer)
        if right is None:
            raise InputError(
                f"{where}: its answer {answer!r} names none of its options, or several; {_REMEDY}"
            )
        return one._replace(options=options, right=right)
    if task == YES_NO:
        word = read_yes_no(answer)
        if word is None:
            raise InputError(f"{where}: its answer {answer!r} is neither yes nor no; {_REMEDY}")
        return one._replace(options=YES_OR_NO, right=YES_OR_NO.index(word))
    if not normalised(answer):
        raise InputError(f"{where}: its answer {answer!r} has no words; {_REMEDY}")
    return one


def _options(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Returns the options of multiple choice: the record's own, or those of its prompt."""
    given = record.get("options") or _options_of(record["input_text"])
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise InputError(f"{where}: its options are no list of texts; {_REMEDY}")
    if not 2 <= len(given) <= len(LETTERS):
        count = f"{len(given) or 'no'} option{'s' * (len(given) != 1)}"
        raise InputError(f"{where}: has {count}, and needs 2 to {len(LETTERS)}; {_REMEDY}")
    even = [normalised(text) or text.strip() for text in given]
    if not all(even):
        raise InputError(f"{where}: has an empty option; {_REMEDY}")
    twice = [text for text, own in zip(given, even, strict=True) if even.count(own) > 1]
    if twice:
        raise InputError(
            f"{where}: has the option {twice[0]!r} twice, so that one answer may be right and "
            f"wrong; {_REMEDY}"
        )
    return tuple(given)


def _options_of(prompt: str) -> tuple[str, ...]:
    """Returns the options that a prompt lists as "(A) one (B) another"; () where it lists none."""
    _, *parts = _LABEL.split(prompt.split(ANNOUNCED)[0])
    letters, texts = parts[::2], parts[1::2]
    if "".join(letters) != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        return ()
    # What stands on a line of its own behind the last one is no part of it.
    return tuple(text.strip().partition("\n")[0].strip(" ,;.") for text in texts)


def _right(options: Sequence[str], answer: str) -> int | None:
    """Returns the option that an answer names by its whole text, or else by its letter."""
    even = [normalised(option) for option in options]
    text = normalised(answer)
    # "A. Vivaldi" may be an option; a letter alone is the letter.
    if len(text) > 1 and text in even:
        return even.index(text)
    number = read_letter(options, answer)
    return even.index(text) if number is None and text in even else number


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
    named: EvalResult,
    answers: Answers[ListQuestion],
    too_long: Sequence[str],
    repeated: int,
    seed: int,
) -> EvalResult:
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
    notices = skipped_notices(total, answers.missing, too_long)
    if repeated:
        notices.append(f"{repeated:,} records that repeat another one are asked once")
    notices += cut_notices((question.audio, reply.cut) for question, reply in answers.answered)
    texts = {ROUGE_L: SETTINGS[ROUGE_L]} if signatures else {}
    return replace(
        named,
        headline=_headline(measures, tasks),
        tables=[
            *_tables(measures, tasks),
            *skipped_tables([*answers.missing, *too_long]),
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
    return option_baselines([(one.options, one.right) for one in questions])


def _bleus(
    task: str, questions: Sequence[ListQuestion], said: Sequence[str]
) -> tuple[dict[Cell, Metric], str]:
    """Returns BLEU of each row of a task's table, and its signature over all of them."""
    found, signature = {}, ""
    for row, group in _groups(task, questions):
        numbers = np.flatnonzero(group)
        texts, wanted = [said[n] for n in numbers], [questions[n].answers for n in numbers]
        measures, settings = bleu(texts, wanted)
        signature = signature or settings["BLEU"]
        found |= {Cell(task, row, name): measures[name] for name in BLEUS}
    return found, signature


def _headline(measures: Mapping[Cell, Metric], tasks: Sequence[str]) -> dict[str, Metric]:
    headline = {}
    for task in tasks:
        if task in TITLES:
            headline[TITLES[task]] = measures[Cell(task, ALL, ACCURACY)]
        else:
            for column in (EXACT, ROUGE_L):
                headline[f"{task}, {column}"] = measures[Cell(task, ALL, column)]
    return headline


def _tables(measures: Mapping[Cell, Metric], tasks: Sequence[str]) -> Iterator[Table]:
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
) -> list[Example]:
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
            Example(
                audio=str(question.audio),
                question=question.prompt,
                expected=" / ".join(question.answers),
                predicted=reply.text,
                score=float(marks[question.task][ROUGE_L][number]) if text else None,
                options=question.options if question.task == MCQ else (),
            )
        )
    return found
