"""Reads question lists in the format of MusicSkills, the training data of TinyMU.

A list is a JSON array (or JSON lines) of questions with the keys `FIELDS`, and has its own folder
of recordings.
For a data set with several lists, the published loader searches only the last list's folder.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_encodable, printable
from tinymu_jax.utils.json_records import read_json_records

_BYTES = re.compile("[\udc80-\udcff]")
"""Matches what Python makes of the bytes of a file name that are not UTF-8."""
FIELDS = ("file_name", "input_text", "target_text", "dataset", "task")


class QuestionAnswer(NamedTuple):
    """A question about a recording, its reference answer, and the name of its task."""

    prompt: str
    answer: str
    task: str


class ClipQuestions(NamedTuple):
    """A recording and the questions about it."""

    path: Path
    dataset: str
    """Name of the recording's data set, from the first list that contains the recording."""
    questions: tuple[QuestionAnswer, ...]


class QuestionLists(NamedTuple):
    """The recordings and questions of several lists."""

    clips: list[ClipQuestions]
    """Recordings with their questions, in the order in which the lists first name them."""
    repeated: int
    """Number of skipped duplicates: questions with the same recording, prompt, answer and task."""


def pair_with_folders(
    lists: Sequence[str | Path], folders: Sequence[str | Path]
) -> list[tuple[Path, Path]]:
    """Pair each list with its folder of recordings; a single folder is used for all lists.

    Raises:
        InputError: there is no list, the number of folders is wrong, or a folder does not exist.
    """
    if not lists:
        raise InputError("no list: name one or more json files with questions")
    if len(folders) == 1:
        folders = [folders[0]] * len(lists)
    if len(folders) != len(lists):
        raise InputError(
            f"{len(lists)} lists and {len(folders)} audio folders: give one folder for all, or one "
            "for each list, in the same order"
        )
    pairs = [(Path(name), Path(folder)) for name, folder in zip(lists, folders, strict=True)]
    for name, folder in pairs:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; name the one with the audio of {name}")
    return pairs


def read_lists(lists: Sequence[str | Path], folders: Sequence[str | Path]) -> QuestionLists:
    """Read question lists and collect all questions about each recording.

    See `pair_with_folders` and `read_list` for arguments and errors.
    """
    clips: dict[Path, tuple[str, dict[QuestionAnswer, None]]] = {}
    repeated = 0
    for name, folder in pair_with_folders(lists, folders):
        for _, record in read_list(name):
            question = QuestionAnswer(record["input_text"], record["target_text"], record["task"])
            path = folder / record["file_name"]
            _, questions = clips.setdefault(path, (record["dataset"], {}))
            repeated += question in questions
            questions[question] = None
    joined = [ClipQuestions(path, name, tuple(asked)) for path, (name, asked) in clips.items()]
    return QuestionLists(joined, repeated)


def list_recordings(folders: Sequence[str | Path]) -> QuestionLists:
    """List all recordings below several folders; raise `InputError` if a folder has none."""
    if not folders:
        raise InputError(
            "nothing to prepare: name lists of questions, or folders of recordings (--audio)"
        )
    names: dict[Path, str] = {}
    for folder in folders:
        for path in list_audio_files(folder):
            names.setdefault(path, printable(Path(folder).name))
    return QuestionLists([ClipQuestions(path, name, ()) for path, name in names.items()], 0)


def read_list(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place ("list.json: record 0") and the fields of each record of a question list.

    The list is a JSON array or JSON lines. Raises `InputError` if it is empty or malformed.
    """
    remedy = "name a list of questions, or download it again"
    is_empty = True
    for where, record in read_json_records(path, remedy):
        _check_record(record, where)
        yield where, record
        is_empty = False
    if is_empty:
        raise InputError(f"{path}: holds no list of records; {remedy}")


def _check_record(record: Any, where: str) -> None:
    """Raise `InputError`, whose message begins with `where`, if a field is missing or empty."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: is not an object; each has {', '.join(FIELDS)}")
    for key in FIELDS:
        value = record.get(key)
        if not isinstance(value, str) or not value:
            problem = "has no" if key not in record else "has an empty or unreadable"
            raise InputError(f"{where}: {problem} {key!r}; repair the record or take it out")
    names = {
        key: _BYTES.sub("", str(record[key])) for key in ("file_name", "clip") if key in record
    }
    check_encodable(record | names, where)
