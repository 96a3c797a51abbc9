"""Questions of MusicSkills' lists, ready to be asked and marked."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.musicskills import read_list, with_folders
from tinymu_jax.data.questions import LETTERS, MCQ, YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.choice_rules import ANNOUNCED, read_letter
from tinymu_jax.evaluation.synthetic.marking import read_yes_no
from tinymu_jax.evaluation.text_scores import normalised

YES_OR_NO = ("yes", "no")

_REMEDY = "repair the record or take it out"
_LABEL = re.compile(r"\(([A-Z])\)")


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
    for path, folder in with_folders(lists, folders):
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
