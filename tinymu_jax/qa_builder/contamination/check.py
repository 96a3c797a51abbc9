"""Check lists of questions for leaks from test sets, of three kinds.

id       the identifier or file name of the clip names a recording of the test set
text     question, options or answer nearly duplicate a caption or question of the test set
artist   the artist of the clip is an artist of the test set

A question that nearly duplicates a test question is a leak only in two cases, because generic
questions ("What is the tempo of the song?") are no leaks:

* Its options include all options of the test question.
* Its options or answer include the test question's right answer, and the test question is unique in
  the test sets and, with its answer, has at least `MIN_WORDS` words.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.musicskills import read_list
from tinymu_jax.data.question_formats import CAPTIONING
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.contamination.near_duplicates import near_duplicate_finder, plain_words
from tinymu_jax.qa_builder.contamination.test_sets import TestSet, artist_names, recording_ids
from tinymu_jax.qa_builder.questions.item import RULE

ID, TEXT, ARTIST = KINDS = ("id", "text", "artist")
MIN_WORDS = 12
MAX_EXAMPLES = 20
"""Maximum number of examples in a report for each test set and kind of leak."""
Finder = Callable[[Mapping[str, Any]], Iterable[tuple[int, str]]]
"""Function from a record to its leaks: pairs (index of the test set, matching text)."""
_LETTER = re.compile(r"^\s*\(?[A-D]\)\s*")
_QUESTION = re.compile(r"\bquestion\s*:", re.IGNORECASE)
_OPTIONS = re.compile(r"\boptions?\s*:|\([A-D]\)|\n\s*[A-D][.)]\s", re.IGNORECASE)


@dataclass(frozen=True)
class LeakExample:
    """A question that leaks from a test set."""

    item: int
    """Index of the question among all checked questions."""
    file_name: str
    match: str
    """Identifier, text or artist that the question shares with the test set."""
    prompt: str
    answer: str


@dataclass(frozen=True)
class TestSetLeaks:
    """Leaks from one test set into the checked questions."""

    name: str
    searched: Mapping[str, int]
    """Numbers of "recordings", "captions", "questions" and "artists" in the test set."""
    leaks: Mapping[str, int]
    """Number of leaking questions by kind of leak: "id", "text" or "artist"."""
    examples: Mapping[str, tuple[LeakExample, ...]]
    """The first `MAX_EXAMPLES` leaking questions, by kind of leak."""


@dataclass(frozen=True)
class LeakReport:
    """Leaks from test sets into the checked questions."""

    items: int
    indices: tuple[int, ...]
    """Indices of the questions that leak."""
    test_sets: tuple[TestSetLeaks, ...]

    @property
    def leaks(self) -> int:
        """Return the number of questions that leak."""
        return len(self.indices)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "items": self.items,
            "leaks": self.leaks,
            "test_sets": {one.name: asdict(one) for one in self.test_sets},
            "indices": list(self.indices),
        }

    def summary(self) -> str:
        """Return a text with the number of leaking questions and one line per test set."""
        if not self.test_sets:
            return "No test set was given: nothing was checked."
        lines = [f"{self.leaks:,} of {self.items:,} questions leak from a test set:", ""]
        for one in self.test_sets:
            sizes = ", ".join(f"{size:,} {what}" for what, size in one.searched.items() if size)
            leaks = ", ".join(f"{count:,} by {kind}" for kind, count in one.leaks.items() if count)
            lines.append(f"* {one.name} ({sizes or 'empty'}): {leaks or 'no leak'}")
        return "\n".join(lines)


def read_records(paths: Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Yield the records of MusicSkills lists; raise `InputError` if one is malformed."""
    for path in paths:
        for where, record in read_list(Path(path)):
            for key in ("clip", "artist"):
                if not isinstance(record.get(key) or "", str):
                    raise InputError(f"{where}: {key!r} is not a string; correct or remove it")
            yield record


def check_leaks(records: Iterable[Mapping[str, Any]], test_sets: Sequence[TestSet]) -> LeakReport:
    """Return a report on the MusicSkills records that leak from a test set.

    The optional keys `clip`, `artist` and `options` of a record are checked too.
    """
    finders = {
        ID: _id_finder(test_sets),
        TEXT: _text_finder(test_sets),
        ARTIST: _artist_finder(test_sets),
    }
    counts: Counter[tuple[int, str]] = Counter()
    examples: dict[tuple[int, str], list[LeakExample]] = defaultdict(list)
    total, indices = 0, []
    for index, record in enumerate(records):
        total += 1
        matches: dict[tuple[int, str], str] = {}
        for kind, find in finders.items():
            for number, match in find(record):
                matches.setdefault((number, kind), match)
        if matches:
            indices.append(index)
        counts.update(matches.keys())
        for where, match in matches.items():
            if counts[where] <= MAX_EXAMPLES:
                texts = record["input_text"], record["target_text"]
                examples[where].append(LeakExample(index, record["file_name"], match, *texts))
    leaks = (
        TestSetLeaks(
            test_set.name,
            {
                "recordings": len(test_set.ids),
                "captions": len(test_set.texts),
                "questions": len(test_set.questions),
                "artists": len(test_set.artists),
            },
            {kind: counts[number, kind] for kind in KINDS},
            {kind: tuple(examples[number, kind]) for kind in KINDS if counts[number, kind]},
        )
        for number, test_set in enumerate(test_sets)
    )
    return LeakReport(total, tuple(indices), tuple(leaks))


