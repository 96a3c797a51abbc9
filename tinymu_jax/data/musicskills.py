"""MusicSkills' lists: which questions are asked about which recording.

A list is a json array of records with the keys of `FIELDS`; its recordings lie in one folder. The
published loader finds the folder by the data set that the list's first record names, so that the
last list of that name decides for all; here every list has its own folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.load import list_audio_files
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import read_json_list

FIELDS = ("file_name", "input_text", "target_text", "dataset", "task")


class QuestionAnswer(NamedTuple):
    """A question and the answer that is wanted."""

    prompt: str
    answer: str
    task: str


class ClipQuestions(NamedTuple):
    """A recording and all that is asked about it."""

    path: Path
    dataset: str
    """Of the first list that names the recording."""
    pairs: tuple[QuestionAnswer, ...]


class QuestionLists(NamedTuple):
    """All lists together."""

    clips: list[ClipQuestions]
    """In the order in which the lists name them."""
    repeated: int
    """Questions left out because the same one, with the same answer, is asked of the clip twice."""


def pair_with_folders(
    lists: Sequence[str | Path], folders: Sequence[str | Path]
) -> list[tuple[Path, Path]]:
    """Returns each list with the folder of its recordings.

    Args:
        lists: json files.
        folders: where the recordings of each list are; one for all, or one for each.

    Raises:
        InputError: no list, another number of folders than of lists, or a folder that is none.
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
            raise InputError(f"{folder}: is no folder; name the one with the audio of {name}")
    return pairs


def read_lists(lists: Sequence[str | Path], folders: Sequence[str | Path]) -> QuestionLists:
    """Reads lists and joins what they ask about one recording.

    Args:
        lists: json files.
        folders: where the recordings of each list are; one for all, or one for each.

    Raises:
        InputError: another number of folders than of lists, a list that is none, a record without
            a key or with an empty text.
    """
    found: dict[Path, tuple[str, dict[QuestionAnswer, None]]] = {}
    repeated = 0
    for name, folder in pair_with_folders(lists, folders):
        for record in read_list(name):
            pair = QuestionAnswer(record["input_text"], record["target_text"], record["task"])
            path = folder / record["file_name"]
            _, pairs = found.setdefault(path, (record["dataset"], {}))
            repeated += pair in pairs
            pairs[pair] = None
    clips = [ClipQuestions(path, name, tuple(pairs)) for path, (name, pairs) in found.items()]
    return QuestionLists(clips, repeated)


def list_recordings(folders: Sequence[str | Path]) -> QuestionLists:
    """Returns all recordings of folders, and those below them, of which nothing is asked.

    Raises:
        InputError: no folder, or one without recordings.
    """
    if not folders:
        raise InputError(
            "nothing to prepare: name lists of questions, or folders of recordings (--audio)"
        )
    clips = [
        ClipQuestions(p, Path(folder).name, ())
        for folder in folders
        for p in list_audio_files(folder)
    ]
    return QuestionLists(clips, 0)


def read_list(path: Path) -> list[dict[str, str]]:
    """Returns the records of one list.

    Raises:
        InputError: it is none, or a record of it lacks a key.
    """
    remedy = "name a list of questions, or download it again"
    content = read_json_list(path, remedy)
    if not content:
        raise InputError(f"{path}: holds no list of records; {remedy}")
    for number, record in enumerate(content):
        _check_record(record, f"{path}: record {number}")
    return content


def _check_record(record: Any, where: str) -> None:
    """Refuses a record that asks nothing, answers nothing, or names no recording."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: is no object; each has {', '.join(FIELDS)}")
    for key in FIELDS:
        value = record.get(key)
        if not isinstance(value, str) or not value:
            problem = "has no" if key not in record else "has an empty or unreadable"
            raise InputError(f"{where}: {problem} {key!r}; repair the record or take it out")
