"""Read multiple-choice questions about recordings from MuChoMusic's csv or from JSONL."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.audio_index import AudioIndex, find_audio, index_audio
from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_encodable
from tinymu_jax.utils.json_records import JSON_SUFFIXES, read_json_records
from tinymu_jax.utils.tables import TABLE_SUFFIXES, TableRow, read_rows

KINDS = ("right", "incorrect but related", "correct but unrelated", "incorrect and unrelated")
"""Kinds of options in MuChoMusic, in the order of the csv's columns `ANSWERS`."""
ANSWERS = ("correct_answer", *(f"distractor_{number}_answer" for number in (1, 2, 3)))
KNOWLEDGE, REASONING, GENRE, DATASET = "knowledge", "reasoning", "genre", "dataset"
"""Kinds of labels (tags) that a question may have."""
COLUMNS = {KNOWLEDGE: "music_knowledge", REASONING: "music_reasoning", GENRE: "genre"}
"""Column of the csv for each kind of label."""
NEEDED = ("question", *ANSWERS, "dataset", "dataset_identifier", *COLUMNS.values())
FIELDS = ("audio", "question", "choices", "answer")
"""Keys of a question in JSONL."""


class ChoiceQuestion(NamedTuple):
    """A multiple-choice question about a recording."""

    id: str
    """Recording, and the question's number for this recording, such as "sdd/1004034#2"."""
    audio: Path
    """Path of the recording, which may be missing."""
    question: str
    options: tuple[str, ...]
    """Texts of the two to four options, in the order shown."""
    right: int
    """Index of the right option."""
    labels: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Known tags by kind of label: knowledge, reasoning, genre and data set."""
    kinds: tuple[str, ...] = ()
    """Kind of each option, one of `KINDS`; () if unknown."""

    @property
    def lettered(self) -> tuple[str, ...]:
        """The options with letters, as the model sees them: "(A) text"."""
        return tuple(f"({x}) {text}" for x, text in zip(LETTERS, self.options, strict=False))


def read_choices(path: str | Path, audio: str | Path, seed: int = 0) -> list[ChoiceQuestion]:
    """Read multiple-choice questions from a csv in MuChoMusic's format, or from JSONL.

    Each line of JSONL is an object with the keys `FIELDS`, in which "answer" is the letter of the
    right choice. Options of a csv are shuffled; options of JSONL keep their order.

    Args:
        path: the path of the .csv or .jsonl file.
        audio: the folder of the recordings; for a csv, see `index_audio` for their names.
        seed: the seed of the shuffling, which also depends on the question's id.

    Raises:
        InputError: the file has another format, or a question is invalid.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*TABLE_SUFFIXES, *JSON_SUFFIXES):
        raise InputError(f"{path}: name a .csv in MuChoMusic's form, or a .jsonl of questions")
    reader = _read_csv if suffix in TABLE_SUFFIXES else _read_json
    questions, counts = [], dict[str, int]()
    for question in reader(path, audio):
        counts[question.id] = number = counts.get(question.id, 0) + 1
        questions.append(question._replace(id=f"{question.id}#{number}"))
    if not questions:
        raise InputError(f"{path}: has no questions; name another list")
    return [_shuffled(one, seed) if one.kinds else one for one in questions]


def _read_csv(path: str | Path, audio: str | Path) -> Iterator[ChoiceQuestion]:
    """Yield the questions of a csv in MuChoMusic's format, with the right option first."""
    index = index_audio(audio)
    remedy = f"name a csv in MuChoMusic's form, with the columns {', '.join(NEEDED)}"
    for row in read_rows(Path(path), NEEDED, remedy):
        yield _from_row(row, index)