def _index(values: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    """Return, by text, the indices of the test sets with this text; `values` has their texts."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, contents in enumerate(values):
        for value in dict.fromkeys(contents):
            numbers[value].append(number)
    return dict(numbers)


def _name_finder(
    contents: Iterable[frozenset[str]], names_of: Callable[..., frozenset[str]]
) -> Callable[..., list[tuple[int, str]]]:
    """Return a cached function that finds the test sets that contain a record's names.

    The function passes its arguments to `names_of`, and returns a pair (index of the test set,
    name) for each resulting name that is in a test set. `contents` has the names of each test set.
    """
    index = _index(contents)

    @cache
    def find(*record: str) -> list[tuple[int, str]]:
        names = sorted(names_of(*record) & index.keys())
        return [(number, name) for name in names for number in index[name]]

    return find


def _id_finder(test_sets: Sequence[TestSet]) -> Finder:
    find = _name_finder(
        (one.ids for one in test_sets),
        lambda clip, file, dataset: recording_ids(clip, dataset) | recording_ids(file, dataset),
    )
    return lambda record: find(record.get("clip") or "", record["file_name"], record["dataset"])


def _artist_finder(test_sets: Sequence[TestSet]) -> Finder:
    find = _name_finder((one.artists for one in test_sets), artist_names)
    return lambda record: find(record.get("artist") or "", record["dataset"])


class _KnownQuestion(NamedTuple):
    """A question of a test set; options and right answer are normalized by `plain_words`."""

    test_set: int
    shown: str
    options: tuple[str, ...]
    right: str
    distinctive: bool
    """Whether the question is unique and, with its answer, has at least `MIN_WORDS` words."""

    def leaks_into(self, options: str, answer: str) -> bool:
        """Return whether a near duplicate with the normalized `options` and `answer` is a leak."""
        options, answer = f" {options} ", f" {answer} "
        if all(f" {option} " in options for option in self.options):
            return True
        return self.distinctive and (f" {self.right} " in options or f" {self.right} " in answer)


def _known_questions(test_sets: Sequence[TestSet]) -> dict[str, list[_KnownQuestion]]:
    times = Counter(plain_words(question.text) for one in test_sets for question in one.questions)
    questions: dict[str, list[_KnownQuestion]] = defaultdict(list)
    for number, test_set in enumerate(test_sets):
        for text, answer, options in test_set.questions:
            words, right = plain_words(text), plain_words(answer)
            distinctive = times[words] == 1 and len(f"{words} {right}".split()) >= MIN_WORDS
            plain_options = tuple(map(plain_words, options))
            questions[text].append(
                _KnownQuestion(number, f"{text} {answer}", plain_options, right, distinctive)
            )
    return dict(questions)


def _text_finder(test_sets: Sequence[TestSet]) -> Finder:
    captions = _index(one.texts for one in test_sets)
    questions = _known_questions(test_sets)
    find_captions = cache(near_duplicate_finder(captions))
    find_questions = cache(near_duplicate_finder(questions))

    def find(record: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
        question, options = _split_prompt(record)
        answer = _LETTER.sub("", record["target_text"])
        # Rule-based answers list tags, and captions contain the same lists by coincidence.
        is_free_text = record.get("by") != RULE or record["task"] == CAPTIONING
        for text in (answer, question, options) if is_free_text else ():
            for caption in find_captions(text):
                yield from ((number, caption) for number in captions[caption])
        similar = find_questions(question)
        if similar:
            words = plain_words(options), plain_words(answer)
            for known in (known for text in similar for known in questions[text]):
                if known.leaks_into(*words):
                    yield known.test_set, known.shown

    return find


def _split_prompt(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return the last question in a record's prompt, and the text of its options."""
    question = _QUESTION.split(record["input_text"])[-1]
    start = _OPTIONS.search(question)
    end = start.start() if start else len(question)
    options = record.get("options")
    listed = options if isinstance(options, list) else []
    return question[:end], " ".join([question[end:], *map(str, listed)])