def _from_row(row: TableRow, index: AudioIndex) -> ChoiceQuestion:
    """Convert a row of MuChoMusic's csv to a question, with the right option first."""
    dataset, name = row.name("dataset"), row.name("dataset_identifier").removesuffix(".json")
    answers = [(row.text(c), kind) for c, kind in zip(ANSWERS, KINDS, strict=True)]
    if any(text for text, _ in answers):
        row.filled(ANSWERS[0])
    answers = [(text, kind) for text, kind in answers if text]
    labels = {label: _tags(row, column) for label, column in COLUMNS.items()}
    question = ChoiceQuestion(
        id=f"{dataset}/{name}",
        audio=find_audio(index, dataset, name) or index.folder / dataset / f"{name}.wav",
        question=row.text("question"),
        options=tuple(text for text, _ in answers),
        right=0,
        labels=labels | {DATASET: (dataset,)},
        kinds=tuple(kind for _, kind in answers),
    )
    return _checked(question, f"{row.path}: line {row.line}")


def _tags(row: TableRow, column: str) -> tuple[str, ...]:
    """Return the distinct tags of a csv field: a Python list, comma-separated tags or one genre."""
    text = row.text(column)
    if text.startswith("["):
        tags = row.python_list(column, str)
    else:
        tags = [text] if column == COLUMNS[GENRE] else text.split(",")
    return tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))


def _read_json(path: str | Path, audio: str | Path) -> Iterator[ChoiceQuestion]:
    """Yield the questions of a JSON file, with the options in the file's order."""
    remedy = f"name a jsonl with {', '.join(FIELDS)} on each line"
    for where, record in read_json_records(path, remedy):
        if not isinstance(record, dict) or not set(FIELDS) <= set(record):
            raise InputError(f"{where}: is not an object with {', '.join(FIELDS)}; repair it")
        yield _from_record(record, Path(audio), where)


def _from_record(record: Mapping[str, Any], audio: Path, where: str) -> ChoiceQuestion:
    """Convert a JSON object with the keys `FIELDS` to a question; errors begin with `where`."""
    name, text, choices, answer = (record[field] for field in FIELDS)
    texts = [name, text, *choices] if isinstance(choices, list) else [None]
    if not all(isinstance(value, str) for value in texts):
        raise InputError(f"{where}: audio, question or choices are not texts; repair it")
    if not name:
        raise InputError(f"{where}: names no audio; fill it in")
    check_encodable([text, *choices], where)
    options = tuple(choice.strip() for choice in choices)
    question = _checked(ChoiceQuestion(name, audio / name, text.strip(), options, 0), where)
    letters = LETTERS[: len(options)]
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        raise InputError(f"{where}: answer is {answer!r}; give one of {', '.join(letters)}")
    return question._replace(right=letters.index(answer))


def _checked(question: ChoiceQuestion, where: str) -> ChoiceQuestion:
    """Return the question; raise `InputError` if its text or its options are invalid."""
    if not question.question:
        raise InputError(f"{where}: asks nothing; fill in the question")
    check_options(question.options, [option.lower() for option in question.options], where)
    return question


def check_options(
    options: Sequence[str],
    keys: Sequence[str],
    where: str,
    remedy: str = "repair it or take it out",
) -> None:
    """Raise `InputError` unless a question has two to four different, non-empty options.

    `keys` are the normalized texts of the options: two options are the same if their keys are. The
    error begins with `where` (the question's file and line) and ends with `remedy`.
    """
    if not 2 <= len(options) <= len(LETTERS):
        count = f"{len(options) or 'no'} option{'s' * (len(options) != 1)}"
        raise InputError(f"{where}: has {count}, and needs 2 to {len(LETTERS)}; {remedy}")
    if not all(keys):
        raise InputError(f"{where}: has an empty option; {remedy}")
    repeated = [option for option, key in zip(options, keys, strict=True) if keys.count(key) > 1]
    if repeated:
        raise InputError(
            f"{where}: has the option {repeated[0]!r} twice, so that one answer may be right and "
            f"wrong; {remedy}"
        )


def _shuffled(question: ChoiceQuestion, seed: int) -> ChoiceQuestion:
    """Return the question with shuffled options; the seed and the question's id set the order."""

    def digest(number: int) -> bytes:
        return hashlib.sha256(f"{seed}/{question.id}/{number}".encode()).digest()

    order = sorted(range(len(question.options)), key=digest)
    return question._replace(
        options=tuple(question.options[n] for n in order),
        right=order.index(question.right),
        kinds=tuple(question.kinds[n] for n in order),
    )
